"""Scores of predicted probabilities; `y` are indices of their columns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def nll(y: NDArray[np.int64], probabilities: Array) -> float:
    """Mean negative log likelihood, in nats."""
    return float(-np.log(probabilities[np.arange(len(y)), y].clip(1e-15)).mean())


def accuracy(y: NDArray[np.int64], probabilities: Array) -> float:
    """Share of rows whose most probable class is the true one."""
    return float((probabilities.argmax(1) == y).mean())


def expected_calibration_error(
    y: NDArray[np.int64], probabilities: Array, n_bins: int = 15
) -> float:
    """Mean distance of confidence and accuracy over equal-width bins of the top probability."""
    confidence, accuracy, share = reliability(y, probabilities, n_bins)
    return float((share * np.abs(confidence - accuracy)).sum())


def reliability(
    y: NDArray[np.int64], probabilities: Array, n_bins: int = 15
) -> tuple[Array, Array, Array]:
    """Return mean confidence, accuracy and share of rows of each bin that is not empty."""
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == y
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    count = np.bincount(bins, minlength=n_bins)
    filled = count > 0
    sums = [np.bincount(bins, values, n_bins)[filled] for values in (confidence, correct)]
    return sums[0] / count[filled], sums[1] / count[filled], count[filled] / len(y)


def brier(y: NDArray[np.int64], probabilities: Array) -> float:
    """Mean squared distance of the probabilities from the true class's one-hot row."""
    return float(((probabilities - np.eye(probabilities.shape[1])[y]) ** 2).sum(1).mean())
