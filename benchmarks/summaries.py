"""What results on tables say: ranks, ratios and losses, as text, in the docs and as a picture."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.systems import DEEP_ENSEMBLE

FORDE = "FoRDE"
CONDITIONS = ["clean", "shifted", "natural shift"]
SCORES = ["nll", "accuracy", "ece", "brier"]
LARGER_IS_BETTER = {"accuracy"}
GENERATED = "<!-- generated: {} -->"


def conditions_of(results: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Scores by set, seed and method under each condition; of six shifts their mean."""
    kind = results["rows"].where(results["rows"].isin(CONDITIONS), "shifted")
    keys = ["condition", "set", "seed", "method"]
    scores = results.assign(condition=kind).groupby(keys)[SCORES].mean()
    known = scores.index.unique("condition")
    return {name: scores.loc[name] for name in CONDITIONS if name in known}


def differences(scores: pd.Series, base: str) -> pd.DataFrame:
    """Mean over seeds of the difference to `base`, by set and method.

    Over the seeds that both have; a method that lacks one of the base's sets is left out.
    """
    table = scores.unstack("method")  # noqa: PD010
    table = table[table[base].notna()]
    return table.sub(table[base], axis=0).groupby("set").mean().dropna(axis=1)


def log_ratios(scores: pd.Series, base: str) -> pd.DataFrame:
    """Mean over seeds of the log ratio to `base`, by set and method, as `differences`."""
    return differences(np.log(scores), base)


def relative_to(scores: pd.Series, base: str) -> pd.DataFrame:
    """Geometric mean over sets of the ratio to `base`, and on how many sets it is below one."""
    ratio = log_ratios(scores, base)
    summary = pd.DataFrame({"ratio": np.exp(ratio.mean()), "sets below 1": (ratio < 0).sum()})
    summary["worst set"] = np.exp(ratio.max())
    return summary.sort_values("ratio").round(3)


def means_by_set(scores: pd.Series) -> pd.DataFrame:
    """Mean score by set and method, over the seeds that all have.

    A method that lacks a set is left out.
    """
    table = scores.unstack("method")  # noqa: PD010
    has_every_set = table.groupby("set").count().gt(0).all()
    means: pd.DataFrame = table.loc[:, has_every_set].dropna().groupby("set").mean()
    return means


def average_ranks(scores: pd.Series, *, larger_is_better: bool = False) -> pd.Series:
    """Mean over sets of the rank of each method's mean score; 1 is best."""
    # Equal scores, of which a mean differs in its last digit, have one rank.
    means = means_by_set(scores).round(12)
    return means.rank(axis=1, ascending=not larger_is_better).mean()


def regret(scores: pd.Series) -> pd.Series:
    """Mean over sets of the log ratio of each method's mean score to the best one's of the set."""
    logs = np.log(means_by_set(scores))
    return logs.sub(logs.min(axis=1), axis=0).mean()


def against_peers(scores: pd.DataFrame, method: str = FORDE) -> pd.DataFrame:
    """How a method's NLL compares with each peer's, with ranks and regrets among them alone.

    Ensembles of ours are no peers. Ratios are geometric means over sets, with the standard error of
    their logarithm; a regret is the ratio to the best of each set. Ranks and regrets are among the
    methods that have every seed.
    """
    names = scores.index.get_level_values("method")
    scores = scores[~names.str.startswith(DEEP_ENSEMBLE)]
    ranked = complete(scores, method)
    # The ratio is of this method to a peer, and log_ratios returns that of peers to this method.
    ratio = -log_ratios(scores["nll"], method)
    table = pd.DataFrame(
        {
            "ratio": np.exp(ratio.mean()),
            "standard error": ratio.sem(),
            "sets below 1": (ratio < 0).mean(),
            "rank, NLL": average_ranks(ranked["nll"]),
            "rank, Brier": average_ranks(ranked["brier"]),
            "regret": np.exp(regret(ranked["nll"])),
        }
    )
    table.loc[method, ["standard error", "sets below 1"]] = np.nan
    return table.sort_values("rank, NLL").round(3)


