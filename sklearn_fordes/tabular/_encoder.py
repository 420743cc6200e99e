"""From a data frame to the float columns that a network takes."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, Self

import narwhals as nw
import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_array
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted, validate_data

_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
_INFREQUENT, _MISSING = "infrequent", "missing"


class TabularEncoder(TransformerMixin, BaseEstimator):
    """Turn the columns of a table into numbers of about unit scale, none of them missing.

    Numbers are centred by the median, divided by the interquartile range and smoothly clipped;
    categories become one column a level. What is missing or was never seen is put where it says
    least: at the median, or at the mean of the levels' columns. Numbers beyond the training range
    are taken for its ends, so that a network does no more with them than a tree would.

    Parameters
    ----------
    categorical_features : "from_dtype", array-like or None, default="from_dtype"
        Which columns hold categories: those of strings, categories, enumerations and objects that
        are no numbers; or names, indices or a mask; or none. Booleans are numbers.
    min_frequency : int, default=5
        Levels in fewer training rows share one column; gaps in fewer are filled without a trace,
        for what a network learns from a few rows goes wrong once there are more of them.
    max_levels : int, default=64
        A column keeps so many levels, the most frequent; the others share one column.
    clip : float, default=3.0
        Scaled numbers z become ``z / sqrt(1 + (z / clip)²)``, which lies between −clip and clip.

    Attributes
    ----------
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only if the input had column names, all strings.
    is_categorical_ : ndarray of shape (n_features_in_,)
        Which columns were taken for categories.
    center_, scale_ : ndarray of shape (n_numbers,)
        Medians of the numbers, and what they are multiplied by after.
    low_, high_ : ndarray of shape (n_numbers,)
        Smallest and largest numbers.
    continuous_ : ndarray of int
        Which columns of the output are numbers of more than two values: those worth embedding.
    has_gaps_ : ndarray of shape (n_numbers,)
        Which numbers were missing in `min_frequency` training rows or more. They have a column
        that says where.
    levels_ : list of Levels
        Of each categorical column.

    Notes
    -----
    Scaling and clip are those of RealMLP (Holzmüller, Grinsztajn, Steinwart: Better by default,
    NeurIPS 2024): where the interquartile range is zero, half the range takes its place.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_fordes.tabular import TabularEncoder
    >>> X = pd.DataFrame({"age": [20, 30, 40, None], "city": ["Oslo", "Oslo", "Bergen", "Oslo"]})
    >>> encoder = TabularEncoder(min_frequency=1).fit(X)
    >>> encoder.get_feature_names_out().tolist()
    ['age', 'age_missing', 'city_Bergen', 'city_Oslo']
    >>> encoder.transform(X).shape
    (4, 4)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "categorical_features": [StrOptions({"from_dtype"}), "array-like", None],
        "min_frequency": [Interval(Integral, 1, None, closed="left")],
        "max_levels": [Interval(Integral, 1, None, closed="left")],
        "clip": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        categorical_features: Any = "from_dtype",
        *,
        min_frequency: int = 5,
        max_levels: int = 64,
        clip: float = 3.0,
    ) -> None:
        self.categorical_features = categorical_features
        self.min_frequency = min_frequency
        self.max_levels = max_levels
        self.clip = clip

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn scales and levels.

        Parameters
        ----------
        X : data frame (pandas, polars, …) or array-like of shape (n_samples, n_features)
        y : None
            Not used.

        Returns
        -------
        self : TabularEncoder

        Raises
        ------
        ValueError
            If a column is neither numbers nor categories, or holds infinite numbers.
        """
        self._validate_params()
        X = as_table(X)
        validate_data(self, X, skip_check_array=True)
        is_given = self._given_categories()
        self.is_categorical_ = np.array(
            [
                given or (self.categorical_features == "from_dtype" and _is_category(column))
                for given, column in zip(is_given, _columns(X), strict=True)
            ]
        )
        self._fit_numbers(self._numbers(X))
        self.levels_ = [
            Levels.of(labels, self.min_frequency, self.max_levels) for labels in self._labels(X)
        ]
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Encode rows.

        Parameters
        ----------
        X : like in `fit`
            With the same columns.

        Returns
        -------
        ndarray of shape (n_samples, n_features_out)
            Scaled numbers; where they are missing, 1, for those of `has_gaps_`; levels.
        """
        check_is_fitted(self)
        X = as_table(X)
        validate_data(self, X, reset=False, skip_check_array=True)
        numbers = self._numbers(X)
        is_missing = np.isnan(numbers)
        scaled = self._scaled(np.where(is_missing, self.center_, numbers))
        gaps = is_missing[:, self.has_gaps_]
        blocks = [
            levels.encode(labels)
            for levels, labels in zip(self.levels_, self._labels(X), strict=True)
        ]
        return np.concatenate([scaled, gaps, *blocks], axis=1, dtype=np.float32)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Name the columns of the output.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the input's columns. None are those seen in `fit`, or x0, x1, ….

        Returns
        -------
        ndarray of str objects
            A number is named as it was, ``…_missing`` says where it is missing, and ``…_level``
            stands for a level.
        """
        check_is_fitted(self)
        names = _check_feature_names_in(self, input_features)
        numbers, categories = names[~self.is_categorical_], names[self.is_categorical_]
        gaps = [f"{name}_{_MISSING}" for name in numbers[self.has_gaps_]]
        levels = [
            f"{name}_{column}"
            for name, levels in zip(categories, self.levels_, strict=True)
            for column in levels.columns
        ]
        return np.array([*numbers, *gaps, *levels], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _given_categories(self) -> NDArray[np.bool_]:
        """Return which columns `categorical_features` names."""
        is_given = np.zeros(self.n_features_in_, dtype=bool)
        given = self.categorical_features
        if given is None or isinstance(given, str):
            return is_given
        chosen = np.asarray(given)
        if chosen.dtype == bool and chosen.shape == is_given.shape:
            return chosen
        names = getattr(self, "feature_names_in_", np.arange(self.n_features_in_))
        known = names if chosen.dtype.kind in "OUT" else np.arange(self.n_features_in_)
        is_wrong_mask = chosen.dtype == bool
        if is_wrong_mask or chosen.ndim != 1 or not np.isin(chosen, known).all():
            raise ValueError(
                f"Got categorical_features={given!r}, but expected 'from_dtype', None, or names, "
                f"indices or a mask of the columns {list(names)}."
            )
        return np.isin(known, chosen)

    def _numbers(self, X: Any) -> NDArray[np.float64]:
        """Read the columns of numbers, (n_samples, n_numbers), NaN where missing."""
        columns = [
            _as_numbers(column)
            for column, is_category in zip(_columns(X), self.is_categorical_, strict=True)
            if not is_category
        ]
        return np.stack(columns, axis=1) if columns else np.empty((len(X), 0))

    def _labels(self, X: Any) -> list[NDArray[np.object_]]:
        """Read the columns of categories as strings, None where missing."""
        return [
            _as_labels(column)
            for column, is_category in zip(_columns(X), self.is_categorical_, strict=True)
            if is_category
        ]

    def _scaled(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        z = (numbers.clip(self.low_, self.high_) - self.center_) * self.scale_
        scaled: NDArray[np.float64] = z / np.hypot(1, z / self.clip)
        return scaled

    def _fit_numbers(self, numbers: NDArray[np.float64]) -> None:
        is_missing = np.isnan(numbers)
        self.has_gaps_ = is_missing.sum(axis=0) >= self.min_frequency
        known = np.where(is_missing.all(axis=0), 0.0, numbers)
        largest = np.nanmax(np.abs(known), axis=0, initial=0)
        unit = np.where(largest > 0, largest, 1.0)  # in which nothing overflows
        quantiles = [np.nanquantile(column, _QUANTILES) for column in (known / unit).T]
        low, first, center, third, high = np.reshape(quantiles, (-1, len(_QUANTILES))).T
        self.low_, self.high_ = unit * low, unit * high
        n_values = [len(np.unique(column[~np.isnan(column)])) for column in known.T]
        self.continuous_ = np.flatnonzero(np.array(n_values, dtype=int) > 2)
        spread = unit * np.where(third > first, third - first, (high - low) / 2)
        self.center_ = unit * center
        # A constant column says nothing, whatever it becomes later.
        self.scale_ = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)


class Levels(NamedTuple):
    """The levels of a categorical column, and how they are encoded.

    Parameters
    ----------
    known : ndarray of str objects
        Sorted levels with a column of their own.
    columns : list of str
        Names of the columns: the known levels, and maybe one for infrequent levels and one for
        missing values.
    share : ndarray of shape (n_columns,)
        Of the training rows. It encodes what training says nothing of.
    """

    known: NDArray[np.object_]
    columns: list[str]
    share: NDArray[np.float64]

    @classmethod
    def of(
        cls, labels: NDArray[np.object_], min_frequency: int = 1, max_levels: int | None = None
    ) -> Levels:
        """Find the levels of training rows: strings, or None."""
        is_missing = np.array([label is None for label in labels], dtype=bool)
        levels, count = np.unique(labels[~is_missing].astype(str), return_counts=True)
        kept = np.sort(np.argsort(-count, kind="stable")[:max_levels])
        kept = kept[count[kept] >= min_frequency]
        counts = dict(zip(levels[kept].tolist(), count[kept], strict=True))
        others = {_INFREQUENT: count.sum() - count[kept].sum(), _MISSING: is_missing.sum()}
        counts |= {name: n for name, n in others.items() if n}
        known = levels[kept].astype(object)
        return cls(
            known, [str(name) for name in counts], np.array([*counts.values()]) / len(labels)
        )

    def encode(self, labels: NDArray[np.object_]) -> NDArray[np.float32]:
        """Return a row (n_columns,) for each label, with a one or the shares."""
        table = np.eye(len(self.columns) + 1, len(self.columns), dtype=np.float32)
        table[-1] = self.share
        return table[self._codes(labels)]

    def _codes(self, labels: NDArray[np.object_]) -> NDArray[np.int64]:
        """Return the position of each label's column, −1 if it has none."""
        n_known = len(self.known)
        others = {name: n_known + i for i, name in enumerate(self.columns[n_known:])}
        is_missing = np.array([label is None for label in labels], dtype=bool)
        codes = np.full(len(labels), others.get(_MISSING, -1))
        levels, inverse = np.unique(labels[~is_missing].astype(str), return_inverse=True)
        position = {level: code for code, level in enumerate(self.known)}
        unknown = others.get(_INFREQUENT, -1)
        codes[~is_missing] = np.array(
            [position.get(level, unknown) for level in levels.tolist()], dtype=int
        )[inverse]
        return codes


