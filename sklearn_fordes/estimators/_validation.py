"""Checks of parameters and tables; the only module with private names of scikit-learn's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import narwhals as nw
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.multiclass import _check_partial_fit_first_call as check_partial_fit_first_call
from sklearn.utils.validation import (
    _check_sample_weight,
    _check_y,
    _get_feature_names,
    check_consistent_length,
)

from sklearn_fordes.preprocessing import as_rows

__all__ = [
    "HasMethods",
    "Interval",
    "StrOptions",
    "TrainingData",
    "check_partial_fit_first_call",
    "finite_floats",
    "named_as_before",
    "naming_argument",
    "training_data",
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


def named_as_before(X: Any, names: NDArray[Any] | None) -> Any:
    """Return a checked table that has column names if, and only if, the training table had some.

    An encoder of scikit-learn's would otherwise warn of them once more.

    Parameters
    ----------
    X : data frame or ndarray of shape (n_samples, n_features)
    names : ndarray of shape (n_features,) or None
        Those of the training table.
    """
    if (_get_feature_names(X) is None) == (names is None):
        return X
    X = np.asarray(X)
    return X if names is None else nw.from_numpy(X, list(names), backend="pandas").to_native()


def finite_floats(estimator: Any, X: Any, *, reset: bool) -> NDArray[Any]:
    """Return rows (n_samples, ...) as floats, and set or compare an estimator's ``_row_shape_``.

    Raises
    ------
    ValueError
        If X holds something else than finite numbers, or its rows have another shape.
    """
    rows = as_rows(X, n_axes=None)
    try:
        array = rows if rows.dtype in (np.float32, np.float64) else rows.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Got X of type {rows.dtype} without an encoder ({error}), but expected numbers."
        ) from error
    if not np.isfinite(array).all():
        raise ValueError("Got X that contains NaN or infinity, but expected finite numbers.")
    shape = array.shape[1:]
    if reset:
        estimator._row_shape_ = shape
    if shape != estimator._row_shape_:  # scikit-learn compares the second axis only.
        raise ValueError(
            f"Got X with rows of shape {shape}, but {type(estimator).__name__} was fitted with "
            f"rows of shape {estimator._row_shape_}."
        )
    return array


def training_data(
    estimator: Any, X: Any, y: Any, sample_weight: ArrayLike | None = None
) -> TrainingData:
    """Check targets and weights of checked rows.

    Parameters
    ----------
    estimator : BaseFoRDE
        The targets of a regressor must be numbers.
    X : data frame or ndarray of shape (n_samples, ...)
    y : array-like of shape (n_samples,)
    sample_weight : array-like of shape (n_samples,), optional
        Not negative.

    Returns
    -------
    TrainingData
    """
    if y is None:
        raise ValueError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None."
        )
    is_number = isinstance(estimator, RegressorMixin)
    y = _check_y(y, y_numeric=is_number, estimator=estimator)
    if is_number and y.dtype.kind not in "biuf":
        raise ValueError(f"Got y of type {y.dtype}, but expected numbers.")
    check_consistent_length(X, y)
    weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    return TrainingData(X, y, weight)


@contextmanager
def naming_argument(name: str) -> Iterator[None]:
    """Name the argument in errors of a function that calls it X."""
    try:
        yield
    except (ValueError, TypeError) as error:
        # Constructors of some subclasses take no message alone.
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"Got {name} that can't be used: {error}") from error
