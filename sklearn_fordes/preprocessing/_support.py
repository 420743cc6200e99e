"""Which cells of a row the training rows say nothing of: missing, unseen, or beyond their range."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sklearn_fordes.preprocessing._columns import CATEGORY
from sklearn_fordes.preprocessing._layout import are_numeric
from sklearn_fordes.preprocessing._numbers import Statistics

# Labels of a column, None if missing, and the index of each row's label.
Labelled = tuple[list[str | None], NDArray[np.int64]]
# Why a cell has no support, by its code.
REASONS = ("", "missing", "unseen", "below", "above")
_MISSING, _UNSEEN, _BELOW, _ABOVE = range(1, 5)
# A number so many spreads beyond the training range is as good as missing by half.
HALFWAY = 3.0
# Values of each column that stand for it where its cell is unknown.
N_SAMPLES = 16
# A column with more infrequent levels holds names, of which a new one tells nothing.
_MOST_RARE_LEVELS = 1000
# Scaled numbers beyond it are as good as infinite.
_LARGEST = 1e150
# Share of the training rows whose surprise is ordinary.
_ORDINARY_SHARE = 0.95
_LEVELS = (np.arange(N_SAMPLES) + 0.5) / N_SAMPLES


class CellSupport(NamedTuple):
    """What rows have that the training rows had not; arrays of shape (n_samples, n_features_in).

    Parameters
    ----------
    reason : ndarray of int
        Index of `REASONS`; 0 for a cell like those of the training rows.
    degree : ndarray
        How far the cell is unknown, in [0, 1]: 1 if it is missing or unseen, and for a number d
        spreads beyond the training range ``d² / (d² + 9)``.
    surprise : ndarray
        The degree times −log of the share of training rows with such a cell, in nats.
    """

    reason: NDArray[np.int8]
    degree: NDArray[np.float64]
    surprise: NDArray[np.float64]

    @classmethod
    def of_known_cells(cls, n_rows: int, n_columns: int) -> CellSupport:
        """Return that of cells of which nothing is unknown."""
        shape = n_rows, n_columns
        return cls(np.zeros(shape, dtype=np.int8), np.zeros(shape), np.zeros(shape))


class RareLevels(NamedTuple):
    """What training rows say of levels that have no encoded column.

    Parameters
    ----------
    seen : list of str
        Levels of training rows, sorted; none if there are more than a thousand.
    new : set of str
        Those of one row alone, or all if there are more than a thousand.
    unseen_share : float
        Share of rows to come whose level no training row has. It is about that of the levels of one
        row alone (Good: The population frequencies of species, Biometrika 40, 1953).
    """

    seen: list[str]
    new: set[str]
    unseen_share: float

    @classmethod
    def learn(
        cls, labels: list[str | None], codes: NDArray[np.int64], known: list[str]
    ) -> RareLevels:
        """Return those of a column, given as labels and the index of each row's label.

        Parameters
        ----------
        labels : list of str or None
            None if missing.
        codes : ndarray of int of shape (n_samples,)
        known : list of str
            Levels with an encoded column.
        """
        count = Counter[str]()
        n_rows = np.bincount(codes, minlength=len(labels)).tolist()
        for label, n in zip(labels, n_rows, strict=True):
            if label is not None:
                count[label] += n
        rare = count.keys() - set(known)
        is_of_names = len(rare) > _MOST_RARE_LEVELS
        new = {label for label in count if count[label] == 1 or (is_of_names and label in rare)}
        n_new = sum(count[label] for label in new)
        return cls([] if is_of_names else sorted(rare), new, (n_new + 1) / (len(codes) + 1))


def overshoot(
    numbers: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    center: NDArray[np.float64],
    scale: NDArray[np.float64],
    is_long_tailed: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Return by how many spreads numbers lie above the training range, negative below it.

    Of long tails the distance is one of arsinh of the scaled numbers, as their code is.

    Parameters
    ----------
    numbers : ndarray of shape (n_samples, n_numbers)
        NaN where missing, which is nowhere beyond.
    low, high, center, scale, is_long_tailed : ndarray of shape (n_numbers,)
        As in `Statistics`.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        # Halves, since the difference of two numbers may be beyond double precision.
        z, lowest, highest = ((v / 2 - center / 2) * scale * 2 for v in (numbers, low, high))
        values = [np.where(is_long_tailed, np.arcsinh(v), v) for v in (z, lowest, highest)]
        z, lowest, highest = (np.clip(v, -_LARGEST, _LARGEST) for v in values)
    beyond = np.fmax(z - highest, 0) + np.fmin(z - lowest, 0)
    # A constant has no spread: another value is as far as can be.
    is_other = (scale == 0) & ((numbers < low) | (numbers > high))
    beyond[is_other] = np.where(numbers > high, _LARGEST, -_LARGEST)[is_other]
    return beyond


def degree_of(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far numbers are unknown that lie so many spreads beyond the training range."""
    share = np.abs(distance) / np.hypot(distance, HALFWAY)
    squared: NDArray[np.float64] = share**2
    return squared