# ---- reading columns


def as_table(X: Any) -> Any:
    """Return a data frame as it is, anything else as an array.

    Parameters
    ----------
    X : data frame or array-like of shape (n_samples, n_features)

    Returns
    -------
    data frame or ndarray of shape (n_samples, n_features)
        Of any type, values may be missing.

    Raises
    ------
    ValueError
        If there are other than two axes, or no rows or columns.
    """
    if nw.dependencies.is_into_dataframe(X):
        if 0 in X.shape:
            raise ValueError(
                f"Got a data frame of shape {X.shape}, but expected at least one row and column."
            )
        return X
    if isinstance(X, list | tuple):  # which numpy would turn into strings if one value is
        X = np.array(X, dtype=object) if np.asarray(X).dtype.kind in "US" else X
    return check_array(X, dtype=None, ensure_all_finite=False)


def _columns(X: Any) -> Iterator[Any]:
    """Yield the columns of a table: narwhals series or arrays."""
    if isinstance(X, np.ndarray):
        yield from X.T
    else:
        yield from nw.from_native(X, eager_only=True).iter_columns()


def _dtype_of(column: Any) -> Any:
    """Return the type of a narwhals series; None for an array of objects or strings."""
    if isinstance(column, np.ndarray):
        return None if column.dtype.kind in "OUST" else nw.Float64()
    return None if column.dtype in (nw.Object, nw.Unknown) else column.dtype


