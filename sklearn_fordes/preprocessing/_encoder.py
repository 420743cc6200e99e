"""A scikit-learn transformer of mixed tables."""

from __future__ import annotations

from itertools import compress
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from sklearn_fordes._maps import without_maps
from sklearn_fordes.preprocessing import _support
from sklearn_fordes.preprocessing._columns import CATEGORY, EMPTY, Column, read_columns
from sklearn_fordes.preprocessing._kinds import find_kinds, warn_of_losses
from sklearn_fordes.preprocessing._layout import (
    are_numeric,
    column_map,
    read_kinds,
    shares_of_rows,
    unique_names,
)
from sklearn_fordes.preprocessing._learning import LearntNumbers, parts_of_rows
from sklearn_fordes.preprocessing._levels import MISSING, Levels
from sklearn_fordes.preprocessing._numbers import scaled, with_parts
from sklearn_fordes.preprocessing._ranks import rank_scores
from sklearn_fordes.preprocessing._reports import Reports
from sklearn_fordes.preprocessing._tables import as_table

# Numbers with long tails may go so much further after their logarithm is taken.
LOGARITHMIC_CLIP = 3
_GAP_INDICATORS = ("frequent", "all")


class TabularEncoder(Reports, TransformerMixin, BaseEstimator):
    """Encode a mixed table as numbers of about unit scale, without missing values.

    What a column holds is decided in `fit`, from all of its values: numbers, dates, durations or
    categories. Later rows are read by it, in whatever container they come.

    Numbers are clipped to their training range, centred by the median, divided by the
    interquartile range and smoothly bounded; by default half of the code tells how they rank among
    the training rows. If one value is common it is the centre, and then, or if the tails are long,
    a logarithm keeps the tails apart, without ranks. Dates become several numbers. Each frequent
    level of a category becomes an indicator column. Missing and unknown values get a
    neutral code: the centre, or the mean of the level columns. Clipping makes a network as cautious
    as a tree about numbers outside the training range. With ``gap_indicators="all"`` numbers far
    outside it fade into gaps: the code of one that lies d spreads outside is that of a gap by
    ``d² / (d² + 9)``, and that of the end of the range for the rest.

    Parameters
    ----------
    categorical_features : "from_dtype", array-like or None, default="from_dtype"
        Which columns are categorical. By default, columns of categories and enumerations, and those
        whose values are neither all numbers nor all dates nor all durations; booleans are numbers.
        Names, indices or a mask add columns to these, such as codes. None if there are none.
    min_frequency : int, default=5
        Levels in fewer training rows share one column, and a number in fewer is not common. By
        default columns that are missing in fewer training rows get no indicator: a weight learnt
        from a few rows does not transfer.
    max_levels : int, default=64
        Maximum number of levels of a column, the most frequent; the others share one column.
    clip : float, default=3.0
        Scaled numbers z are bounded: ``z / sqrt(1 + (z / clip)²)`` lies between −clip and clip.
        With a common value or long tails it is taken of arsinh(z), and lies between −3 clip and 3
        clip.
    gap_indicators : {"frequent", "all"}, default="frequent"
        Which columns of numbers, dates and durations get an indicator of missing values: those
        that are missing in `min_frequency` training rows or more, or all. All suit a network that
        is trained with gaps drawn at random (see `encode_gaps`).
    rank_share : float, default=0.5
        Share of the normal score of a number's rank among the training rows in its code, in [0, 1];
        the bounded number has the rest. Scores are interpolated between 17 quantiles, and lie
        between −3 and 3 before that of the centre is subtracted. Numbers with two values, one that
        is common (equal in many rows) or long tails have none: noise would trip over a rank that
        jumps, and a logarithm keeps a tail apart.

    Attributes
    ----------
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Only if all column names of the input are strings.
    kinds_ : ndarray of str of shape (`n_features_in_`,)
        "number", "date", "duration", "category", or "empty" for columns without any value in
        training, which are ignored.
    is_categorical_, is_informative_ : ndarray of bool of shape (`n_features_in_`,)
        Whether a column holds categories, and whether its code says anything of its values.
    low_, high_ : ndarray of shape (n_numbers,)
        Smallest and largest training values of the numbers, parts of dates among them.
    center_, scale_ : ndarray of shape (n_numbers,)
        Medians of the numbers, or their common values, and the factors that multiply the centred
        numbers.
    is_long_tailed_ : ndarray of bool of shape (n_numbers,)
        Numbers of which one value is common, or some are further from the centre than ten times
        the spread: arsinh takes their logarithm beyond about one spread.
    rank_numbers_, rank_scores_ : ndarray of shape (n_numbers, n_knots)
        Scaled numbers, and the normal scores of their ranks less that of the centre, between which
        others are interpolated. Scores of zero for numbers that have none.
    has_gaps_ : ndarray of bool of shape (n_numeric_columns,)
        Whether a column of numbers, dates or durations has an indicator of missing values.
    parts_ : list of n_numeric_columns lists of str
        Numbers made of each of these columns: "" for a number or a duration (in seconds). For a
        date "year", "month" (1 to 12), "weekday" (Monday is 0), "hour" (of the day, with its
        fraction) and "elapsed" (days since 1970), without those that never change in training.
    continuous_ : ndarray of int
        Encoded columns that are numbers with more than two values in training. The default
        network embeds these.
    levels_ : list of n_categories Levels
        The encoded columns of each categorical column: named tuples of what the next three hold.
    known_levels_ : list of n_categories lists of str
        Levels that have an encoded column, sorted.
    other_levels_ : list of n_categories lists of str
        The encoded columns after these: "infrequent", "missing", both or neither.
    level_shares_ : list of n_categories ndarrays
        Shares of the training rows in these columns, which encode values that have none.
    training_shares_ : ndarray of shape (3, `n_features_in_`)
        Shares of the training rows that are missing, infrequent and clipped, as in `report`.
    n_samples_seen_ : int
        Number of training rows.
    rare_levels_ : list of n_categories lists of str
        Levels of training rows that have no encoded column; none of a column with more than a
        thousand of them, which holds names.
    unseen_shares_ : ndarray of shape (n_categories,)
        Expected shares of rows with a level that no training row has.
    ordinary_surprise_ : ndarray of shape (2,)
        The surprise, in nats, that 95 % of the training rows do not exceed, each judged as if the
        others were the training rows: at gaps and unseen levels, and at numbers beyond the range.
    samples_ : ndarray of shape (16, n_features_out)
        Codes of sixteen values of each column, at equal distances of rank, shuffled by column: what
        an unknown cell may hold.
    column_map_ : ndarray of int of shape (n_features_out,)
        Index of the input column of each encoded column. An input column may have none: a category
        without any frequent level, say.

    Notes
    -----
    Scaling and bound are those of RealMLP (Holzmüller, Grinsztajn, Steinwart: Better by default,
    NeurIPS 2024): half the range replaces an interquartile range of zero. A constant column is
    encoded as zero, whatever its values are later; with ``gap_indicators="all"`` its indicator
    tells another value, as it tells a gap.

    A bound of 3 makes amounts in a long tail equal, nearly, that differ by factors. The inverse
    hyperbolic sine (Burbidge, Magee, Robb: Alternative transformations to handle extreme values of
    the dependent variable, JASA 83, 1988) is linear around the centre and far from it
    ``sign(z) · log(2 |z|)``, for zeros and negative numbers too. It is taken of columns with a
    value further from the centre than ten times their spread. Ranks keep values apart where there
    are many.

    A value is common that makes up more than 30 % of those that are not missing, in `min_frequency`
    training rows and two at least, among more than two values; of several the most frequent, then
    the smallest. The spread is that of the other values then: between their quartiles, or from the
    common value to their median if that is more.

    Text is read as numbers or truth values, with a warning, or as dates such as "2024-01-31", if
    all of it can be. Then "", "?", "na", "n/a", "nan", "none" and "null" are missing values. Digits
    after a zero, such as "0150", are categories. Times with a zone are converted to UTC, and cut to
    microseconds. Times of day are durations since midnight.

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
        gap_indicators: Literal["frequent", "all"] = "frequent",
        rank_share: float = 0.5,
    ) -> None:
        self.categorical_features = categorical_features
        self.min_frequency = min_frequency
        self.max_levels = max_levels
        self.clip = clip
        self.gap_indicators = gap_indicators
        self.rank_share = rank_share

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
            If a column holds values that are neither numbers, text, dates nor categories, or
            infinite numbers.

        Warns
        -----
        UserWarning
            If text is read as numbers, or most values of a column are encoded alike.
        """
        table = as_table(X)
        columns = read_columns(table)
        return self._learn(table, columns, self._kinds(columns))

    def fit_transform(
        self, X: Any, y: Any = None, *, rows: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Learn ranges, scales and levels of rows, and encode them.

        Parameters
        ----------
        X : data frame or array-like of shape (n_samples, n_features)
        y : None
            Not used.
        rows : ndarray of int, optional
            Which rows these are; all by default. The values of the others decide with them what the
            columns hold. No copy of the rows is made.

        Returns
        -------
        ndarray of shape (n_rows, n_features_out)
            As from `transform`.
        """
        table = as_table(X)
        columns = read_columns(table)
        kinds = self._kinds(columns)
        chosen = columns if rows is None else [column.at(rows) for column in columns]
        return self._learn(table, chosen, kinds)._encode(chosen)

    def _kinds(self, columns: list[Column]) -> NDArray[np.str_]:
        self._check_parameters()
        return find_kinds(columns, self.categorical_features)

    def _learn(self, table: Any, columns: list[Column], kinds: NDArray[np.str_]) -> Self:
        n_rows, is_numeric = len(columns[0]), are_numeric(kinds)
        order = np.random.default_rng(0)
        numeric = [*compress(columns, is_numeric)]
        surprise = np.zeros((2, n_rows))
        learnt = LearntNumbers.learn(
            numeric, kinds[is_numeric], surprise, self.min_frequency, order
        )
        numbers = learnt.statistics
        has_gaps = learnt.n_missing >= self.min_frequency
        if self.gap_indicators == "all":
            # A date that never changes tells nothing.
            has_gaps |= np.array([len(names) > 0 for names in learnt.parts], dtype=bool)
        categories = [*compress(columns, kinds == CATEGORY)]
        labels = [column.labels for column in categories]
        levels = [Levels.learn(*of_rows, self.min_frequency, self.max_levels) for of_rows in labels]
        shares = shares_of_rows(kinds, learnt.n_missing / n_rows, levels, categories)
        shares[0, kinds == EMPTY] = 1.0
        rare = [
            _support.RareLevels.learn(*of_rows, level.known)
            for level, of_rows in zip(levels, labels, strict=True)
        ]
        warn_of_losses(columns, kinds, shares, self.min_frequency, self.max_levels)
        # This raises, if at all, before it sets the number and names of the input columns.
        validate_data(self, table, skip_check_array=True)
        self.kinds_ = kinds
        self.parts_ = learnt.parts
        self.low_, self.high_, self.center_, self.scale_ = numbers[:4]
        self.is_long_tailed_ = numbers.is_long_tailed
        self.rank_numbers_, self.rank_scores_ = learnt.rank_numbers, learnt.rank_scores
        self.has_gaps_ = has_gaps
        self.continuous_ = np.flatnonzero(numbers.n_values > 2)
        self.known_levels_ = [column.known for column in levels]
        self.other_levels_ = [column.other for column in levels]
        self.level_shares_ = [column.share for column in levels]
        self.column_map_ = column_map(kinds, learnt.parts, has_gaps, levels)
        self.training_shares_ = shares
        self.n_samples_seen_ = n_rows
        self.rare_levels_ = [column.seen for column in rare]
        self.unseen_shares_ = np.array([column.unseen_share for column in rare], dtype=float)
        self.ordinary_surprise_ = _support.ordinary_surprise(surprise, labels, rare)
        self.samples_ = self._codes(learnt.samples, _support.sampled_labels(labels, order))
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
            If the columns differ from those in `fit`, a value cannot be read as what its column
            held there, or a number is infinite.
        """
        return self.transform_checked(self._checked(X))

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
            If a value cannot be read as what its column held in `fit`, or a number is infinite.
        """
        return self._encode(read_columns(table))

    def encode_gaps(self) -> NDArray[np.float32]:
        """Return the code of a row without any value.

        Returns
        -------
        ndarray of shape (n_features_out,)
            Where the encoded columns of a column have these values, its cell is missing.
        """
        check_is_fitted(self)
        n_numbers, n_indicators = len(self.center_), np.count_nonzero(self.has_gaps_)
        blocks = [np.zeros(n_numbers), np.ones(n_indicators)]
        for levels in self.levels_:
            blocks.append(levels.encode([None], np.zeros(1, dtype=np.int64))[0])
        return np.concatenate(blocks, dtype=np.float32)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Name the encoded columns.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the input columns. By default those seen in `fit`, or x0, x1, ….

        Returns
        -------
        ndarray of str objects of shape (n_features_out,)
            ``name`` for a number, ``name_month`` for a part of a date, ``name_missing`` for the
            indicator of missing values, and ``name_level`` for a level. Underscores are appended
            to a name until it is unique.
        """
        # This method of scikit-learn checks the fit and the names of the input columns.
        names = OneToOneFeatureMixin.get_feature_names_out(self, input_features)
        suffixes = [f"_{suffix}" if suffix else "" for suffix in self._suffixes()]
        return np.array(list(unique_names(names[self.column_map_] + suffixes)), dtype=object)

    @property
    def is_categorical_(self) -> NDArray[np.bool_]:
        """Mask of the columns of categories, of shape (`n_features_in_`,)."""
        return np.equal(self.kinds_, CATEGORY)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(without_maps(state, copied=True))  # They are small.

    def _check_parameters(self) -> None:
        for name in ("min_frequency", "max_levels"):
            value = getattr(self, name)
            if not (isinstance(value, Integral) and int(value) >= 1):
                raise ValueError(f"Got {name}={value!r}, but expected an integer >= 1.")
        if not (isinstance(self.clip, Real) and 0 < self.clip < np.inf):
            raise ValueError(f"Got clip={self.clip!r}, but expected a finite number > 0.")
        share = self.rank_share
        if not (isinstance(share, Real) and 0 <= share <= 1):
            raise ValueError(f"Got rank_share={share!r}, but expected a number in [0, 1].")
        given = self.gap_indicators
        if not (isinstance(given, str) and given in _GAP_INDICATORS):
            raise ValueError(
                f"Got gap_indicators={given!r}, but expected one of {list(_GAP_INDICATORS)}."
            )

    def _checked(self, X: Any) -> Any:
        check_is_fitted(self)
        table = as_table(X)
        validate_data(self, table, reset=False, skip_check_array=True)
        return table

    def _encode(self, columns: list[Column]) -> NDArray[np.float32]:
        parts = [*parts_of_rows(len(columns[0]), len(columns))]
        if len(parts) == 1:
            return self._encode_at_once(columns)
        encoded = np.empty((len(columns[0]), len(self.column_map_)), dtype=np.float32)
        for part in parts:
            encoded[part] = self._encode_at_once([column.at(part) for column in columns])
        return encoded

    def _encode_at_once(self, columns: list[Column]) -> NDArray[np.float32]:
        # Each column has a scale of its own, which numpy applies to values side by side.
        raw, categories = read_kinds(columns, self.kinds_, order="F")
        return self._codes(raw, [column.labels for column in categories])

    def _codes(self, raw: NDArray[np.float64], categories: list[Any]) -> NDArray[np.float32]:
        """Encode floats of numeric columns, and labels and codes of categories."""
        numbers = with_parts(raw, self.parts_)
        z = scaled(numbers, self.low_, self.high_, self.center_, self.scale_)
        bound = np.where(self.is_long_tailed_, LOGARITHMIC_CLIP * self.clip, self.clip)
        code = z.copy("K")
        for column in np.flatnonzero(self.is_long_tailed_):
            np.arcsinh(z[:, column], out=code[:, column])
        code /= np.hypot(1, code / bound)
        if self.rank_share:
            ranked = self.continuous_[~self.is_long_tailed_[self.continuous_]]
            score = rank_scores(z[:, ranked], self.rank_numbers_[ranked], self.rank_scores_[ranked])
            code[:, ranked] += self.rank_share * (score - code[:, ranked])
        unknown: NDArray[Any] = np.isnan(raw)
        # Only a network that was trained with gaps drawn at random knows what an indicator means.
        if self.gap_indicators == "all" and self.n_samples_seen_:
            is_beyond = (numbers < self.low_) | (numbers > self.high_)
            rows = np.flatnonzero(is_beyond.any(axis=1))
            if len(rows):  # Few, mostly.
                degree = _support.degree_of(self._distance(numbers[rows]))
                code[rows] *= 1 - np.repeat(degree, [len(names) for names in self.parts_], axis=1)
                unknown = unknown.astype(np.float32)
                unknown[rows] = np.maximum(unknown[rows], degree)
        blocks = [code, unknown[:, self.has_gaps_]]
        for levels, column in zip(self.levels_, categories, strict=True):
            blocks.append(levels.encode(*column))
        # Rows are wanted in the order of C, whatever the order of the blocks.
        encoded = np.empty((len(raw), sum(block.shape[1] for block in blocks)), dtype=np.float32)
        return np.concatenate(blocks, axis=1, out=encoded)

    def _suffixes(self) -> list[str]:
        """Return what is appended to the name of its input column, for each encoded column."""
        suffixes = [part for parts in self.parts_ for part in parts]
        suffixes += [MISSING] * int(self.has_gaps_.sum())
        return suffixes + [name for levels in self.levels_ for name in levels.columns]
