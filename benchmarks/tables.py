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

import pandas as pd

from benchmarks.corruptions import corrupted_copies
from benchmarks.datasets import DEVELOPMENT_SETS, REPORTING_SETS, Dataset, Split, split
from benchmarks.environment import describe_environment
from benchmarks.peers import PEERS, classes_aligned
from benchmarks.scores import accuracy, brier, expected_calibration_error, nll
from benchmarks.summaries import (
    SCORES,
    conditions_of,
    describe,
    draw,
    loss_table,
    rank_table,
    report,
    write_generated,
)

RESULTS = Path("benchmarks/results")
PAGE, PICTURE = Path("docs/benchmark.md"), Path("docs/benchmark.png")
METRICS = {"nll": nll, "accuracy": accuracy, "ece": expected_calibration_error, "brier": brier}
FIELDS = ["set", "seed", "method", "rows", *SCORES]


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
        scores = {name: score(y, probabilities) for name, score in METRICS.items()}
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


def write_page(results: pd.DataFrame) -> None:
    """Put the tables and the picture of a results file in the docs."""
    for condition, scores in conditions_of(results).items():
        write_generated(PAGE, f"ranks, {condition}", rank_table(scores))
        write_generated(PAGE, f"losses, {condition}", loss_table(scores))
    write_generated(PAGE, "fits", f"```text\n{describe_environment()}\n{describe(results)}\n```")
    draw(results, PICTURE)


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
    parser.add_argument("--page", action="store_true", help="write docs/benchmark.md's tables")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")  # peers warn of what is asked of them here
    sets = DEVELOPMENT_SETS if arguments.development else REPORTING_SETS
    sets = {name: sets[name] for name in arguments.sets or sets}
    path = arguments.output.with_suffix(".csv")
    if not arguments.report_only:
        methods = {name: PEERS[name] for name in arguments.methods}
        limits = {"max_train": arguments.max_train, "max_test": arguments.max_test}
        run(path, sets, methods, seeds=arguments.seeds, **limits)
    results = pd.read_csv(path)
    text = f"{describe_environment()}\n{report(results)}"
    print(text)
    arguments.output.with_suffix(".txt").write_text(text)
    if arguments.page:
        write_page(results)


if __name__ == "__main__":
    main()
