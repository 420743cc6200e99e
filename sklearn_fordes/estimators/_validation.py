"""Checks of parameters and tables; the only module with private names of scikit-learn's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any, NamedTuple

import narwhals as nw
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from sklearn.base import RegressorMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import InputTags, _safe_indexing, check_random_state, get_tags
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.multiclass import _check_partial_fit_first_call
from sklearn.utils.validation import (
    _check_sample_weight,
    _check_y,
    _get_feature_names,
    check_consistent_length,
)

from sklearn_fordes.preprocessing import TabularEncoder

try:
    from sklearn.callback import CallbackSupportMixin as CallbackSupportMixin
    from sklearn.callback import with_callbacks as with_callbacks
except ImportError:  # Callbacks are new in scikit-learn 1.9.

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing: this scikit-learn has no callbacks."""

    def with_callbacks(method: Any) -> Any:
        """Return a method as it is: this scikit-learn has no callbacks."""
        return method


# Where scikit-learn keeps an estimator's callbacks, and what it sets while they are told of a fit.
CALLBACK_ATTRIBUTES = (
    "_skl_callbacks",
    "_parent_callback_ctx",
    "_callback_fit_ctx",
    "_skl_callbacks_to_teardown",
)

check_partial_fit_first_call = _check_partial_fit_first_call

_COUNT = [Interval(Integral, 1, None, closed="left")]
_NOT_NEGATIVE = [Interval(Real, 0, None, closed="left")]
# Of both estimators; scikit-learn passes over names that are not parameters. A repulsion is checked
# where it is built, and sizes of layers where members are made.
PARAMETER_CONSTRAINTS = {
    "n_members": _COUNT,
    "repulsion_strength": _NOT_NEGATIVE,
    "lengthscale": [str, Interval(Real, 0, 1, closed="both"), "array-like", callable],
    "noise": [StrOptions({"heteroscedastic", "homoscedastic", "quantile"})],
    "encoder": [StrOptions({"auto"}), HasMethods(["fit_transform", "transform"]), None],
    "categorical_features": [StrOptions({"from_dtype"}), "array-like", None],
    "module": [callable, None],
    "augmentation": [StrOptions({"auto"}), HasMethods("build"), callable, None],
    "optimizer": [callable, None],
    "max_epochs": [StrOptions({"auto"}), *_COUNT],
    "batch_size": [StrOptions({"auto"}), *_COUNT],
    "lr": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
    "lr_schedule": [StrOptions({"auto", "one_cycle", "constant"})],
    "weight_decay": _NOT_NEGATIVE,
    "ema_decay": [Interval(Real, 0, 1, closed="left")],
    "early_stopping": ["boolean"],
    "validation_fraction": [
        StrOptions({"auto"}),
        Interval(Real, 0, 1, closed="neither"),
        HasMethods(["split", "get_n_splits"]),
        list,
        tuple,
    ],
    "n_iter_no_change": _COUNT,
    "class_weight": [StrOptions({"balanced"}), dict, None],
    "callbacks": [list, tuple, None],
    "warm_start": ["boolean"],
    "max_time": [Interval(Real, 0, None, closed="right"), None],
    "checkpoint_dir": [str, os.PathLike, None],
    "distributed": [StrOptions({"members", "rows"}), None],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
    "iterator_valid__batch_size": _COUNT,
}


