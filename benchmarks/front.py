"""Loss against the time of a fit: ensembles of several sizes beside what users would take.

Six development tables, the largest ones, and at most 5,000 training rows. Methods take turns on
each table, and each fit has both cores. A method is on the front of a table if no other one has a
lower loss in as little time. Run ``python -m benchmarks.front``; it goes on where it stopped, and
draws ``docs/front.png``. Peers come with the extra ``peers``. After changing a setting, delete the
file of results.
"""

from __future__ import annotations

import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from benchmarks._harness import fixed, make_parser, save_report
from benchmarks.datasets import DEVELOPMENT_SETS
from benchmarks.peers import N_THREADS, PEERS, deep_ensemble, fordes
from benchmarks.recipes_of_tables import Split
from benchmarks.table_scores import kinds_of_rows, run_tables

SETS = ("diamonds_cut", "vote_2016", "party", "wife_insured", "storms", "taxi")
FORDES = {f"FoRDE, {n}": partial(fordes, n_members=n) for n in (1, 3, 10, 30)}
OTHERS: dict[str, Any] = {"deep ensemble, 10": deep_ensemble} | {
    name: PEERS[name]
    for name in ("HistGradientBoosting", "random forest", "CatBoost", "TabM-D", "RealMLP-TD")
}
METHODS = FORDES | OTHERS
PICTURE = Path("docs/front.png")
# Colours of Okabe and Ito, which the colour-blind can tell apart.
COLOURS = ("#000000", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#E69F00")
OUR_COLOUR = "#0072B2"
CONDITIONS = ("clean", "shifted")


def measure(model: Any, data: Split, seed: int) -> list[dict[str, Any]]:
    """Return the seconds of a fit, and the loss on clean rows and on the mean of corrupted ones."""
    start = time.perf_counter()
    model.fit(data.X_train, data.y_train)
    seconds = time.perf_counter() - start
    losses: dict[str, list[float]] = {condition: [] for condition in CONDITIONS}
    for name, (X, y) in kinds_of_rows(data, seed).items():
        if name != "natural shift":
            probability = model.predict_proba(X)[np.arange(len(y)), y]
            loss = -np.log(np.clip(probability, 1e-15, 1)).mean()
            losses["clean" if name == "clean" else "shifted"].append(float(loss))
    return [{"seconds": seconds} | {name: float(np.mean(of)) for name, of in losses.items()}]


def on_front(seconds: pd.Series, losses: pd.Series) -> pd.Series:
    """Return whether no other method has a lower loss in as little time."""
    ordered = pd.DataFrame({"seconds": seconds, "loss": losses}).sort_values(["seconds", "loss"])
    best_before = ordered["loss"].cummin().shift(fill_value=np.inf)
    return losses < best_before.reindex(losses.index)


def loss_table(seconds: pd.DataFrame, losses: pd.DataFrame) -> pd.DataFrame:
    """Return the losses (methods × tables) as texts, with a star for those on the front."""
    fronts = {name: on_front(seconds[name], losses[name]) for name in losses}
    stars = pd.DataFrame(fronts).replace({True: " *", False: "  "})
    return losses.map("{:.3f}".format) + stars


def draw(seconds: pd.DataFrame, losses: pd.DataFrame, path: Path) -> None:
    """Draw the loss of each method on each table against the time of its fit."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(11, 6.6), layout="constrained")
    for axis, name in zip(axes.flat, losses, strict=True):
        for method, colour in zip(OTHERS, COLOURS, strict=True):
            at = seconds.loc[method, name], losses.loc[method, name]
            axis.plot(*at, "s", color=colour, label=method)
        ours = [*FORDES]
        line = seconds.loc[ours, name], losses.loc[ours, name]
        axis.plot(*line, "o-", color=OUR_COLOUR, label="FoRDE of 1, 3, 10 and 30 members")
        for method, *at in zip(ours, *line, strict=True):
            n_members = method.split(", ")[1]
            axis.annotate(
                n_members, at, (3, 4), textcoords="offset points", color=OUR_COLOUR, fontsize=9
            )
        axis.set(xscale="log", title=name)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.2)
    for axis in axes[-1]:
        axis.set_xlabel("seconds of a fit, two cores")
    for axis in axes[:, 0]:
        axis.set_ylabel("log loss of clean rows (nats)")
    figure.legend(
        *axes.flat[0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=4,
        frameon=False,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = make_parser(__doc__, "front", seeds=1, rows=5000)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--report-only", action="store_true")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")  # peers warn of what is asked of them here
    import torch

    torch.set_num_threads(N_THREADS)
    mpl.use("agg")
    results = run_tables(
        arguments.output.with_suffix(".csv"),
        {name: DEVELOPMENT_SETS[name] for name in SETS},
        METHODS,
        seeds=0 if arguments.report_only else arguments.seeds,
        max_train=arguments.rows,
        max_test=2000,
        measure=measure,
        float_format="%.5g",
    )
    means = results.pivot_table(index="method", columns="set", sort=False)
    means = means.reindex([name for name in METHODS if name in means.index])
    seconds = means["seconds"]
    parts = []
    for condition in CONDITIONS:
        table = loss_table(seconds, means[condition]).to_string()
        parts += ["", f"Log loss, {condition}; * on the front", table]
    parts += ["", "Seconds of a fit", fixed(seconds, 1)]
    title = f"At most {arguments.rows} training rows, means of {results['seed'].nunique()} seeds"
    save_report(arguments.output, *parts, title=title)
    draw(seconds, means["clean"], arguments.picture)


if __name__ == "__main__":
    main()
