"""From a data frame to the float columns that a network takes."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, Self

import narwhals as nw
import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_array
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted, validate_data

from sklearn_fordes._state import restored_on_error

_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
_INFREQUENT, _MISSING = "infrequent", "missing"
_STRINGS = (nw.String, nw.Categorical, nw.Enum)


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
        Levels in fewer training rows share one column; gaps in fewer have no column that says so,
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
        with restored_on_error(self):
            self._validate_params()
            X = as_table(X)
            validate_data(self, X, skip_check_array=True)
            is_given = self._given_categories()
            by_type = isinstance(self.categorical_features, str)
            self.is_categorical_ = np.array(
                [
                    bool(given or (by_type and column.is_category()))
                    for given, column in zip(is_given, self._columns(X), strict=True)
                ]
            )
            self._fit_numbers(self._numbers(X))
            self.levels_ = [
                Levels.of(*column.labels(), self.min_frequency, self.max_levels)
                for column in self._categories(X)
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
            levels.encode(*column.labels())
            for levels, column in zip(self.levels_, self._categories(X), strict=True)
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
            stands for a level. A name that is taken gets underscores after it.
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
        return np.array(list(_distinct([*numbers, *gaps, *levels])), dtype=object)

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
        chosen = np.asarray(list(given))
        if chosen.dtype == bool and chosen.shape == is_given.shape:
            return chosen
        names = getattr(self, "feature_names_in_", np.arange(self.n_features_in_))
        known = names if chosen.dtype.kind in "OUT" else np.arange(self.n_features_in_)
        is_wrong_mask = chosen.dtype == bool
        if is_wrong_mask or chosen.ndim != 1 or not np.isin(chosen, known).all():
            raise ValueError(
                f"Got categorical_features={given!r}, but expected 'from_dtype', None, or names, "
                f"indices or a mask of the columns {names.tolist()}."
            )
        return np.isin(known, chosen)

    def _columns(self, X: Any) -> Iterator[Column]:
        names = getattr(self, "feature_names_in_", np.arange(self.n_features_in_))
        values = X.T if isinstance(X, np.ndarray) else nw.from_native(X).iter_columns()
        for name, column in zip(names.tolist(), values, strict=True):
            yield Column(name, column)

    def _numbers(self, X: Any) -> NDArray[np.float64]:
        """Read the columns of numbers, (n_samples, n_numbers), NaN where missing."""
        columns = [
            column.numbers()
            for column, is_category in zip(self._columns(X), self.is_categorical_, strict=True)
            if not is_category
        ]
        return np.stack(columns, axis=1) if columns else np.empty((len(X), 0))

    def _categories(self, X: Any) -> Iterator[Column]:
        for column, is_category in zip(self._columns(X), self.is_categorical_, strict=True):
            if is_category:
                yield column

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
        self.scale_ = np.divide(
            1.0, spread, out=np.zeros_like(spread), where=spread > np.finfo(np.float64).tiny
        )


class Levels(NamedTuple):
    """The levels of a categorical column, and how they are encoded.

    Parameters
    ----------
    known : list of str
        Levels with a column of their own, sorted.
    others : list of str
        The columns after these: maybe one for infrequent levels, and one for missing values.
    share : ndarray of shape (n_columns,)
        Of the training rows. It encodes what training says nothing of.
    """

    known: list[str]
    others: list[str]
    share: NDArray[np.float64]

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return [*self.known, *self.others]

    @classmethod
    def of(
        cls,
        labels: list[str | None],
        codes: NDArray[np.int64],
        min_frequency: int = 1,
        max_levels: int | None = None,
    ) -> Levels:
        """Find the levels of training rows: labels (None is missing), and codes into them."""
        count: dict[str | None, int] = {}
        for label, n in zip(labels, np.bincount(codes, minlength=len(labels)), strict=True):
            count[label] = count.get(label, 0) + int(n)
        n_missing = count.pop(None, 0)
        levels = {str(label): n for label, n in count.items()}
        most_frequent = sorted(levels, key=lambda label: (-levels[label], label))[:max_levels]
        known = sorted(label for label in most_frequent if levels[label] >= min_frequency)
        rest = {
            _INFREQUENT: sum(levels.values()) - sum(levels[label] for label in known),
            _MISSING: n_missing,
        }
        others = [name for name, n in rest.items() if n >= min_frequency]
        counts = [levels[label] for label in known] + [rest[name] for name in others]
        return cls(known, others, np.array(counts) / len(codes))

    def encode(self, labels: list[str | None], codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return a row (n_columns,) for each code into the labels, with a one or the shares."""
        n_known, n_columns = len(self.known), len(self.share)
        rows = np.eye(n_columns + 1, n_columns, dtype=np.float32)
        rows[-1] = self.share
        position = {label: index for index, label in enumerate(self.known)}
        others = {name: n_known + index for index, name in enumerate(self.others)}
        unknown, missing = (others.get(name, -1) for name in (_INFREQUENT, _MISSING))
        row_of_label = [
            missing if label is None else position.get(label, unknown) for label in labels
        ]
        encoded: NDArray[np.float32] = rows[np.array(row_of_label, dtype=int)[codes]]
        return encoded


