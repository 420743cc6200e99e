"""A scikit-learn transformer of mixed tables, and the columns that it reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from decimal import Decimal
from itertools import compress
from numbers import Integral, Real
from typing import Any, NamedTuple, Self

import narwhals as nw
import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from sklearn_fordes.preprocessing._tables import as_table

_INFREQUENT, _MISSING = "infrequent", "missing"
# By the kind of a numpy type: booleans, integers and floats; objects and strings.
_KINDS = {**dict.fromkeys("biuf", "numbers"), **dict.fromkeys("OUS", "objects")}


class TabularEncoder(TransformerMixin, BaseEstimator):
    """Encode a mixed table as numbers of about unit scale, without missing values.

    Numbers are clipped to their training range, centred by the median, divided by the
    interquartile range and smoothly bounded. Each frequent level of a category becomes an
    indicator column. Missing and unknown values get a neutral code: the median, or the mean of
    the level columns. Clipping makes a network as cautious as a tree about numbers outside the
    training range.

    Parameters
    ----------
    categorical_features : "from_dtype", array-like or None, default="from_dtype"
        Names, indices or a boolean mask of the categorical columns; None if there are none. By
        default, columns of strings, categories, enumerations, and of objects that are not all
        numbers. Booleans are numbers.
    min_frequency : int, default=5
        Levels in fewer training rows share one column. Columns that are missing in fewer training
        rows get no indicator: a weight learnt from a few rows does not transfer.
    max_levels : int, default=64
        Maximum number of levels of a column, the most frequent; the others share one column.
    clip : float, default=3.0
        Scaled numbers z become ``z / sqrt(1 + (z / clip)²)``, which lies between −clip and clip.

    Attributes
    ----------
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only if all column names of the input are strings.
    is_categorical_ : ndarray of bool of shape (n_features_in_,)
    low_, high_ : ndarray of shape (n_numbers,)
        Smallest and largest training values of the numeric columns.
    center_, scale_ : ndarray of shape (n_numbers,)
        Medians of the numeric columns, and the factors that multiply the centred numbers.
    has_gaps_ : ndarray of bool of shape (n_numbers,)
        Numeric columns with an indicator of missing values.
    continuous_ : ndarray of int
        Encoded columns that are numbers with more than two values in training. The default
        network embeds these.
    levels_ : list of n_categories lists of str
        Levels of each categorical column that have an encoded column, sorted.
    other_levels_ : list of n_categories lists of str
        The encoded columns after these: "infrequent", "missing", both or neither.
    level_shares_ : list of n_categories ndarrays
        Share of the training rows in each of these columns. It encodes values that have none.
    column_map_ : ndarray of int of shape (n_features_out,)
        Index of the input column from which each encoded column is computed. An input column may
        have none: a category without any frequent level.

    Notes
    -----
    Scaling and bound are those of RealMLP (Holzmüller, Grinsztajn, Steinwart: Better by default,
    NeurIPS 2024): half the range replaces an interquartile range of zero. A constant column is
    encoded as zero, whatever its values are later.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_fordes.preprocessing import TabularEncoder
    >>> X = pd.DataFrame({"age": [20, 30, 40, None], "city": ["Oslo", "Oslo", "Bergen", "Oslo"]})
    >>> encoder = TabularEncoder(min_frequency=1).fit(X)
    >>> encoder.get_feature_names_out().tolist()
    ['age', 'age_missing', 'city_Bergen', 'city_Oslo']
    >>> encoder.column_map_.tolist()
    [0, 0, 1, 1]
    >>> encoder.transform(X).shape
    (4, 4)
    """

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
        """Learn ranges, scales and levels. An encoder whose fit fails stays as it was.

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
        return self._learn(as_table(X))

    def fit_transform(self, X: Any, y: Any = None) -> NDArray[np.float32]:
        """Learn ranges, scales and levels of rows, and encode them.

        Parameters
        ----------
        X : data frame or array-like of shape (n_samples, n_features)
        y : None
            Not used.

        Returns
        -------
        ndarray of shape (n_samples, n_features_out)
            As from `transform`.
        """
        table = as_table(X)
        return self._learn(table).transform_checked(table)

    def _learn(self, table: Any) -> Self:
        self._check_parameters()
        columns = _read_columns(table)
        is_categorical = self._find_categories(columns)
        numbers, categories = _split_columns(columns, is_categorical)
        has_gaps = np.isnan(numbers).sum(axis=0) >= self.min_frequency
        statistics = np.reshape([_statistics(column) for column in numbers.T], (-1, 5))
        levels = [
            Levels.learn(*column.labels(), self.min_frequency, self.max_levels)
            for column in categories
        ]
        # This raises, if at all, before it sets the number and names of the input columns.
        validate_data(self, table, skip_check_array=True)
        self.is_categorical_ = is_categorical
        self.low_, self.high_, self.center_, self.scale_, n_values = statistics.T
        self.has_gaps_ = has_gaps
        self.continuous_ = np.flatnonzero(n_values > 2)
        self.levels_ = [column.known for column in levels]
        self.other_levels_ = [column.other for column in levels]
        self.level_shares_ = [column.share for column in levels]
        self.column_map_ = _column_map(is_categorical, has_gaps, levels)
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Check and encode rows.

        Parameters
        ----------
        X : data frame or array-like of shape (n_samples, n_features)
            With the columns of the training rows.

        Returns
        -------
        ndarray of shape (n_samples, n_features_out)
            Scaled numbers, indicators of missing numbers, then levels.

        Raises
        ------
        ValueError
            If the columns differ from those in `fit`, or a number is infinite.
        """
        check_is_fitted(self)
        table = as_table(X)
        validate_data(self, table, reset=False, skip_check_array=True)
        return self.transform_checked(table)

    def transform_checked(self, table: Any) -> NDArray[np.float32]:
        """Encode rows whose columns were checked already: `transform` without its checks.

        Parameters
        ----------
        table : data frame or ndarray of shape (n_samples, n_features)
            As `as_table` returns it, with the columns of the training rows in their order.

        Returns
        -------
        ndarray of shape (n_samples, n_features_out)
            As from `transform`, whatever container `set_output` chooses there.

        Raises
        ------
        ValueError
            If values cannot be read, or a number is infinite.
        """
        numbers, categories = _split_columns(_read_columns(table), self.is_categorical_)
        is_missing = np.isnan(numbers)
        clipped = np.where(is_missing, self.center_, numbers).clip(self.low_, self.high_)
        z = (clipped - self.center_) * self.scale_
        blocks = [z / np.hypot(1, z / self.clip), is_missing[:, self.has_gaps_]]
        for levels, column in zip(self._levels(), categories, strict=True):
            blocks.append(levels.encode(*column.labels()))
        return np.concatenate(blocks, axis=1, dtype=np.float32)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Name the encoded columns.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the input columns. By default those seen in `fit`, or x0, x1, ….

        Returns
        -------
        ndarray of str objects of shape (n_features_out,)
            ``name`` for a number, ``name_missing`` for its indicator of missing values, and
            ``name_level`` for a level. Underscores are appended to a name until it is unique.
        """
        # This method of scikit-learn checks the fit and the names of the input columns.
        names = OneToOneFeatureMixin.get_feature_names_out(self, input_features)
        suffixes = [""] * len(self.has_gaps_) + [f"_{_MISSING}"] * int(self.has_gaps_.sum())
        for levels in self._levels():
            suffixes += [f"_{level}" for level in (*levels.known, *levels.other)]
        return np.array(list(_unique(names[self.column_map_] + suffixes)), dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _check_parameters(self) -> None:
        for name in ("min_frequency", "max_levels"):
            value = getattr(self, name)
            if not (isinstance(value, Integral) and int(value) >= 1):
                raise ValueError(f"Got {name}={value!r}, but expected an integer >= 1.")
        if not (isinstance(self.clip, Real) and 0 < self.clip < np.inf):
            raise ValueError(f"Got clip={self.clip!r}, but expected a finite number > 0.")

    def _find_categories(self, columns: list[Column]) -> NDArray[np.bool_]:
        """Return the mask of the categorical columns."""
        given = self.categorical_features
        if given is None:
            return np.zeros(len(columns), dtype=bool)
        if isinstance(given, str) and given == "from_dtype":
            return np.array([column.is_category() for column in columns])
        chosen = np.asarray(given if np.isscalar(given) else list(given))
        if chosen.dtype == bool and chosen.shape == (len(columns),):
            return chosen
        names = [column.name for column in columns]
        known = np.array(names if chosen.dtype.kind in "OUT" else range(len(names)))
        if chosen.dtype == bool or chosen.ndim != 1 or not np.isin(chosen, known).all():
            raise ValueError(
                f"Got categorical_features={given!r}, but expected 'from_dtype', None, or names, "
                f"indices or a mask of the columns {names}."
            )
        return np.isin(known, chosen)

    def _levels(self) -> Iterator[Levels]:
        # The fitted attributes are lists and arrays, which any format can store.
        return map(Levels, self.levels_, self.other_levels_, self.level_shares_)


def _statistics(column: NDArray[np.float64]) -> tuple[float, float, float, float, int]:
    """Return the minimum, maximum, median, scale and number of values of a numeric column."""
    known = column[~np.isnan(column)]
    if not len(known):
        known = np.zeros(1)
    # In units of the largest value, no difference of two values overflows.
    unit = np.abs(known).max() or 1.0
    low, first, center, third, high = np.quantile(known / unit, (0.0, 0.25, 0.5, 0.75, 1.0))
    spread = unit * (third - first if third > first else (high - low) / 2)
    # A column that hardly varies is constant: it carries no information.
    scale = 1 / spread if spread > np.finfo(np.float64).tiny else 0.0
    return unit * low, unit * high, unit * center, scale, len(np.unique(known))


def _column_map(
    is_categorical: NDArray[np.bool_], has_gaps: NDArray[np.bool_], levels: list[Levels]
) -> NDArray[np.int64]:
    """Return the index of the input column of each encoded column."""
    numeric = np.flatnonzero(~is_categorical)
    n_columns = np.array([len(column.share) for column in levels], dtype=int)
    of_levels = np.repeat(np.flatnonzero(is_categorical), n_columns)
    return np.concatenate([numeric, numeric[has_gaps], of_levels])


def _unique(names: NDArray[np.object_]) -> Iterator[str]:
    """Append underscores to repeated names."""
    taken, seen = set(names), set[str]()
    for name in names:
        if name in seen:
            while name in taken:
                name += "_"
            taken.add(name)
        seen.add(name)
        yield name


def _read_columns(table: Any) -> list[Column]:
    """Return the columns of a table, named by the frame or by their position in the array."""
    if isinstance(table, np.ndarray):
        return [Column(position, values) for position, values in enumerate(table.T)]
    return [Column(values.name, values) for values in nw.from_native(table).iter_columns()]


def _split_columns(
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
        rest = {_INFREQUENT: count.total() - sum(counts), _MISSING: n_missing}
        other = {name: n for name, n in rest.items() if n >= min_frequency}
        return cls(known, list(other), np.array([*counts, *other.values()]) / len(codes))

    def encode(self, labels: list[str | None], codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows of shape (n_samples, n_columns): indicators, or the shares."""
        n_columns = len(self.share)
        rows = np.eye(n_columns + 1, n_columns, dtype=np.float32)
        rows[-1] = self.share
        column_of = {label: column for column, label in enumerate(self.known)}
        other = {name: column for column, name in enumerate(self.other, len(self.known))}
        unknown, missing = other.get(_INFREQUENT, -1), other.get(_MISSING, -1)
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
