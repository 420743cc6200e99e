"""Scores of predicted probabilities; `y` are indices of their columns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

from sklearn_fordes.inspection import ReliabilityDisplay
from sklearn_fordes.inspection._predictions import reliability_bins

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


def nll(y: Labels, probabilities: Array) -> float:
    """Mean negative log likelihood, in nats."""
    # A forest gives the true class zero: scikit-learn's own limit would weigh that more.
    return log_loss(y, probabilities.clip(1e-15), labels=range(probabilities.shape[1]))


def accuracy(y: Labels, probabilities: Array) -> float:
    """Share of rows whose most probable class is the true one."""
    return accuracy_score(y, probabilities.argmax(1))


def brier(y: Labels, probabilities: Array) -> float:
    """Mean squared distance of the probabilities from the true class's one-hot row."""
    labels = range(probabilities.shape[1])
    return brier_score_loss(y, probabilities, labels=labels, scale_by_half=False)


def reliability(y: Labels, probabilities: Array, n_bins: int = 15) -> ReliabilityDisplay:
    """Return confidence and accuracy by bin, not drawn."""
    is_correct = probabilities.argmax(1) == y
    return ReliabilityDisplay(*reliability_bins(probabilities.max(1), is_correct, n_bins))


def expected_calibration_error(y: Labels, probabilities: Array) -> float:
    """Mean distance of confidence and accuracy over equal-width bins of the top probability."""
    return reliability(y, probabilities).ece
