"""What results on tables with a number to predict say, as text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.regression_scores import SCORES
from benchmarks.summaries import FORDE, describe, differences, log_ratios, markdown

CONDITIONS = {
    "clean": ["clean"],
    "mild corruption": ["noise 0.3", "permute 0.1", "missing 0.1"],
    "severe corruption": ["noise 1", "permute 0.3", "missing 0.3"],
    "natural shift": ["natural shift"],
}
RATIOS = ["crps", "interval", "rmse"]
# Close to FoRDE's line, so that the picture is legible without them.
NOT_DRAWN = ["FoRDE, quantile", "FoRDE + MAPIE"]


def conditions_of(results: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Scores by set, seed and method under each condition, means over its kinds of rows."""
    parts = {}
    for condition, kinds in CONDITIONS.items():
        part = results[results["rows"].isin(kinds)]
        if len(part):
            parts[condition] = part.groupby(["set", "seed", "method"])[SCORES].mean()
    return parts


def means_by_rows(results: pd.DataFrame, score: str) -> pd.DataFrame:
    """Mean over sets of a score: a row for each method, a column for each kind of rows."""
    by_set = results.groupby(["method", "rows", "set"])[score].mean()
    table = by_set.groupby(["method", "rows"]).mean().unstack("rows")  # noqa: PD010
    kinds = [kind for kinds in CONDITIONS.values() for kind in kinds if kind in table]
    return table[kinds].dropna(how="all")


def against(scores: pd.DataFrame, method: str = FORDE) -> pd.DataFrame:
    """How a method compares with each other one.

    Geometric means over sets of the ratio of its scores to the other's, ± the standard error of
    their logarithm; for the NLL the mean difference; and on how many sets it is ahead. Below 1,
    and below 0, it is ahead.
    """
    table = {}
    for score in [*RATIOS, "nll"]:
        values = scores[score].dropna()
        if method not in values.index.get_level_values("method"):
            continue
        of_others = log_ratios if score in RATIOS else differences
        logs = -of_others(values, method).drop(columns=method)
        if logs.empty:
            continue
        means = np.exp(logs.mean()) if score in RATIOS else logs.mean()
        title = f"{score} ratio" if score in RATIOS else f"{score} difference"
        table[title] = means.map("{:.3f}".format) + logs.sem().map(" ± {:.3f}".format)
        table[f"{score} ahead"] = (logs < 0).sum().map("{:.0f}".format) + f"/{len(logs)}"
    return pd.DataFrame(table).fillna("")


def coverage_table(results: pd.DataFrame) -> str:
    """Coverage and width of the 90 % interval, and the CRPS, by kind of rows, as markdown."""
    parts = {name: means_by_rows(results, name) for name in ("coverage", "width", "crps")}
    methods = parts["coverage"].index[parts["coverage"]["clean"] > 0]
    texts = {
        kind: [
            " · ".join(
                "" if pd.isna(table.loc[method, kind]) else f"{table.loc[method, kind]:.2f}"
                for table in (parts["coverage"], parts["width"], parts["crps"].reindex(methods))
            )
            for method in methods
        ]
        for kind in parts["coverage"]
    }
    return markdown(pd.DataFrame(texts, index=methods))


def peer_table(scores: pd.DataFrame) -> str:
    """FoRDE's scores relative to each other method's, as markdown."""
    return markdown(against(scores).drop(columns="nll ahead", errors="ignore"))


def draw(results: pd.DataFrame, path: Path) -> None:
    """Draw coverage and width of the 90 % interval against the severity of each corruption."""
    import matplotlib.pyplot as plt

    panels = {
        "noise (standard deviations)": {0: "clean", 0.3: "noise 0.3", 1: "noise 1"},
        "cells swapped (share)": {0: "clean", 0.1: "permute 0.1", 0.3: "permute 0.3"},
        "cells missing (share)": {0: "clean", 0.1: "missing 0.1", 0.3: "missing 0.3"},
    }
    titles = {"coverage": "coverage of 90 % intervals", "width": "mean width (std. of the target)"}
    figure, axes = plt.subplots(2, 3, figsize=(10, 6), sharex="col", sharey="row")
    for row, (score, title) in zip(axes, titles.items(), strict=True):
        table = means_by_rows(results, score)
        table = table[table["clean"] > 0].drop(index=NOT_DRAWN, errors="ignore")
        order = sorted(table.index, key=lambda method: (method != FORDE, method))
        for axis, (label, kinds) in zip(row, panels.items(), strict=True):
            for method, marker in zip(order, "os^Dv<>P", strict=False):
                values = table.loc[method, list(kinds.values())]
                width = 2.5 if method == FORDE else 1.2
                axis.plot(list(kinds), values, marker=marker, linewidth=width, label=method)
            axis.set_xticks(list(kinds), ["clean", *map("{:g}".format, list(kinds)[1:])])
            if score == "coverage":
                axis.axhline(0.9, color="black", linestyle=":", linewidth=1)
            else:
                axis.set_xlabel(label)
        row[0].set_ylabel(title)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.92))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def report(results: pd.DataFrame) -> str:
    """Return the tables of a results file as text."""
    lines = [describe(results), "Scores are in standard deviations of the training targets.", ""]
    titles = {
        "coverage": "Coverage of the 90 % interval",
        "width": "Width of the 90 % interval",
        "crps": "CRPS",
        "rmse": "RMSE",
    }
    for score, title in titles.items():
        table = means_by_rows(results, score)
        lines += [f"{title}, mean over sets", table.to_string(float_format="{:.3f}".format), ""]
    for condition, scores in conditions_of(results).items():
        n_sets = scores.index.get_level_values("set").nunique()
        table = against(scores)
        if len(table):
            lines += [f"FoRDE relative to each other one, {condition} ({n_sets} sets)"]
            lines += [table.to_string(), ""]
    for condition, scores in conditions_of(results).items():
        by_set = scores["crps"].groupby(["set", "method"]).mean().unstack("method")  # noqa: PD010
        by_set = by_set.dropna(axis=1, how="all")
        lines += [f"CRPS by set, {condition}", by_set.to_string(float_format="{:.3f}".format), ""]
    return "\n".join(lines)
