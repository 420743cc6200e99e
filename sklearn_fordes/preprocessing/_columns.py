"""The columns of a table, read as numbers or as categories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from decimal import Decimal
from itertools import compress
from numbers import Integral, Real
from typing import Any, NamedTuple

import narwhals as nw
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

MISSING = "missing"
_INFREQUENT = "infrequent"
# By the kind of a numpy type: booleans, integers and floats; objects and strings.
_KINDS = {**dict.fromkeys("biuf", "numbers"), **dict.fromkeys("OUS", "objects")}


def as_table(X: Any) -> Any:
    """Return a data frame unchanged and anything else as an array.

    Parameters
    ----------
    X : data frame or array-like of shape (n_samples, n_features)

    Returns
    -------
    data frame or ndarray of shape (n_samples, n_features)
        Of any type. Values may be missing.

    Raises
    ------
    TypeError
        If the frame is lazy.
    ValueError
        If X does not have two axes, or has no rows or no columns.
    """
    X = nw.to_native(X, pass_through=True)
    if nw.dependencies.is_into_dataframe(X):
        if 0 in X.shape:
            raise ValueError(
                f"Got a data frame of shape {X.shape}, but expected at least one row and column."
            )
        return X
    if hasattr(X, "collect"):
        raise TypeError(f"Got a lazy {type(X).__name__}, but expected a frame: call collect().")
    # From a list with numbers and strings, numpy would make strings of the numbers.
    if isinstance(X, list | tuple) and np.asarray(X).dtype.kind in "US":
        X = np.array(X, dtype=object)
    return as_rows(X)


def as_rows(X: Any, n_axes: int | None = 2) -> NDArray[Any]:
    """Return an array of rows.

    scikit-learn's `check_array` is not used, because it changes the warning filters of all threads.

    Parameters
    ----------
    X : array-like of shape (n_samples, ...)
    n_axes : int, optional
        Number of axes that X must have. None is two or more.

    Returns
    -------
    ndarray
        Not a copy, if X is an array.

    Raises
    ------
    TypeError
        If X is sparse.
    ValueError
        If X has another number of axes, no rows or no columns, or complex numbers.
    """
    if issparse(X):
        raise TypeError("Got a sparse X, but expected a dense array: call toarray().")
    array = np.asarray(X)
    if array.ndim != n_axes and (n_axes or array.ndim < 2):
        raise ValueError(
            f"Got X of shape {array.shape}, but expected (n_samples, n_features). Reshape your "
            "data: X.reshape(-1, 1) if it is one feature, X.reshape(1, -1) if it is one sample."
        )
    for axis, name in enumerate(("sample", "feature")):
        if not array.shape[axis]:
            raise ValueError(
                f"Found array with 0 {name}(s) (shape={array.shape}) while a minimum of 1 is "
                "required."
            )
    if array.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: got X of type {array.dtype}.")
    return array


def read_columns(table: Any) -> list[Column]:
    """Return the columns of a table, named by the frame or by their position in the array."""
    if isinstance(table, np.ndarray):
        return [Column(position, values) for position, values in enumerate(table.T)]
    return [Column(values.name, values) for values in nw.from_native(table).iter_columns()]


def split_columns(
    columns: list[Column], is_categorical: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], list[Column]]:
    """Return numbers of shape (n_samples, n_numbers), NaN if missing, and categorical columns."""
    numeric = list(compress(columns, ~is_categorical))
    numbers = np.empty((len(columns[0].values), len(numeric)))
    for index, column in enumerate(numeric):
        numbers[:, index] = column.numbers()
    return numbers, list(compress(columns, is_categorical))


class Column:
    """A column of a table, readable as numbers or as labels.

    Parameters
    ----------
    name : str or int
    values : narwhals series or ndarray of shape (n_samples,)

    Raises
    ------
    ValueError
        If the type is neither numbers nor strings, categories or objects.
    """

    def __init__(self, name: Any, values: Any) -> None:
        self.name = name
        self.values = values
        self.kind = _kind_of(values.dtype)
        if self.kind is None:
            raise ValueError(
                f"Got column {name!r} of type {values.dtype}, but expected numbers, booleans, "
                "strings or categories."
            )

    def is_category(self) -> bool:
        """Whether the values are not numbers, judged by type or, for objects, one by one."""
        if self.kind == "objects":
            return any(isinstance(value, str | bytes) for value in self._distinct()[0])
        return self.kind == "strings"

    def numbers(self) -> NDArray[np.float64]:
        """Return floats, NaN where missing.

        Raises
        ------
        ValueError
            If a value is neither missing nor a finite number.
        """
        if self.kind == "strings":
            raise ValueError(
                f"Got column {self.name!r} of type {self.values.dtype}, but expected numbers: it "
                "is not among the columns of categories."
            )
        numbers: NDArray[np.float64]
        if self.kind == "objects":
            distinct, codes = self._distinct()
            numbers = np.take([self._number(value) for value in distinct], codes)
        elif isinstance(self.values, np.ndarray):
            numbers = self.values.astype(np.float64)
        else:
            numbers = self.values.cast(nw.Float64).to_numpy()
        if np.isinf(numbers).any():
            raise ValueError(
                f"Got infinity in column {self.name!r}, but expected finite numbers or gaps."
            )
        return numbers

    def labels(self) -> tuple[list[str | None], NDArray[np.int64]]:
        """Return labels, None for missing values, and the index of each row's label."""
        distinct, codes = self._distinct()
        # As an array of strings, every label would take the memory of the longest.
        return [None if value is None else _label(value) for value in distinct], codes

    def _distinct(self) -> tuple[list[Any], NDArray[np.int64]]:
        """Return distinct values, None if missing, and the index of each row's value."""
        is_array = isinstance(self.values, np.ndarray)
        values = self.values.tolist() if is_array else self.values.to_list()
        position: dict[Hashable, int] = {}
        try:
            codes = [position.setdefault(value, len(position)) for value in values]
        except TypeError as error:
            raise ValueError(
                f"Got values in column {self.name!r} that can't be compared ({error}), but "
                "expected numbers or strings."
            ) from error
        distinct = [None if _is_missing(value) else value for value in position]
        for value in distinct:
            if not isinstance(value, str | bytes | Real | Decimal | None):
                raise ValueError(
                    f"Got a {type(value).__name__} in column {self.name!r}, but expected numbers "
                    "or strings."
                )
        return distinct, np.array(codes, dtype=np.int64)

    def _number(self, value: Any) -> float:
        try:
            return np.nan if value is None else float(value)
        except (OverflowError, ValueError) as error:
            raise ValueError(
                f"Got {value!r} in column {self.name!r}, but expected numbers."
            ) from error