class Column:
    """A column of a table, to be read as numbers or as labels.

    Parameters
    ----------
    name : str or int
    values : narwhals series or ndarray

    Raises
    ------
    ValueError
        If its type is neither numbers nor strings, categories or objects of these.
    """

    def __init__(self, name: Any, values: Any) -> None:
        self.name = name
        self.values = values
        if isinstance(values, np.ndarray):
            self.is_objects = values.dtype.kind in "OUS"
            self.is_strings = False
            is_numbers = values.dtype.kind in "biuf"
        else:
            dtype = values.dtype
            self.is_objects = dtype in (nw.Object, nw.Unknown)
            self.is_strings = dtype in _STRINGS
            is_numbers = dtype.is_numeric() or dtype == nw.Boolean
        if not (self.is_objects or self.is_strings or is_numbers):
            raise ValueError(
                f"Got column {name!r} of type {values.dtype}, but expected numbers, booleans, "
                "strings or categories."
            )

    def is_category(self) -> bool:
        """Whether it holds no numbers, by its type or (objects) by its values."""
        if self.is_objects:
            return not all(value is None or _is_number(value) for value in self._objects()[0])
        return self.is_strings

    def numbers(self) -> NDArray[np.float64]:
        """Return floats, NaN where missing.

        Raises
        ------
        ValueError
            If there are others than finite numbers and gaps.
        """
        numbers: NDArray[np.float64]
        if self.is_objects:
            distinct, codes = self._objects()
            numbers = np.array([self._number(value) for value in distinct])[codes]
        elif self.is_strings:
            raise ValueError(
                f"Got column {self.name!r} of type {self.values.dtype}, but expected numbers: it "
                "is not among the columns of categories."
            )
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
        """Return strings, None where missing, and each row's index into them."""
        distinct, codes = self._objects()
        return [None if value is None else _label(value) for value in distinct], codes

    def _objects(self) -> tuple[list[Any], NDArray[np.int64]]:
        """Return the distinct values, None where missing, and each row's index into them."""
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
            if not (value is None or isinstance(value, str | bytes) or _is_number(value)):
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
    TypeError
        If the frame is lazy.
    ValueError
        If there are other than two axes, or no rows or columns.
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
    if isinstance(X, list | tuple):  # which numpy would turn into strings if one value is
        X = np.array(X, dtype=object) if np.asarray(X).dtype.kind in "US" else X
    return check_array(X, dtype=None, ensure_all_finite=False)


def _is_missing(value: Any) -> bool:
    # NaN, pandas's NA (whose comparisons are NA again) and NaT
    return (
        value is None
        or type(value).__name__ in ("NAType", "NaTType")
        or (isinstance(value, float) and np.isnan(value))
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real | Decimal)


def _label(value: Any) -> str:
    """Name a level, so that 3 and 3.0 are one, and 0.1 in single and double precision."""
    if isinstance(value, str | bytes | bool | np.bool_ | Integral):
        return str(value)
    return str(int(value)) if float(value).is_integer() else format(float(value), ".7g")


def _distinct(names: list[str]) -> Iterator[str]:
    taken: set[str] = set(names)
    seen: set[str] = set()
    for name in names:
        while name in seen:
            name += "_"
            while name in taken:
                name += "_"
        seen.add(name)
        yield name