def of_columns(distance: NDArray[np.float64], parts: list[list[str]]) -> NDArray[np.float64]:
    """Return the largest distance of the numbers that are made of a column.

    The sign is that of the last of them: time passes, but a date before the training range may be
    of a later month.
    """
    if all(names == [""] for names in parts):
        return distance
    result = np.zeros((len(distance), len(parts)))
    first = 0
    for column, names in enumerate(parts):
        block = distance[:, first : first + len(names)]
        if names:
            largest = np.abs(block).argmax(axis=1)[:, None]
            chosen = np.take_along_axis(block, largest, axis=1)[:, 0]
            is_inside = block[:, -1] == 0
            result[:, column] = np.where(is_inside, chosen, np.copysign(chosen, block[:, -1]))
        first += len(names)
    return result


def support_of(
    kinds: NDArray[np.str_],
    is_missing: NDArray[np.bool_],
    distance: NDArray[np.float64],
    categories: list[Labelled],
    seen: list[list[str]],
    *,
    missing_share: NDArray[np.float64],
    unseen_share: NDArray[np.float64],
    n_rows: int,
) -> CellSupport:
    """Return the support of the cells of a table.

    Parameters
    ----------
    kinds : ndarray of str of shape (n_features_in,)
    is_missing : ndarray of bool of shape (n_samples, n_numeric_columns)
    distance : ndarray of shape (n_samples, n_numeric_columns)
        From `of_columns`.
    categories : list of n_categories pairs
        Labels, and the index of each row's label.
    seen : list of n_categories lists of str
        Levels of the training rows.
    missing_share : ndarray of shape (n_features_in,)
        Shares of the training rows, as those of `unseen_share` of shape (n_categories,).
    n_rows : int
        Number of training rows.
    """
    support = CellSupport.of_known_cells(len(is_missing), len(kinds))
    nats = _nats(missing_share, n_rows)
    numeric, of_levels = are_numeric(kinds), np.flatnonzero(kinds == CATEGORY)
    degree = np.where(is_missing, 1.0, degree_of(distance))
    # The square of the smallest distances is zero, and a cell without a degree has no reason.
    is_beyond = [is_missing, (distance < 0) & (degree > 0), (distance > 0) & (degree > 0)]
    reason = np.select(is_beyond, [_MISSING, _BELOW, _ABOVE], 0)
    support.reason[:, numeric], support.degree[:, numeric] = reason, degree
    support.surprise[:, numeric] = degree * np.where(is_missing, nats[numeric], np.log(n_rows + 1))
    rows = zip(of_levels, categories, seen, unseen_share, strict=True)
    for column, (labels, codes), known, share in rows:
        names = set(known)
        of_labels = [_MISSING if v is None else 0 if v in names else _UNSEEN for v in labels]
        reason = np.array(of_labels, dtype=np.int8)[codes]
        support.reason[:, column], support.degree[:, column] = reason, reason > 0
        support.surprise[:, column] = np.array([0.0, nats[column], 0.0 - np.log(share)])[reason]
    return support


