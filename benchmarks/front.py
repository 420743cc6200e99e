"""Loss against the time of a fit: ensembles of several sizes beside what users would take.

Six development tables, the largest ones, at most 5,000 training rows. Methods take turns on each
table; each fit has both cores. A method is on the front of a table if no other one has a lower loss
in less time. Run ``python -m benchmarks.front``; it goes on where it stopped, and draws
``docs/front.png``. Peers come with the extra ``peers``. After changing a setting, delete the file
of results.
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
SIZES = (1, 3, 10, 30)
PICTURE = Path("docs/front.png")
METHODS: dict[str, Any] = {f"FoRDE, {n}": partial(fordes, n_members=n) for n in SIZES}
METHODS |= {
    "deep ensemble, 10": deep_ensemble,
    "FoRDE, 10, 12 epochs": partial(fordes, max_epochs=12),
}
PEER_NAMES = ("HistGradientBoosting", "random forest", "CatBoost", "TabM-D", "RealMLP-TD")
METHODS |= {name: PEERS[name] for name in PEER_NAMES}
# Colours of Okabe and Ito, which the colour-blind can tell apart.
COLOURS = ("#0072B2", "#000000", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
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
    return [{"seconds": seconds, **{c: float(np.mean(values)) for c, values in losses.items()}}]


def on_front(table: pd.DataFrame, condition: str) -> pd.Series:
    """Return whether no other method of a table has a lower loss in less time."""
    ordered = table.sort_values("seconds")
    best_before = ordered[condition].cummin().shift(fill_value=np.inf)
    return (ordered[condition] < best_before).reindex(table.index)


def draw(means: pd.DataFrame, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(11, 6.6), layout="constrained")
    kinds = ["FoRDE", "deep ensemble, 10", *PEER_NAMES]
    for axis, (name, table) in zip(axes.flat, means.groupby("set", sort=False), strict=True):
        rows = table.set_index("method")
        for kind, colour in zip(kinds, COLOURS, strict=True):
            own = [m for m in rows.index if m == kind or m in [f"FoRDE, {n}" for n in SIZES]]
            own = own if kind == "FoRDE" else [kind] if kind in rows.index else []
            style = "o-" if kind == "FoRDE" else "s"
            points = rows.loc[own]
            axis.plot(points["seconds"], points["clean"], style, color=colour, label=kind)
            for method in own if kind == "FoRDE" else ():
                label = method.split(", ")[1]
                at = points.loc[method, "seconds"], points.loc[method, "clean"]
                axis.annotate(label, at, (3, 4), textcoords="offset points", color=colour)
        axis.set(xscale="log", title=name)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("seconds of a fit")
    for axis in axes[:, 0]:
        axis.set_ylabel("log loss, clean rows (nats)")
    labelled = axes.flat[0].get_legend_handles_labels()
    figure.legend(*labelled, loc="outside upper center", ncols=4, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = make_parser(__doc__, "front", seeds=1, rows=5000)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    import torch

    torch.set_num_threads(N_THREADS)
    mpl.use("agg")
    results = run_tables(
        arguments.output.with_suffix(".csv"),
        {name: DEVELOPMENT_SETS[name] for name in arguments.sets},
        {name: METHODS[name] for name in arguments.methods},
        seeds=arguments.seeds,
        max_train=arguments.rows,
        max_test=2000,
        measure=measure,
        float_format="%.5g",
    )
    means = results.groupby(["set", "method"], sort=False).mean(numeric_only=True).reset_index()
    parts = []
    for condition in CONDITIONS:
        front = means.groupby("set", sort=False, group_keys=False).apply(
            on_front, condition=condition, include_groups=False
        )
        marked = means.assign(front=front.astype(bool))
        wide = marked.pivot_table(index="method", columns="set", values=condition)
        marks = marked.pivot_table(index="method", columns="set", values="front")
        text = wide.map("{:.3f}".format) + marks.map(lambda is_on: " *" if is_on is True else "  ")
        parts += [
            "",
            f"Log loss, {condition}; * on the front",
            text.loc[arguments.methods].to_string(),
        ]
    seconds = means.pivot_table(index="method", columns="set", values="seconds").loc[
        arguments.methods
    ]
    parts += ["", "Seconds of a fit", fixed(seconds, 1)]
    title = f"At most {arguments.rows} training rows, means of {arguments.seeds} seeds"
    save_report(arguments.output, *parts, title=title)
    draw(means, arguments.picture)


if __name__ == "__main__":
    main()