class TrainingData(NamedTuple):
    """Checked rows: inputs (N, ...), a frame or an array, targets (N,) and weights (N,).

    X may have other rows too: then these N are those at the indices `at`, and no copy of them is
    made before they are needed.
    """

    X: Any
    y: NDArray[Any]
    sample_weight: NDArray[np.float64]
    at: NDArray[np.int64] | None = None

    @property
    def table(self) -> Any:
        """The inputs of these rows alone, a copy if X has others."""
        return self.X if self.at is None else _safe_indexing(self.X, self.at)

    def part(self, index: NDArray[np.int64]) -> TrainingData:
        """Return the rows at `index`, with the inputs of all."""
        of_table = index if self.at is None else self.at[index]
        return TrainingData(self.X, self.y[index], self.sample_weight[index], of_table)

    def take(self, index: NDArray[Any]) -> TrainingData:
        """Return the rows at `index`, indices or a mask, without the others."""
        columns = self.table, self.y, self.sample_weight
        return TrainingData(*(_safe_indexing(column, index) for column in columns))

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

    def hold_out(self, n_rows: int, seed: int) -> tuple[TrainingData, TrainingData | None]:
        """Split rows off for validation, none if they are too few.

        Of classes, which are encoded as integers, one row at least is left for training, and the
        rows are stratified where possible.
        """
        rows, is_class = np.arange(len(self.y)), self.y.dtype.kind == "i"
        _, first_rows, counts = np.unique(self.y, return_index=True, return_counts=True)
        candidates = np.delete(rows, first_rows) if is_class else rows
        if not n_rows or not len(candidates):
            return self, None
        is_possible = len(counts) <= n_rows <= len(candidates) - len(counts)
        if is_class and is_possible and counts.min() > 2:
            _, held_out = train_test_split(
                candidates, test_size=n_rows, stratify=self.y[candidates], random_state=seed
            )
        else:
            held_out = np.random.default_rng(seed).permutation(candidates)[:n_rows]
        return self.part(np.delete(rows, held_out)), self.part(held_out)


def input_tags_of(encoder: Any) -> InputTags:
    """Return what an encoder takes, as scikit-learn's tags say it.

    Parameters
    ----------
    encoder : transformer

    Returns
    -------
    InputTags
        Of the first step of a pipeline, since the tags of the whole leave some of them out.
        Missing values are taken by a `TabularEncoder` alone: other encoders that take them may
        hand them on, and a network can't use them.
    """
    while steps := [s for _, s in getattr(encoder, "steps", ()) if s not in ("passthrough", None)]:
        encoder = steps[0]
    tags = _own_input_tags(encoder)
    tags.allow_nan = isinstance(encoder, TabularEncoder)
    return tags


def promises_sparse(encoder: Any) -> bool:
    """Return whether all steps of an encoder take sparse arrays.

    Others may work too: after a step that makes dense arrays, say. Nothing tells before they do.
    """
    return bool(_own_input_tags(encoder).sparse)


def _own_input_tags(encoder: Any) -> InputTags:
    # A transformer need not be scikit-learn's.
    return get_tags(encoder).input_tags if hasattr(encoder, "__sklearn_tags__") else InputTags()


def has_known_columns(estimator: Any, X: Any) -> bool:
    """Return whether a table surely has the columns of the training table, in their order.

    scikit-learn's `validate_data` then finds nothing, and takes some time for it.

    Parameters
    ----------
    estimator : BaseFoRDE
        It has seen the training table.
    X : data frame, ndarray or sparse array of shape (n_samples, n_features, ...)
    """
    names = getattr(estimator, "feature_names_in_", None)
    if isinstance(X, np.ndarray):
        return names is None and bool(X.shape[1] == estimator.n_features_in_)
    if names is None or not isinstance(X, pd.DataFrame):
        return False
    known: bool = X.columns.tolist() == names.tolist()
    return known


def named_as_before(X: Any, names: NDArray[Any] | None) -> Any:
    """Return a checked table that has column names if, and only if, the training table had some.

    An encoder of scikit-learn's would otherwise warn of them once more.

    Parameters
    ----------
    X : data frame, ndarray or sparse array of shape (n_samples, n_features)
    names : ndarray of shape (n_features,) or None
        Those of the training table.
    """
    if (_get_feature_names(X) is None) == (names is None):
        return X
    if issparse(X):
        return pd.DataFrame.sparse.from_spmatrix(X, columns=names)
    X = np.asarray(X)
    return X if names is None else nw.from_numpy(X, list(names), backend="pandas").to_native()


def has_names(X: Any) -> bool:
    """Return whether X is a frame whose columns have different names, which are texts."""
    if not nw.dependencies.is_into_dataframe(X):
        return False
    try:
        names = nw.from_native(X, eager_only=True).columns
    except nw.exceptions.DuplicateError:
        return False
    return all(isinstance(name, str) for name in names)