def complete(scores: pd.DataFrame, method: str = FORDE) -> pd.DataFrame:
    """Leave out methods that lack a set or a seed of this one, whose ranks would be of others."""
    table = scores["nll"].unstack("method")  # noqa: PD010
    has_every_seed = table[table[method].notna()].notna().all()
    names = scores.index.get_level_values("method")
    return scores[names.isin(has_every_seed.index[has_every_seed])]


def ranks(scores: pd.DataFrame) -> pd.DataFrame:
    """Average ranks of every score, best NLL first."""
    columns = {
        name: average_ranks(scores[name], larger_is_better=name in LARGER_IS_BETTER)
        for name in SCORES
    }
    return pd.DataFrame(columns).sort_values("nll").round(2)


def losses(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean NLL ± standard deviation over seeds, a row for each method and a column for each set."""
    moments = scores["nll"].groupby(["method", "set"]).agg(["mean", "std"])
    text = moments.apply(lambda row: f"{row['mean']:.3f}±{row['std']:.3f}", axis=1)
    return text.str.replace("±nan", "").unstack("set")  # noqa: PD010


def describe(results: pd.DataFrame) -> str:
    """Say what was fitted: sets, and fits of each method."""
    sets = results["set"].unique()
    fitted = results.drop_duplicates(["set", "seed", "method"])["method"]
    n_fits = fitted.groupby(fitted, sort=False).size().sort_values(ascending=False, kind="stable")
    fits = ", ".join(f"{method} {n}" for method, n in n_fits.items())
    return f"{len(sets)} sets: {', '.join(sets)}\nFits: {fits}"


def report(results: pd.DataFrame) -> str:
    """Return the tables of a results file as text."""
    parts = conditions_of(results)
    lines = [describe(results), ""]
    for condition, part in parts.items():
        n_sets = part.index.get_level_values("set").nunique()
        lines += [f"Average ranks, {condition} ({n_sets} sets)", ranks(part).to_string(), ""]
        methods = part.index.get_level_values("method")
        if FORDE in methods:
            lines += [f"FoRDE's NLL relative to each peer's, {condition}"]
            lines += [against_peers(part).to_string(), ""]
        if DEEP_ENSEMBLE in methods:
            lines += [f"NLL relative to the deep ensemble's, {condition}"]
            lines += [relative_to(part["nll"], DEEP_ENSEMBLE).to_string(), ""]
    for condition, part in parts.items():
        lines += [f"NLL, {condition}: mean ± standard deviation over seeds"]
        lines += [losses(part).to_string(), ""]
    return "\n".join(lines)


def moments(values: pd.DataFrame, by: str, *, digits: int = 3, sign: str = "") -> pd.DataFrame:
    """Return mean ± standard deviation of each column as text, by a level of the index."""
    groups, form = values.groupby(by, sort=False), f".{digits}f}}"
    mean, deviation = groups.mean(), groups.std()
    return mean.map(f"{{:{sign}{form}".format) + " ± " + deviation.map(f"{{:{form}".format)


def markdown(table: pd.DataFrame, corner: str = "") -> str:
    """Write a table of texts."""
    rows = [[corner, *table.columns], *([name, *row] for name, *row in table.itertuples())]
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    lines.insert(1, "|---" * len(rows[0]) + "|")
    return "\n".join(lines)


def rank_table(scores: pd.DataFrame) -> str:
    """NLL relative to the deep ensemble's and average ranks of every score, as markdown."""
    titles = {"nll": "NLL", "accuracy": "accuracy", "ece": "ECE", "brier": "Brier"}
    table = ranks(complete(scores))
    table = table.rename(columns={name: f"rank, {titles[name]}" for name in SCORES})
    ratio = relative_to(scores["nll"], DEEP_ENSEMBLE)["ratio"].map("{:.3f}".format)
    table = table.map("{:.2f}".format)
    table.insert(0, "NLL / deep ensemble's", ratio)
    return markdown(table)


def peer_table(scores: pd.DataFrame) -> str:
    """FoRDE's NLL relative to each peer's, ranks and regrets, as markdown."""
    table = against_peers(scores)
    error = table.pop("standard error").map(" ± {:.3f}".format, na_action="ignore").fillna("")
    table.insert(0, "FoRDE's NLL / this one's", table.pop("ratio").map("{:.3f}".format) + error)
    share = table["sets below 1"].map("{:.0%}".format, na_action="ignore").fillna("")
    table["sets below 1"] = share
    forms = {"rank, NLL": "{:.2f}", "rank, Brier": "{:.2f}", "regret": "{:.3f}"}
    for name, form in forms.items():
        table[name] = table[name].map(form.format, na_action="ignore").fillna("")
    return markdown(table)


def ratio_table(results: pd.DataFrame) -> str:
    """NLL relative to the deep ensemble's on every set, clean and shifted, as markdown."""
    parts = conditions_of(results)
    cells = {}
    for condition in ("clean", "shifted"):
        ratio = log_ratios(parts[condition]["nll"], DEEP_ENSEMBLE).T
        ratio.insert(0, "mean", ratio.mean(axis=1))
        ratio = ratio.sort_values("mean")
        cells[condition] = np.exp(ratio).map("{:.3f}".format)
    # The order is that of the shifted ones.
    table = (cells["clean"] + " · " + cells["shifted"]).loc[cells["shifted"].index]
    return markdown(table, "clean · shifted")


def write_generated(path: Path, name: str, text: str) -> None:
    """Replace the text between two marks of this name in a page."""
    mark = GENERATED.format(name)
    page = path.read_text()
    if page.count(mark) != 2:
        raise ValueError(f"Got {page.count(mark)} marks {mark!r} in {path}, but expected two.")
    between = re.escape(mark) + ".*" + re.escape(mark)
    replaced = re.sub(between, lambda _: f"{mark}\n{text}\n{mark}", page, flags=re.DOTALL)
    path.write_text(replaced)


def draw(results: pd.DataFrame, path: Path) -> None:
    """Draw each method's NLL on each set, relative to the deep ensemble's, by condition.

    A triangle at an edge is a set beyond it.
    """
    import matplotlib.pyplot as plt

    parts = conditions_of(results)
    shape = 2.7 * len(parts) + 1.6, 4
    figure, axes = plt.subplots(1, len(parts), figsize=shape, sharey=True, squeeze=False)
    order: list[str] = []
    limits = np.log([0.7, 2.2])
    xlim = limits[0] - 0.02, limits[1] + 0.02
    for axis, (condition, part) in zip(axes[0], parts.items(), strict=True):
        ratio = log_ratios(part["nll"], DEEP_ENSEMBLE).drop(columns=DEEP_ENSEMBLE)
        order = order or list(ratio.mean().sort_values(ascending=False).index)
        for height, method in enumerate(order):
            color = "#d1495b" if method == FORDE else "#3a6ea5"
            values = ratio[method].clip(*limits)
            marks = np.select(
                [ratio[method] < limits[0], ratio[method] > limits[1]], ["<", ">"], "o"
            )
            for mark, size in (("o", 14), ("<", 26), (">", 26)):
                x = values[marks == mark]
                style = {"s": size, "color": color, "alpha": 0.5, "lw": 0}
                axis.scatter(x, np.full(len(x), height), marker=mark, **style)
            axis.scatter(ratio[method].mean().clip(*limits), height, s=60, marker="|", color=color)
        axis.axvline(0, color="black", lw=0.8, ls=":")
        ticks = np.array([0.7, 0.85, 1, 1.25, 1.5, 2])
        axis.set_xticks(np.log(ticks), [f"{tick:g}" for tick in ticks])
        axis.set(title=condition, xlabel="NLL / deep ensemble's", xlim=xlim)
        axis.set_yticks(range(len(order)), order)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=160)
    plt.close(figure)
