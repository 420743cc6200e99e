"""Numbers that are made of columns of numbers, dates and durations, and their statistics."""

from __future__ import annotations

from itertools import compress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# A value in a larger share of the rows is the centre of its column, and its own spread is not
# counted.
_COMMON_SHARE = 0.3
# A column whose values lie further from its centre, in units of its spread, has a long tail.
_LONGEST_TAIL = 10.0
DATE_PARTS = ("year", "month", "weekday", "hour", "elapsed")


class Statistics(NamedTuple):
    """What training rows say of columns of numbers; each an array of shape (n_numbers,)."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    center: NDArray[np.float64]
    scale: NDArray[np.float64]
    is_long_tailed: NDArray[np.bool_]
    n_values: NDArray[np.int64]


def statistics(numbers: NDArray[np.float64]) -> Statistics:
    """Return minimum, maximum, centre, scale, whether there are long tails, and how many values.

    The centre is the median, and the scale the inverse of the spread between the quartiles. If one
    value is common (a zero, mostly), it is the centre, and the other values alone have a spread:
    that of their quartiles, or the distance of their median from the centre if that is more.
    Quantiles are those of `numpy.quantile`, of the values that are not missing.
    """
    # In units of the largest value, no difference of two values overflows.
    unit = np.nanmax(np.abs(numbers), axis=0, initial=0.0)
    unit[unit == 0] = 1.0
    ordered = np.sort(numbers / unit, axis=0)  # NaN comes last.
    last = np.count_nonzero(~np.isnan(ordered), axis=0) - 1
    ordered[:, last < 0] = last[last < 0] = 0  # Without any value a column is a constant.

    def quantile(level: float) -> NDArray[np.float64]:
        position = level * last
        below = position.astype(int)
        part = position - below
        columns = np.arange(len(last))
        a, b = ordered[below, columns], ordered[np.minimum(below + 1, last), columns]
        between: NDArray[np.float64] = np.where(
            part < 0.5, a + (b - a) * part, b - (b - a) * (1 - part)
        )
        return between

    low, first, center, third, high = map(quantile, (0.0, 0.25, 0.5, 0.75, 1.0))
    spread = np.where(third > first, third - first, (high - low) / 2)
    n_values = 1 + np.count_nonzero(np.diff(ordered, axis=0) > 0, axis=0)
    is_long_tailed = np.maximum(high - center, center - low) > _LONGEST_TAIL * spread
    for column in np.flatnonzero(n_values > 2):
        common = _common_value(ordered[: last[column] + 1, column])
        if common is not None:
            center[column], spread[column] = common
            is_long_tailed[column] = True
    half_spread = unit * (spread / 2)
    # A column that hardly varies is constant: it carries no information.
    scale = np.zeros_like(unit)
    np.divide(0.5, half_spread, out=scale, where=half_spread > np.finfo(np.float64).tiny / 2)
    return Statistics(unit * low, unit * high, unit * center, scale, is_long_tailed, n_values)


def _common_value(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return the common one of sorted values, if there is one, and the spread of the others."""
    starts = np.flatnonzero(np.diff(values, prepend=-np.inf) > 0)
    counts = np.diff(starts, append=len(values))
    most = counts.argmax()
    if counts[most] <= _COMMON_SHARE * len(values):
        return None
    value = float(values[starts[most]])
    others = np.delete(values, slice(starts[most], starts[most] + counts[most]))
    first, middle, third = np.quantile(others, [0.25, 0.5, 0.75])
    return value, float(max(third - first, abs(middle - value)))


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
