"""Numbers that are made of columns of numbers, dates and durations, and their statistics."""

from __future__ import annotations

from itertools import compress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# A value that is a larger share of a column's values is its centre, and the others have the spread.
_COMMON_SHARE = 0.3
# A column whose values lie further from its centre, in units of its spread, has a long tail.
_LONGEST_TAIL = 10.0
# Scaled numbers beyond it are as good as infinite, which no bound could be computed of.
_LARGEST = 1e150
DATE_PARTS = ("year", "month", "weekday", "hour", "elapsed")


class Statistics(NamedTuple):
    """What training rows say of columns of numbers; each an array of shape (n_numbers,)."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    center: NDArray[np.float64]
    scale: NDArray[np.float64]
    is_long_tailed: NDArray[np.bool_]
    n_values: NDArray[np.int64]


def statistics(numbers: NDArray[np.float64], min_frequency: int) -> Statistics:
    """Return minimum, maximum, centre, scale, whether there are long tails, and how many values.

    The centre is the median, and the scale the inverse of the spread between the quartiles, or of
    half the range if that is zero. If one value is common (a zero, mostly), it is the centre, and
    the other values alone have a spread: that of their quartiles, or the distance of their median
    from the centre if that is more. Quantiles are those of `numpy.quantile`, of the values that
    are not missing.

    Parameters
    ----------
    numbers : ndarray of shape (n_samples, n_numbers)
        NaN where missing.
    min_frequency : int
        A value in fewer rows is not common.

    Returns
    -------
    Statistics
        They do not depend on the order of the rows.
    """
    # In units of the largest value, no difference of two values overflows. The units are powers of
    # two, which round nothing: a common value is its centre exactly.
    largest = np.fmax.reduce(np.abs(numbers), axis=0, initial=0.0)
    unit = np.where(largest > 0, np.ldexp(1.0, np.frexp(largest)[1] - 1), 1.0)
    # A column becomes a row, whose values lie side by side in memory. NaN comes last.
    ordered = np.divide(numbers.T, unit[:, None], order="C")
    ordered.sort(axis=1)
    size = np.count_nonzero(~np.isnan(ordered), axis=1)
    ordered[size == 0] = 0.0  # Without any value a column is a constant.
    size = np.maximum(size, 1)
    n_values = 1 + np.count_nonzero(ordered[:, 1:] > ordered[:, :-1], axis=1)
    # One row in three is a large share and says nothing: as a level, a value needs some rows.
    least = np.maximum(np.floor(_COMMON_SHARE * size).astype(int) + 1, max(min_frequency, 2))
    value, start, count = _most_common(ordered, size, least)
    # With two values, one of them is always common.
    is_common = (count >= least) & (n_values > 2)
    count = np.where(is_common, count, 0)
    columns = np.arange(len(ordered))

    def at(index: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return one value of each column, counted without the common ones."""
        found: NDArray[np.float64] = ordered[columns, np.where(index < start, index, index + count)]
        return found

    def quantile(level: float) -> NDArray[np.float64]:
        last = size - count - 1
        position = level * last
        below = position.astype(int)
        part = position - below
        a, b = at(below), at(np.minimum(below + 1, last))
        between: NDArray[np.float64] = np.where(
            part < 0.5, a + (b - a) * part, b - (b - a) * (1 - part)
        )
        return between

    low, high = ordered[:, 0], ordered[columns, size - 1]
    first, middle, third = map(quantile, (0.25, 0.5, 0.75))
    center = np.where(is_common, value, middle)
    without_quartiles = np.where(is_common, 0.0, (high - low) / 2)
    spread = np.where(third > first, third - first, without_quartiles)
    spread = np.maximum(spread, np.abs(middle - center))
    farthest = np.maximum(high - center, center - low)
    half_spread = unit * (spread / 2)
    # A column that hardly varies is constant: it carries no information.
    scale = np.zeros_like(unit)
    np.divide(0.5, half_spread, out=scale, where=half_spread > np.finfo(np.float64).tiny / 2)
    return Statistics(
        low=unit * low,
        high=unit * high,
        center=unit * center,
        scale=scale,
        is_long_tailed=is_common | (farthest > _LONGEST_TAIL * spread),
        n_values=n_values,
    )


def scaled(
    numbers: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    center: NDArray[np.float64],
    scale: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return numbers clipped to a range, centred and scaled; zero where they are missing.

    Parameters
    ----------
    numbers : ndarray of shape (n_samples, n_numbers)
        NaN where missing.
    low, high, center, scale : ndarray of shape (n_numbers,)
        As in `Statistics`.

    Returns
    -------
    ndarray of shape (n_samples, n_numbers)
        Finite.
    """
    clipped = np.where(np.isnan(numbers), center, numbers).clip(low, high)
    # Halves, since the difference of two numbers may be beyond double precision.
    with np.errstate(over="ignore"):
        z: NDArray[np.float64] = (clipped / 2 - center / 2) * scale * 2
    return z.clip(-_LARGEST, _LARGEST, out=z)


def _most_common(
    ordered: NDArray[np.float64], size: NDArray[np.int64], least: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return a value of each sorted row, the place of the first one like it, and their number.

    It is the most common value if that occurs `least` times, the smallest of those equally common.
    """
    rows = np.arange(len(ordered))
    value, count = np.zeros(len(ordered)), np.zeros_like(size)
    # So many equal values in a row of sorted ones are at one of these places at least.
    for multiple in range(1, int(1 / _COMMON_SHARE) + 1):
        candidate = ordered[rows, np.minimum(multiple * least, size) - 1]
        n_equal = np.count_nonzero(ordered == candidate[:, None], axis=1)
        value = np.where(n_equal > count, candidate, value)
        count = np.maximum(n_equal, count)
    return value, np.count_nonzero(ordered < value[:, None], axis=1), count


def with_parts(raw: NDArray[np.float64], parts: list[list[str]]) -> NDArray[np.float64]:
    """Return the numbers that are made of columns of floats, of shape (n_samples, n_numbers)."""
    if all(names == [""] for names in parts):
        return raw
    blocks = []
    for column, names in zip(raw.T, parts, strict=True):
        if names == [""]:
            blocks.append(column[:, None])
        else:
            blocks.append(_date_parts(column)[:, [DATE_PARTS.index(name) for name in names]])
    return np.concatenate(blocks, axis=1)


def _date_parts(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return parts of dates of shape (n_samples, 5), NaN where missing."""
    is_missing = np.isnan(seconds)
    known = np.where(is_missing, 0, seconds)
    day, seconds_of_day = np.divmod(known, 86400)
    months = day.astype("M8[D]").astype("M8[M]").astype(np.int64)
    parts = [months // 12 + 1970, months % 12 + 1, (day + 3) % 7]
    parts += [seconds_of_day / 3600, known / 86400]
    stacked: NDArray[np.float64] = np.stack(parts, axis=1)
    stacked[is_missing] = np.nan
    return stacked


def varying_parts(seconds: NDArray[np.float64]) -> list[str]:
    """Return the names of the parts of a date that have several values."""
    parts = _date_parts(seconds[~np.isnan(seconds)])
    return list(compress(DATE_PARTS, (parts != parts[:1]).any(axis=0)))
