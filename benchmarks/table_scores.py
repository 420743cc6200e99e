"""Scores of methods on splits of raw tables, clean and corrupted."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks._harness import run_missing
from benchmarks.corruptions import name_of_rows
from benchmarks.datasets import Dataset, Split, split
from sklearn_fordes.inspection import drift_scores
from sklearn_fordes.inspection._scores import make_scorer

METRICS = ["nll", "accuracy", "ece", "brier"]


def measure(model: Any, data: Split, seed: int) -> list[dict[str, Any]]:
    """Fit a model to one split and score it on every kind of test rows."""
    model.fit(data.X_train, data.y_train)
    frame = drift_scores(
        model,
        data.X_test,
        data.y_test,
        X_train=data.X_train,
        random_state=seed,
        error_score="raise",
    )
    names = map(name_of_rows, frame["corruption"], frame["severity"])
    results = frame[METRICS].assign(rows=list(names))
    if len(data.y_shifted):
        scores = make_scorer(model, data.y_shifted)(data.X_shifted)
        results.loc[len(results)] = {"rows": "natural shift", **scores}
    return results[["rows", *METRICS]].to_dict("records")


def run_tables(
    path: Path,
    sets: dict[str, Callable[[], Dataset]],
    methods: dict[str, Callable[[int], Any]],
    *,
    seeds: int,
    max_train: int,
    max_test: int,
) -> pd.DataFrame:
    """Run what the results file lacks, and return its rows; methods make a model of a seed."""

    @lru_cache(maxsize=1)
    def split_of(name: str, seed: int) -> Split:
        return split(sets[name](), seed, max_train=max_train, max_test=max_test)

    def run(name: str, seed: int, method: str) -> list[dict[str, Any]]:
        return measure(methods[method](seed), split_of(name, seed), seed)

    units = ((name, seed, method) for seed, name, method in product(range(seeds), sets, methods))
    return run_missing(path, ["set", "seed", "method"], units, run)
