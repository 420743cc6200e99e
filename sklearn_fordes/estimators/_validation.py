"""Checks of parameters and tables; the only module with private names of scikit-learn's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import is_regressor
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import HasMethods, Interval, Options, StrOptions
from sklearn.utils.multiclass import _check_partial_fit_first_call as check_partial_fit_first_call
from sklearn.utils.validation import (
    _check_sample_weight,
    _check_y,
    check_consistent_length,
    validate_data,
)

from sklearn_fordes.preprocessing import as_rows, as_table

__all__ = [
    "HasMethods",
    "Interval",
    "Options",
    "StrOptions",
    "TrainingData",
    "check_partial_fit_first_call",
    "check_rows",
    "check_training_data",
    "naming_argument",
]


class TrainingData(NamedTuple):
    """Checked rows: inputs (N, ...), a frame or an array, targets (N,) and weights (N,)."""

    X: Any
    y: NDArray[Any]
    sample_weight: NDArray[np.float64]

    def take(self, index: NDArray[Any]) -> TrainingData:
        """Return the rows at `index`, indices or a mask."""
        return TrainingData(*(_safe_indexing(column, index) for column in self))

    def of_positive_weight(self, names: str) -> TrainingData:
        """Leave out rows whose weight is zero.

        Raises
        ------
        ValueError
            If there is no other row; it blames the arguments `names`.
        """
        kept = self.sample_weight > 0
        if not kept.any():
            raise ValueError(
                f"Got {names} that make every row's weight zero, but expected some rows of "
                "positive weight."
            )
        return self if kept.all() else self.take(kept)

    def of_mean_weight_one(self) -> TrainingData:
        """Scale the weights, so that they change what rows count and not the step size."""
        weight = self.sample_weight / self.sample_weight.max()  # Their sum can't overflow.
        return self._replace(sample_weight=weight / weight.mean())


def check_rows(estimator: Any, X: Any, *, reset: bool = False) -> Any:
    """Check a table, and set or compare the features that an estimator knows.

    Parameters
    ----------
    estimator : BaseFoRDE
        With `reset` it gets ``n_features_in_``, ``feature_names_in_`` and ``_row_shape_``, which is
        None if an encoder takes frames and strings.
    X : array-like or data frame
    reset : bool, default=False

    Returns
    -------
    data frame or ndarray
        Without an encoder an array of finite floats.
    """
    if reset:
        estimator._row_shape_ = None if estimator._uses_encoder() else np.shape(X)[1:]
    if estimator._row_shape_ is None:
        X = as_table(X)
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        return X
    X = _as_finite_floats(X)
    if not reset:
        _check_row_shape(estimator, X.shape[1:])  # scikit-learn compares the second axis only.
    validate_data(estimator, X, reset=reset, skip_check_array=True)
    return X


def _as_finite_floats(X: Any) -> NDArray[Any]:
    rows = as_rows(X, n_axes=None)
    try:
        array = rows if rows.dtype in (np.float32, np.float64) else rows.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Got X of type {rows.dtype} without an encoder ({error}), but expected numbers."
        ) from error
    if not np.isfinite(array).all():
        raise ValueError("Got X that contains NaN or infinity, but expected finite numbers.")
    return array


def check_training_data(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: ArrayLike | None = None,
    *,
    reset: bool = False,
) -> TrainingData:
    """Check rows, targets and weights together.

    Parameters
    ----------
    estimator : BaseFoRDE
        See `check_rows`.
    X : array-like or data frame of shape (n_samples, ...)
    y : array-like of shape (n_samples,)
    sample_weight : array-like of shape (n_samples,), optional
        Not negative.
    reset : bool, default=False

    Returns
    -------
    TrainingData
    """
    if y is None:
        raise ValueError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None."
        )
    X = check_rows(estimator, X, reset=reset)
    is_numeric = is_regressor(estimator)
    y = _check_y(y, y_numeric=is_numeric, estimator=estimator)
    check_consistent_length(X, y)
    weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    return TrainingData(X, y, weight)


@contextmanager
def naming_argument(name: str) -> Iterator[None]:
    """Name the argument in errors of a function that calls it X."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise type(error)(f"Got {name} that can't be used: {error}") from error


def _check_row_shape(estimator: Any, shape: tuple[int, ...]) -> None:
    if shape != estimator._row_shape_:
        raise ValueError(
            f"Got X with rows of shape {shape}, but {type(estimator).__name__} was fitted with "
            f"rows of shape {estimator._row_shape_}."
        )
