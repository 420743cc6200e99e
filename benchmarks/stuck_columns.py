"""What happens to probabilities when columns get stuck: the picture at the top of the README.

Three models with their defaults on the tables for reporting (`benchmarks.datasets`). Some columns
of the test rows hold one value each, that of a training row drawn at random, as of a sensor that is
stuck or a field that is filled by default. The same columns and values for each model. No model
trains on such rows. Run ``python -m benchmarks.stuck_columns``; it goes on where it stopped.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from benchmarks._harness import fixed, make_parser, run_missing, save_report
from benchmarks._steps import use_threads
from benchmarks.datasets import REPORTING_SETS, split
from benchmarks.peers import PEERS
from benchmarks.scores import nll

# At least one column is stuck, if the share is not zero.
SHARES = (0.0, 0.1, 0.25, 0.5)
N_DRAWS = 5
METHODS = ("FoRDE", "CatBoost", "HistGradientBoosting")
N_BINS = 10
PICTURE = Path("docs/stuck_columns.png")


def with_stuck_columns(
    X: pd.DataFrame, X_train: pd.DataFrame, share: float, rng: np.random.Generator
) -> pd.DataFrame:
    """Return a copy in which a share of the columns holds values of a training row."""
    n_stuck = int(np.ceil(share * X.shape[1]))
    stuck, row = rng.permutation(X.shape[1])[:n_stuck], rng.integers(len(X_train))
    copy = X_train.iloc[np.full(len(X), row)].set_axis(X.index)
    kept = [name for place, name in enumerate(X) if place not in set(stuck)]
    copy[kept] = X[kept]
    return copy


def measure(table: str, method: str, *, seed: int) -> list[dict[str, Any]]:
    """Fit a model, and return loss, confidence and accuracy for each share of stuck columns."""
    data = split(REPORTING_SETS[table](), seed, max_train=3000, max_test=1000)
    model = PEERS[method](seed).fit(data.X_train, data.y_train)
    rng, found = np.random.default_rng(seed), []
    for share in SHARES:
        for _ in range(N_DRAWS if share else 1):
            X = with_stuck_columns(data.X_test, data.X_train, share, rng)
            probabilities = np.asarray(model.predict_proba(X), dtype=np.float64)
            confidence = probabilities.max(axis=1)
            is_right = probabilities.argmax(axis=1) == data.y_test
            scores = {"share": share, "nll": nll(data.y_test, probabilities)}
            scores |= {"accuracy": is_right.mean(), "confidence": confidence.mean()}
            found.append(scores)
    return found


def draw(path: Path, results: pd.DataFrame) -> None:
    """Draw the loss, and by how much models are too sure, against the share of stuck columns."""
    mpl.use("agg")
    import matplotlib.pyplot as plt

    plt.style.use("sklearn_fordes.inspection.fordes")
    plt.rcParams.update({"font.size": 13, "axes.titlesize": 14, "axes.labelsize": 13})
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
    means = results.groupby(["method", "share"])[["nll", "accuracy", "confidence"]].mean()
    for method in METHODS:
        of_method = means.loc[method]
        percent = 100 * of_method.index
        axes[0].plot(percent, of_method["nll"], "o-", label=method)
        gap = 100 * (of_method["confidence"] - of_method["accuracy"])
        axes[1].plot(percent, gap, "o-", label=method)
    axes[0].set(title="Log loss", ylabel="nats, mean over tables")
    axes[1].set(title="Confidence minus accuracy", ylabel="percentage points")
    axes[1].axhline(0, color="black", linewidth=1)
    for axis in axes:
        axis.set(xlabel="columns that are stuck (%)", xticks=[100 * share for share in SHARES])
    axes[0].legend()
    figure.savefig(path, dpi=166)


def main() -> None:
    parser = make_parser(__doc__, "stuck_columns", seed=0, threads=2)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    use_threads(arguments.threads)
    units = [(table, method) for table in REPORTING_SETS for method in METHODS]

    def run(table: str, method: str) -> list[dict[str, Any]]:
        return measure(table, method, seed=arguments.seed)

    path = arguments.output.with_suffix(".csv")
    results = run_missing(path, ["table", "method"], units, run, float_format="%.6g")
    of_tables = results.groupby(["table", "method", "share"])[["nll"]].mean()["nll"]
    means = results.groupby(["method", "share"])[["nll", "accuracy", "confidence"]].mean()
    by_method = of_tables.reset_index().pivot_table(
        values="nll", index=["share", "table"], columns="method"
    )
    wins = by_method.idxmin(axis=1).groupby("share").value_counts()
    draw(arguments.picture, results)
    save_report(
        arguments.output,
        f"means over {results['table'].nunique()} tables\n{fixed(means, 3)}",
        f"\ntables on which each has the lowest loss\n{wins.to_string()}",
        title=f"columns that are stuck, {N_DRAWS} draws, seed {arguments.seed}",
    )


if __name__ == "__main__":
    main()