def finite_rows(estimator: Any, X: NDArray[Any]) -> NDArray[Any]:
    """Return checked rows as numbers, where no encoder makes numbers of them.

    Parameters
    ----------
    estimator : BaseFoRDE
        It has seen the training rows.
    X : ndarray of shape (n_samples, n_features, ...)

    Returns
    -------
    ndarray of the same shape

    Raises
    ------
    ValueError
        If a value is no number, missing or infinite; it names the first one.
    """
    try:
        if X.dtype.kind not in "biufO":  # numpy casts dates and text of numbers, too.
            raise TypeError
        numbers = X if X.dtype.kind in "biuf" else X.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # A sum needs no array of truth values.
            is_finite = np.isfinite(numbers.sum()) or np.isfinite(numbers)
        if np.all(is_finite):
            return numbers
    except (TypeError, ValueError, OverflowError):
        is_finite = np.zeros(X.shape, dtype=bool)
        if X.dtype.kind == "O":
            is_finite = np.frompyfunc(_is_finite, 1, 1)(X).astype(bool)
    row, column, *_ = place = np.argwhere(~is_finite)[0].tolist()
    names = getattr(estimator, "feature_names_in_", range(X.shape[1]))
    value = X[tuple(place)]
    value = value.item() if X.dtype.kind in "fU" else value
    where = f"row {row}" + (f", column {names[column]!r}" if X.ndim == 2 else "")
    module = estimator.module
    given = "encoder=None"
    if module is not None:
        given = f"module={getattr(module, '__name__', type(module).__name__)}"
    raise ValueError(
        f"Got {value!r:.60} in {where} of X, which no encoder encodes ({given}), but expected "
        "finite numbers, no NaN or infinity: give numeric columns without gaps, or an encoder that "
        "makes them, such as TabularEncoder() or a ColumnTransformer."
    )


def _is_finite(value: Any) -> bool:
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError, OverflowError):
        return False


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
    is_number = isinstance(estimator, RegressorMixin)
    for name, values in (("y", y), ("sample_weight", sample_weight)):
        if np.ma.is_masked(values):
            raise ValueError(f"Got {name} with masked values, but expected one for every row.")
    if not is_number:
        _check_labels(y)
    y = _check_y(y, y_numeric=is_number, estimator=estimator)
    if is_number and y.dtype.kind not in "biuf":
        raise ValueError(
            f"Got y of type {y.dtype}, but expected numbers: FoRDEClassifier takes labels."
        )
    check_consistent_length(X, y)
    with naming_argument("sample_weight"):
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    return TrainingData(X, y, weight)


def _check_labels(y: Any) -> None:
    """Refuse labels that are missing, or that cannot be sorted, by saying which.

    Raises
    ------
    ValueError
        If a label is missing, or labels are of several types.
    """
    labels = np.asarray(y)
    if labels.dtype.kind != "O":
        return
    is_missing = np.asarray(pd.isna(labels))
    if is_missing.any():
        first = np.flatnonzero(is_missing)[0]
        raise ValueError(
            f"Got y with {is_missing.sum()} missing labels, the first in row {first}, but expected "
            "a label in every row: leave rows without one out."
        )
    try:
        np.unique(labels)
    except TypeError as error:
        types = sorted({type(label).__name__ for label in labels.ravel().tolist()})
        raise ValueError(
            f"Got y with labels that can't be sorted, of the types {types} ({error}), but expected "
            "labels of one type."
        ) from error


@contextmanager
def naming_argument(name: str, advice: Callable[[], str] = str) -> Iterator[None]:
    """Name the argument in errors of a function that calls it X, and end them with advice."""
    try:
        yield
    except (ValueError, TypeError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"Got {name} that can't be used: {error}{advice()}") from error


def seeds_of(random_state: Any) -> Any:
    """Return independent seeds: of the rows that validate, the members and the batches."""
    sequence = np.random.SeedSequence(check_random_state(random_state).randint(2**31))
    return sequence.generate_state(3).tolist()