def surprise_of_rows(support: CellSupport, ordinary: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the surprise of rows (n_samples,), in nats, less what is ordinary in training rows.

    Parameters
    ----------
    support : CellSupport
    ordinary : ndarray of shape (2,)
        From `ordinary_surprise`.
    """
    is_beyond = support.reason >= _BELOW
    beyond = np.where(is_beyond, support.surprise, 0.0).sum(axis=1)
    others = np.where(is_beyond, 0.0, support.surprise).sum(axis=1)
    # Apart, since a number far beyond its range must not hide behind a row's usual gaps.
    surprise: NDArray[np.float64] = np.maximum(others - ordinary[0], 0.0)
    surprise += np.maximum(beyond - ordinary[1], 0.0)
    return surprise


def surprise_of_numbers(
    raw: NDArray[np.float64], distance: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the surprise of training rows at numeric columns, each row judged by the others.

    Parameters
    ----------
    raw : ndarray of shape (n_samples, n_numeric_columns)
    distance : ndarray of shape (n_samples, n_numeric_columns)
        From `distance_from_others` and `of_columns`.

    Returns
    -------
    ndarray of shape (2, n_samples)
        At gaps, and at numbers beyond the range.
    """
    n_rows, is_missing = len(raw), np.isnan(raw)
    gaps = is_missing @ _nats(is_missing.mean(axis=0), n_rows)
    return np.stack([gaps, degree_of(distance).sum(axis=1) * np.log(n_rows + 1)])


def ordinary_surprise(
    of_numbers: NDArray[np.float64], categories: list[Labelled], rare: list[RareLevels]
) -> NDArray[np.float64]:
    """Return the surprise that 95 % of the training rows do not exceed.

    Each is judged as if the others were the training rows: a level that it alone has is unseen, and
    a number beyond those of the others is beyond the range.

    Parameters
    ----------
    of_numbers : ndarray of shape (2, n_samples)
        From `surprise_of_numbers`, summed over columns.
    categories : list of n_categories pairs
        Labels, and the index of each row's label.
    rare : list of n_categories RareLevels

    Returns
    -------
    ndarray of shape (2,)
        At gaps and unseen levels, and at numbers beyond the range.
    """
    both = of_numbers.copy()
    n_rows = both.shape[1]
    for (labels, codes), column in zip(categories, rare, strict=True):
        is_missing = np.array([label is None for label in labels])
        is_new = np.array([label in column.new for label in labels])
        of_gap = _nats(is_missing[codes].mean(), n_rows)
        of_labels = np.where(is_new, -np.log(column.unseen_share), is_missing * of_gap)
        both[0] += of_labels[codes]
    ordinary: NDArray[np.float64] = np.quantile(both, _ORDINARY_SHARE, axis=1, method="higher")
    return ordinary


def distance_from_others(numbers: NDArray[np.float64], learnt: Statistics) -> NDArray[np.float64]:
    """Return by how many spreads each training value is beyond the range of the other rows.

    Parameters
    ----------
    numbers : ndarray of shape (n_samples, n_numbers)
        NaN where missing.
    learnt : Statistics
        Of these numbers.

    Returns
    -------
    ndarray of shape (n_samples, n_numbers)
        Not zero for the smallest and the largest value of a column, if one row alone has it.
    """
    distance = np.zeros_like(numbers)
    low, high = learnt.low, learnt.high
    second = np.where(numbers > low, numbers, np.inf).min(axis=0)
    last_but_one = np.where(numbers < high, numbers, -np.inf).max(axis=0)
    for end, inner_low, inner_high in ((low, second, high), (high, low, last_but_one)):
        is_end = numbers == end
        is_alone = (is_end.sum(axis=0) == 1) & np.isfinite(inner_low) & np.isfinite(inner_high)
        columns = np.flatnonzero(is_alone)
        beyond = overshoot(
            end[None, columns],
            inner_low[columns],
            inner_high[columns],
            learnt.center[columns],
            learnt.scale[columns],
            learnt.is_long_tailed[columns],
        )
        distance[is_end[:, columns].argmax(axis=0), columns] = beyond[0]
    return distance


def _nats(share: NDArray[np.float64] | np.float64, n_rows: int) -> NDArray[np.float64]:
    """Return the surprise of what has a share of so many training rows, and of one row more."""
    # Zero minus a logarithm of one is zero, of which the negative would be printed with its sign.
    nats: NDArray[np.float64] = 0.0 - np.log((np.nan_to_num(share) * n_rows + 1) / (n_rows + 1))
    return nats


def sampled_numbers(raw: NDArray[np.float64], order: np.random.Generator) -> NDArray[np.float64]:
    """Return `N_SAMPLES` values of each numeric column, at equal distances of rank.

    Their order is shuffled by column, so that no row is one of the training rows. Missing values
    are left out, but of a column that has no other.

    Parameters
    ----------
    raw : ndarray of shape (n_samples, n_numeric_columns)
    order : numpy.random.Generator
        Shuffles the values, those of `sampled_labels` after these.
    """
    numbers = np.full((N_SAMPLES, raw.shape[1]), np.nan)
    for index, column in enumerate(raw.T):
        known = column[~np.isnan(column)]
        if len(known):
            numbers[:, index] = np.quantile(known, _LEVELS, method="inverted_cdf")
            order.shuffle(numbers[:, index])
    return numbers


def sampled_labels(categories: list[Labelled], order: np.random.Generator) -> list[Labelled]:
    """Return `N_SAMPLES` labels of each column, as `sampled_numbers` does for numbers.

    Parameters
    ----------
    categories : list of pairs
        Labels, and the index of each row's label.
    order : numpy.random.Generator
    """
    sampled = []
    for labels, codes in categories:
        count = np.bincount(codes, minlength=len(labels))
        # In the order of the labels, so that the order of the rows changes nothing.
        known_codes = sorted(
            (code for code, label in enumerate(labels) if label is not None),
            key=lambda code: str(labels[code]),
        )
        drawn = np.zeros(N_SAMPLES, dtype=np.int64)  # There is no label but None.
        if known_codes:
            total = count[known_codes].cumsum()
            drawn = np.take(known_codes, np.searchsorted(total, _LEVELS * total[-1]))
            order.shuffle(drawn)
        sampled.append((labels, drawn))
    return sampled