class Levels(NamedTuple):
    """The encoded columns of one categorical column.

    Parameters
    ----------
    known : list of str
        Levels with an encoded column each, sorted.
    other : list of str
        The encoded columns after these: "infrequent", "missing", both or neither.
    share : ndarray of shape (n_columns,)
        Share of the training rows in each encoded column. It encodes values for which there is
        no column.
    """

    known: list[str]
    other: list[str]
    share: NDArray[np.float64]

    @classmethod
    def learn(
        cls,
        labels: list[str | None],
        codes: NDArray[np.int64],
        min_frequency: int,
        max_levels: int,
    ) -> Levels:
        """Choose the levels of training rows, given as labels and the index of each row's label."""
        count = Counter[str]()
        n_missing = 0
        for label, n in zip(labels, np.bincount(codes).tolist(), strict=True):
            if label is None:
                n_missing += n
            else:
                count[label] += n
        most_frequent = sorted(count, key=lambda label: (-count[label], label))[:max_levels]
        known = sorted(label for label in most_frequent if count[label] >= min_frequency)
        counts = [count[label] for label in known]
        rest = {_INFREQUENT: count.total() - sum(counts), MISSING: n_missing}
        other = {name: n for name, n in rest.items() if n >= min_frequency}
        return cls(known, list(other), np.array([*counts, *other.values()]) / len(codes))

    def encode(self, labels: list[str | None], codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows of shape (n_samples, n_columns): indicators, or the shares."""
        n_columns = len(self.share)
        rows = np.eye(n_columns + 1, n_columns, dtype=np.float32)
        rows[-1] = self.share
        column_of = {label: column for column, label in enumerate(self.known)}
        other = {name: column for column, name in enumerate(self.other, len(self.known))}
        unknown, missing = other.get(_INFREQUENT, -1), other.get(MISSING, -1)
        row_of_label = [
            missing if label is None else column_of.get(label, unknown) for label in labels
        ]
        return rows.take(np.take(row_of_label, codes), axis=0)


def _kind_of(dtype: Any) -> str | None:
    """Return "numbers", "strings", "objects", or None for any other type."""
    if isinstance(dtype, np.dtype):
        return _KINDS.get(dtype.kind)
    if dtype.is_numeric() or dtype == nw.Boolean:
        return "numbers"
    if dtype in (nw.Object, nw.Unknown):
        return "objects"
    return "strings" if dtype in (nw.String, nw.Categorical, nw.Enum) else None


def _is_missing(value: Any) -> bool:
    # pandas need not be installed, so its NA and NaT are recognised by the names of their types.
    is_nan = isinstance(value, float) and np.isnan(value)
    return is_nan or type(value).__name__ in ("NoneType", "NAType", "NaTType")


def _label(value: Any) -> str:
    """Name a level: 3 and 3.0 get one name, and so do 0.1 in single and double precision."""
    if isinstance(value, str | bytes | Integral):
        return str(value)
    return str(int(value)) if float(value).is_integer() else format(float(value), ".7g")
