"""Scores of predicted probabilities; `y` are indices of their columns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sklearn_fordes.inspection import ReliabilityDisplay
from sklearn_fordes.inspection._scores import (
    accuracy,
    brier,
    expected_calibration_error,
    nll,
    reliability_bins,
)

__all__ = ["accuracy", "brier", "expected_calibration_error", "nll", "reliability"]

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


def reliability(y: Labels, probabilities: Array, n_bins: int) -> ReliabilityDisplay:
    """Return confidence and accuracy by bin, not drawn."""
    is_correct = probabilities.argmax(1) == y
    return ReliabilityDisplay(*reliability_bins(probabilities.max(1), is_correct, n_bins))
