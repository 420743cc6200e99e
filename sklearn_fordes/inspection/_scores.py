"""Scores of predictions: the one place where reports, displays and benchmarks compute them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    log_loss,
    mean_absolute_error,
    mean_pinball_loss,
    r2_score,
    root_mean_squared_error,
)
from sklearn.utils.validation import column_or_1d

from sklearn_fordes.inspection._display import Array, final_step

Labels = NDArray[np.int64]
Weights = Array | None
Scores = dict[str, float]

N_BINS = 15
CONFIDENCE = 0.9
LEVELS = np.linspace(0.05, 0.95, 10)


# ---- probabilities; y are indices of their columns


def nll(y: Labels, probabilities: Array, sample_weight: Weights = None) -> float:
    """Mean negative log likelihood, in nats."""
    # A forest gives the true class zero: scikit-learn's own limit would weigh that more.
    clipped, labels = probabilities.clip(1e-15), range(probabilities.shape[1])
    with warnings.catch_warnings():
        # Probabilities in single precision don't sum to one in double precision.
        warnings.filterwarnings("ignore", "The y_prob values do not sum to one", UserWarning)
        return float(log_loss(y, clipped, labels=labels, sample_weight=sample_weight))


def accuracy(y: Labels, probabilities: Array, sample_weight: Weights = None) -> float:
    """Share of rows whose most probable class is the true one."""
    return float(accuracy_score(y, probabilities.argmax(1), sample_weight=sample_weight))


def brier(y: Labels, probabilities: Array, sample_weight: Weights = None) -> float:
    """Mean squared distance of the probabilities from the true class's one-hot row."""
    labels = range(probabilities.shape[1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The y_prob values do not sum to one", UserWarning)
        loss = brier_score_loss(
            y, probabilities, labels=labels, scale_by_half=False, sample_weight=sample_weight
        )
    return float(loss)


def expected_calibration_error(
    y: Labels, probabilities: Array, sample_weight: Weights = None
) -> float:
    """Mean distance of confidence and accuracy over equal-width bins of the top probability."""
    is_correct = probabilities.argmax(1) == y
    return mean_distance(*reliability_bins(probabilities.max(1), is_correct, N_BINS, sample_weight))


CLASSIFICATION = {
    "nll": nll,
    "accuracy": accuracy,
    "ece": expected_calibration_error,
    "brier": brier,
}


def reliability_bins(
    confidence: Array, correct: NDArray[np.bool_], n_bins: int, sample_weight: Weights = None
) -> tuple[Array, Array, Array]:
    """Return mean confidence, accuracy and share of rows of bins [b / n_bins, (b+1) / n_bins)."""
    # A confidence of 1 belongs to the last bin.
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    count = np.bincount(bins, sample_weight, n_bins)
    weight = 1.0 if sample_weight is None else sample_weight
    sums = [np.bincount(bins, values * weight, n_bins) for values in (confidence, correct)]
    with np.errstate(invalid="ignore"):
        return *(np.stack(sums) / count), count / count.sum()


def share_of_trials(share: Array, n_trials: Array) -> tuple[Array, Array]:
    """Return the ends of the 95 % interval (Wilson) of shares of a number of trials."""
    from scipy.stats import binomtest  # It takes long to import.

    counts = np.rint([share * n_trials, n_trials]).astype(int).T.tolist()
    ends = [binomtest(*pair).proportion_ci(method="wilson") for pair in counts]
    low, high = np.array(ends).T
    # The rounded ends of a share of 0 or 1 may lie on its other side.
    return np.minimum(low, share), np.maximum(high, share)


def mean_distance(confidence: Array, accuracy: Array, share: Array) -> float:
    """Distance of accuracy and confidence of bins, mean over their rows."""
    return float(np.nansum(share * np.abs(confidence - accuracy)))


# ---- numbers


def interval_scores(y: Array, intervals: Array, sample_weight: Weights = None) -> Scores:
    """Coverage, mean width and interval score of central intervals of `CONFIDENCE`.

    The interval score adds to the width how far a target lies outside, times 2 / (1 - confidence).
    """
    low, high = intervals.T
    outside = np.maximum(low - y, 0) + np.maximum(y - high, 0)
    values = {
        "coverage": (low <= y) & (y <= high),
        "width": high - low,
        "interval_score": high - low + 2 / (1 - CONFIDENCE) * outside,
    }
    return {name: float(np.average(value, weights=sample_weight)) for name, value in values.items()}


def crps(y: Array, quantiles: Array, sample_weight: Weights = None) -> float:
    """Continuous ranked probability score: twice the mean pinball loss over `LEVELS`."""
    losses = [
        mean_pinball_loss(y, values, alpha=level, sample_weight=sample_weight)
        for values, level in zip(quantiles.T, LEVELS, strict=True)
    ]
    return float(2 * np.mean(losses))


REGRESSION = {"rmse": root_mean_squared_error, "mae": mean_absolute_error, "r2": r2_score}


# ---- of an estimator


def make_scorer(
    estimator: Any, y: ArrayLike, sample_weight: Weights = None
) -> Callable[[Any], Scores]:
    """Return a function from the rows of `y`, however corrupted, to the estimator's scores."""
    # CatBoost's regressors have classes_ too, without any.
    if np.size(getattr(estimator, "classes_", ())):
        labels = column_or_1d(y)
        if pd.isna(labels).any():
            raise ValueError("Got y with missing labels, but expected a label for each row.")
        return classification_scorer(estimator, labels, sample_weight)
    return regression_scorer(estimator, np.asarray(y, dtype=np.float64), sample_weight)


def classification_scorer(
    estimator: Any, y: NDArray[Any], sample_weight: Weights
) -> Callable[[Any], Scores]:
    """Return `make_scorer` of a classifier; one without `predict_proba` has an accuracy only."""
    classes = np.unique(estimator.classes_)
    unseen = np.setdiff1d(y, classes)
    if unseen.size:
        raise ValueError(
            f"Got labels {unseen.tolist()}, but expected some of the classes {classes.tolist()}."
        )
    labels = np.searchsorted(classes, y)
    columns = np.searchsorted(classes, estimator.classes_)

    def score(X: Any) -> Scores:
        if not hasattr(estimator, "predict_proba"):
            predicted = np.asarray(estimator.predict(X)).reshape(y.shape)
            return {"accuracy": float(accuracy_score(y, predicted, sample_weight=sample_weight))}
        probabilities = np.zeros((len(y), len(classes)))
        probabilities[:, columns] = estimator.predict_proba(X)
        return {
            name: function(labels, probabilities, sample_weight)
            for name, function in CLASSIFICATION.items()
        }

    return score


def regression_scorer(estimator: Any, y: Array, sample_weight: Weights) -> Callable[[Any], Scores]:
    """Return `make_scorer` of a regressor; intervals and quantiles add scores of their own."""

    def score(X: Any) -> Scores:
        predicted = np.asarray(estimator.predict(X)).reshape(y.shape)
        scores = {
            name: float(function(y, predicted, sample_weight=sample_weight))
            for name, function in REGRESSION.items()
        }
        model = final_step(estimator)[0]
        has_intervals = takes(model, "predict_interval", "confidence")
        has_quantiles = takes(model, "predict_quantiles", "quantiles")
        if has_intervals or has_quantiles:
            model, rows = final_step(estimator, X)
        if has_intervals:
            intervals = np.asarray(model.predict_interval(rows, confidence=CONFIDENCE))
            scores |= interval_scores(y, intervals, sample_weight)
        if has_quantiles:
            quantiles = np.asarray(model.predict_quantiles(rows, quantiles=LEVELS))
            scores["crps"] = crps(y, quantiles, sample_weight)
        return scores

    return score


def takes(model: Any, method: str, parameter: str) -> bool:
    """Return whether a model has a method with the parameter; a namesake may do other things."""
    function = getattr(model, method, None)
    return function is not None and parameter in inspect.signature(function).parameters
