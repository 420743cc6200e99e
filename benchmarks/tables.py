"""Default FoRDE against what users would otherwise take, on raw tables, clean and drifting.

Run ``python -m benchmarks.tables``; it goes on where it stopped, with what the results file has.
Peers come with the extra ``peers``.
``--report-only`` prints the tables of a results file.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.corruptions import corrupted_copies
from benchmarks.datasets import DEVELOPMENT_SETS, REPORTING_SETS, Dataset, Split, split
from benchmarks.environment import describe_environment
from benchmarks.peers import PEERS, classes_aligned
from benchmarks.scores import accuracy, brier, expected_calibration_error, nll

RESULTS = Path("benchmarks/results")
SCORES = {"nll": nll, "accuracy": accuracy, "ece": expected_calibration_error, "brier": brier}
FIELDS = ["set", "seed", "method", "rows", *SCORES]
LARGER_IS_BETTER = {"accuracy"}


def measure(model: Any, data: Split, seed: int) -> list[dict[str, Any]]:
    """Fit a model to one split and score it on every kind of test rows."""
    model.fit(data.X_train, data.y_train)
    kinds = {
        "clean": (data.X_test, data.y_test),
        **{
            name: (copy, data.y_test)
            for name, copy in corrupted_copies(data.X_test, data.X_train, seed).items()
        },
    }
    if len(data.y_shifted):
        kinds["natural shift"] = data.X_shifted, data.y_shifted
    n_classes = 1 + max(data.y_train.max(), data.y_test.max())
    results = []
    for rows, (X, y) in kinds.items():
        probabilities = classes_aligned(model.predict_proba(X), model.classes_, n_classes)
        scores = {name: score(y, probabilities) for name, score in SCORES.items()}
        results.append({"rows": rows, **scores})
    return results


def run(
    path: Path,
    sets: dict[str, Callable[[], Dataset]],
    methods: dict[str, Callable[[int], Any]],
    *,
    seeds: int,
    max_train: int,
    max_test: int,
) -> None:
    """Append what the results file does not have; methods make a model of a seed."""
    done = set()
    if path.exists():
        known = pd.read_csv(path)
        done = set(zip(known["set"], known["seed"], known["method"], strict=True))
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if not done:
            writer.writeheader()
        for seed in range(seeds):
            for name, load in sets.items():
                missing = [method for method in methods if (name, seed, method) not in done]
                if not missing:
                    continue
                data = split(load(), seed, max_train=max_train, max_test=max_test)
                for method in missing:
                    results = measure(methods[method](seed), data, seed)
                    for result in results:
                        writer.writerow({"set": name, "seed": seed, "method": method, **result})
                    file.flush()
                    print(f"{name} {seed} {method}: {results[0]['nll']:.4f}", flush=True)


def by_condition(results: pd.DataFrame) -> pd.DataFrame:
    """Scores by set, seed, method and condition: clean, shifted (mean of six) or natural shift."""
    kind = results["rows"].where(results["rows"].isin(["clean", "natural shift"]), "shifted")
    keys = ["set", "seed", "method", "condition"]
    return results.assign(condition=kind).groupby(keys)[list(SCORES)].mean()


def relative_to(scores: pd.Series, base: str) -> pd.DataFrame:
    """Geometric mean over sets of the ratio to `base`, and on how many sets it is below one.

    Over the seeds that both have; a method that lacks a set is left out.
    """
    table = scores.unstack("method")  # noqa: PD010
    ratio = np.log(table.div(table[base], axis=0)).groupby("set").mean().dropna(axis=1)
    summary = pd.DataFrame({"ratio": np.exp(ratio.mean()), "sets below 1": (ratio < 0).sum()})
    summary["worst set"] = np.exp(ratio.max())
    return summary.sort_values("ratio").round(3)


def average_ranks(scores: pd.Series, *, larger_is_better: bool = False) -> pd.Series:
    """Mean over sets of the rank of each method's mean score over its seeds; 1 is best."""
    table = scores.unstack("method").groupby("set").mean().dropna(axis=1)  # noqa: PD010
    return table.rank(axis=1, ascending=not larger_is_better).mean()


def report(results: pd.DataFrame) -> str:
    """Return the tables of a results file."""
    scores = by_condition(results)
    lines = [f"{results['set'].nunique()} sets: {', '.join(results['set'].unique())}"]
    n_fits = results.drop_duplicates(["set", "seed", "method"])["method"].value_counts()
    lines += ["Fits: " + ", ".join(f"{method} {n}" for method, n in n_fits.items()), ""]
    conditions = [c for c in ("clean", "shifted", "natural shift") if c in scores.index.levels[3]]
    for condition in conditions:
        part = scores.xs(condition, level="condition")
        ranks = {
            name: average_ranks(part[name], larger_is_better=name in LARGER_IS_BETTER)
            for name in SCORES
        }
        lines += [
            f"Average ranks, {condition} ({part.index.get_level_values('set').nunique()} sets)"
        ]
        lines += [pd.DataFrame(ranks).sort_values("nll").round(2).to_string(), ""]
        if "deep ensemble" in results["method"].unique():
            lines += [f"NLL relative to the deep ensemble's, {condition}"]
            lines += [relative_to(part["nll"], "deep ensemble").to_string(), ""]
    means = scores["nll"].groupby(["condition", "set", "method"]).agg(["mean", "std"])
    text = means.apply(lambda row: f"{row['mean']:.3f}±{row['std']:.3f}", axis=1)
    for condition in conditions:
        lines += [f"NLL, {condition}: mean ± standard deviation over seeds"]
        lines += [text.xs(condition).unstack("set").to_string(), ""]  # noqa: PD010
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-train", type=int, default=2000)
    parser.add_argument("--max-test", type=int, default=3000)
    parser.add_argument("--methods", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--development", action="store_true", help="the sets for choosing")
    parser.add_argument("--sets", nargs="+", help="some of them")
    parser.add_argument("--output", type=Path, default=RESULTS / "tables")
    parser.add_argument("--report-only", action="store_true")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")  # peers warn of what is asked of them here
    sets = DEVELOPMENT_SETS if arguments.development else REPORTING_SETS
    sets = {name: sets[name] for name in arguments.sets or sets}
    path = arguments.output.with_suffix(".csv")
    if not arguments.report_only:
        methods = {name: PEERS[name] for name in arguments.methods}
        limits = {"max_train": arguments.max_train, "max_test": arguments.max_test}
        run(path, sets, methods, seeds=arguments.seeds, **limits)
    text = f"{describe_environment()}\n{report(pd.read_csv(path))}"
    print(text)
    arguments.output.with_suffix(".txt").write_text(text)


if __name__ == "__main__":
    main()