def _is_category(column: Any) -> bool:
    """Return whether a column holds no numbers, by its type or (objects) by its values."""
    dtype = _dtype_of(column)
    if dtype is None:
        return not all(isinstance(value, Real) for value in _objects(column) if value is not None)
    if dtype in (nw.String, nw.Categorical, nw.Enum):
        return True
    if dtype.is_numeric() or dtype == nw.Boolean:
        return False
    raise ValueError(
        f"Got column {column.name!r} of type {dtype}, but expected numbers, booleans, strings or "
        "categories."
    )


def _as_numbers(column: Any) -> NDArray[np.float64]:
    try:
        if _dtype_of(column) is None:
            column = np.array([np.nan if value is None else value for value in _objects(column)])
        elif not isinstance(column, np.ndarray):
            column = column.cast(nw.Float64).to_numpy()
        numbers: NDArray[np.float64] = column.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Got values that are no numbers ({error}) in a column that held numbers in training, "
            "but expected numbers."
        ) from error
    if np.isinf(numbers).any():
        raise ValueError(
            "Got infinity in a column of numbers, but expected finite or missing ones."
        )
    return numbers


def _as_labels(column: Any) -> NDArray[np.object_]:
    """Read values as strings, so that 3, 3.0 and "3" are one level; None where missing."""
    labels = [None if value is None else _label(value) for value in _objects(column)]
    return np.array(labels, dtype=object)


def _objects(column: Any) -> list[Any]:
    """Return the values as Python objects, None where missing."""
    values = column.tolist() if isinstance(column, np.ndarray) else column.to_list()
    return [None if _is_missing(value) else value for value in values]


def _is_missing(value: Any) -> bool:
    # NaN, pandas's NA (whose comparisons are NA again) and NaT
    return (
        value is None
        or type(value).__name__ in ("NAType", "NaTType")
        or (isinstance(value, float) and np.isnan(value))
    )


def _label(value: Any) -> str:
    if isinstance(value, Real) and float(value).is_integer():
        return str(int(float(value)))
    return str(value)
