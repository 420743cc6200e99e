"""Corruptions of raw tables, made before any preprocessing and alike for every method."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

Corruption = Callable[[pd.DataFrame, pd.DataFrame, np.random.Generator], pd.DataFrame]


def add_noise(
    X: pd.DataFrame, X_train: pd.DataFrame, rng: np.random.Generator, *, sigma: float
) -> pd.DataFrame:
    """Add normal noise of `sigma` training standard deviations to numbers.

    A category is redrawn from the training rows with probability ``sigma / 4``.
    """
    corrupted = X.copy()
    for name in X:
        if pd.api.types.is_numeric_dtype(X[name]):
            corrupted[name] = X[name] + sigma * X_train[name].std() * rng.normal(size=len(X))
        else:
            corrupted[name] = _redraw(X[name], X_train[name], sigma / 4, rng)
    return corrupted


def permute(
    X: pd.DataFrame, X_train: pd.DataFrame, rng: np.random.Generator, *, probability: float
) -> pd.DataFrame:
    """Replace each cell with `probability` by a random training value of its column."""
    return X.apply(lambda column: _redraw(column, X_train[column.name], probability, rng))


def blank(
    X: pd.DataFrame, _: pd.DataFrame, rng: np.random.Generator, *, probability: float
) -> pd.DataFrame:
    """Blank each cell with `probability`."""
    return X.mask(rng.random(X.shape) < probability)


def _redraw(
    column: pd.Series, train: pd.Series, probability: float, rng: np.random.Generator
) -> pd.Series:
    drawn = train.sample(len(column), replace=True, random_state=rng).set_axis(column.index)
    return column.where(rng.random(len(column)) >= probability, drawn)


CORRUPTIONS: dict[str, tuple[Corruption, dict[str, float]]] = {
    "noise 0.3": (add_noise, {"sigma": 0.3}),
    "noise 1": (add_noise, {"sigma": 1.0}),
    "permute 0.1": (permute, {"probability": 0.1}),
    "permute 0.3": (permute, {"probability": 0.3}),
    "missing 0.1": (blank, {"probability": 0.1}),
    "missing 0.3": (blank, {"probability": 0.3}),
}


def corrupted_copies(X: pd.DataFrame, X_train: pd.DataFrame, seed: int) -> dict[str, pd.DataFrame]:
    """Return `X` under each of `CORRUPTIONS`."""
    return {
        name: corrupt(X, X_train, np.random.default_rng([seed, index]), **severity)
        for index, (name, (corrupt, severity)) in enumerate(CORRUPTIONS.items())
    }
