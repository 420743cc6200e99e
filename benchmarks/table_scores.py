"""Scores of methods on splits of raw tables, clean and corrupted."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from benchmarks._harness import run_missing
from benchmarks.corruptions import corrupted_copies, name_of_rows
from benchmarks.datasets import split
from benchmarks.recipes_of_tables import Sets, Split
from sklearn_fordes.inspection import drift_scores
from sklearn_fordes.inspection._scores import make_scorer

METRICS = ["nll", "accuracy", "ece", "brier"]


def kinds_of_rows(data: Split, seed: int) -> dict[str, tuple[pd.DataFrame, NDArray[Any]]]:
    """Return test rows and their targets: clean, corrupted, and of the other domain if any."""
    copies = corrupted_copies(data.X_test, data.X_train, seed)
    kinds = {name: (X, data.y_test) for name, X in {"clean": data.X_test, **copies}.items()}
    if len(data.y_shifted):
        kinds["natural shift"] = data.X_shifted, data.y_shifted
    return kinds


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
    sets: Sets,
    methods: dict[str, Callable[[int], Any]],
    *,
    seeds: int,
    max_train: int,
    max_test: int,
    split: Callable[..., Split] = split,
    measure: Callable[[Any, Split, int], list[dict[str, Any]]] = measure,
    float_format: str | None = None,
) -> pd.DataFrame:
    """Run what the results file lacks, and return its rows; methods make a model of a seed."""

    @lru_cache(maxsize=1)
    def split_of(name: str, seed: int) -> Split:
        return split(sets[name](), seed, max_train=max_train, max_test=max_test)

    def run(name: str, seed: int, method: str) -> list[dict[str, Any]]:
        return measure(methods[method](seed), split_of(name, seed), seed)

    units = ((name, seed, method) for seed, name, method in product(range(seeds), sets, methods))
    return run_missing(path, ["set", "seed", "method"], units, run, float_format=float_format)
