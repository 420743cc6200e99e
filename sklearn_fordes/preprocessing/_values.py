"""What a single value of a table is: missing, a number, a date, a duration or a label."""

from __future__ import annotations

import datetime as dt
import math
import re
from decimal import Decimal
from functools import cache
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd

NUMBER, DATE, DURATION, TEXT, OTHER = "number", "date", "duration", "text", "other"
# numpy counts its durations as integers, so that they come before numbers.
_TYPES: list[tuple[str, Any]] = [
    (DURATION, (np.timedelta64, dt.timedelta, dt.time)),
    (DATE, (np.datetime64, dt.date, pd.Period)),
    (NUMBER, (np.bool_, Real, Decimal)),
    (TEXT, (str, bytes)),
]
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
# Of durations that microseconds can count.
MOST_DAYS = 10**8
_NUMBER_AS_TEXT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DATE_AS_TEXT = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?", re.ASCII)
_TRUTH_AS_TEXT = {"true": 1.0, "false": 0.0}
_GAPS_AS_TEXT = frozenset(["", "?", "na", "n/a", "nan", "none", "null"])


def kind_of(value: Any) -> str:
    """Return the kind of a value that is not missing."""
    type_: Any = type(value)
    return _kind_of_type(type_)


@cache
def _kind_of_type(type_: type) -> str:
    return next((kind for kind, types in _TYPES if issubclass(type_, types)), OTHER)


def is_missing(value: Any) -> bool:
    """Whether a hashable value is None, NA, NaT or NaN of any type."""
    return value is None or value is pd.NA or bool(value != value)


def is_code(text: Any) -> bool:
    """Whether text is digits after a zero, such as a postal code: a name and not a number."""
    return re.match(r"[+-]?0\d", _decoded(text).strip()) is not None


def is_gap(value: Any) -> bool:
    """Whether text stands for a missing value, where the rest of a column are numbers or dates."""
    return kind_of(value) == TEXT and _decoded(value).strip().lower() in _GAPS_AS_TEXT


def number_of(value: Any) -> float:
    """Read a number, a truth value, or text of one.

    Raises
    ------
    ValueError, TypeError or OverflowError
        If the value is something else, or infinite.
    """
    if kind_of(value) == TEXT:
        text = _decoded(value).strip()
        known = _TRUTH_AS_TEXT.get(text.lower())
        value = text if known is None and _NUMBER_AS_TEXT.fullmatch(text) else known
    elif kind_of(value) != NUMBER:
        value = None
    number = float(value)
    if math.isinf(number):
        raise OverflowError
    return number


def seconds_since_1970(value: Any) -> float:
    """Read a date, with or without a time of day, or text of one in ISO 8601.

    Times with a zone are converted to UTC.

    Raises
    ------
    ValueError, TypeError or OverflowError
        If the value is something else, or before the year 1 or after 9999.
    """
    if kind_of(value) == TEXT:
        text = _decoded(value).strip()
        if not _DATE_AS_TEXT.fullmatch(text):
            raise ValueError
        value = dt.datetime.fromisoformat(text)
    elif isinstance(value, np.datetime64):
        value = value.astype("M8[us]").item()
    elif isinstance(value, pd.Period):
        value = value.start_time
    if isinstance(value, pd.Timestamp):
        value = value.to_pydatetime(warn=False)  # Other types have no nanoseconds.
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day)
    if not isinstance(value, dt.datetime):
        raise TypeError
    return (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).timestamp()


def seconds_of(value: Any) -> float:
    """Read a duration, or a time of day as the duration since midnight.

    Raises
    ------
    TypeError or OverflowError
        If the value is something else, or longer than 10⁸ days.
    """
    if isinstance(value, pd.Timedelta):
        value = value.to_timedelta64()
    if isinstance(value, np.timedelta64):
        if abs(value.astype("m8[D]").astype(np.int64)) > MOST_DAYS:
            raise OverflowError  # In finer units numpy would wrap it around.
        value = value.astype("m8[us]").item()  # Python has no finer ones.
    if isinstance(value, dt.time):
        return value.hour * 3600 + value.minute * 60 + value.second + value.microsecond / 1e6
    if not isinstance(value, dt.timedelta):
        raise TypeError
    return value.total_seconds()


def label_of(value: Any) -> str:
    """Name a level. Equal values have one name, in whatever type they come.

    True, 1, 1.0 and "1" are one level, and so are 0.1 in single and double precision, a date and
    its midnight, one moment in two zones, or (1, 2) and (1.0, 2.0).

    Raises
    ------
    ValueError or OverflowError
        If the value has no text of its own.
    """
    kind = kind_of(value)
    if kind == TEXT:
        return _decoded(value)
    if kind == NUMBER:
        return _label_of_number(value)
    if kind == DURATION:
        return f"{_label_of_number(seconds_of(value))} s"
    if kind == DATE and not isinstance(value, pd.Period):
        return _label_of_date(value)
    if isinstance(value, pd.Interval):
        ends = f"{label_of(value.left)}, {label_of(value.right)}"
        left = "[" if value.closed_left else "("
        return f"{left}{ends}{']' if value.closed_right else ')'}"
    if isinstance(value, tuple | frozenset):
        parts = [label_of(part) for part in value]
        return f"({', '.join(parts if isinstance(value, tuple) else sorted(parts))})"
    own_text: Any = type(value).__repr__
    if isinstance(value, complex) or callable(value) or own_text is object.__repr__:
        raise ValueError
    return str(value)


def _label_of_number(value: Any) -> str:
    if isinstance(value, np.bool_ | Integral) or (math.isfinite(value) and value == int(value)):
        return str(int(value))
    number = float(value)
    with np.errstate(over="ignore"):
        single = np.float32(number)
    return str(single) if single == number else repr(number)


def _label_of_date(value: Any) -> str:
    if isinstance(value, np.datetime64):
        value = value.astype("M8[us]").item()
    elif isinstance(value, pd.Timestamp):
        value = value.to_pydatetime(warn=False)  # No other type has nanoseconds.
    if isinstance(value, dt.datetime):
        if value.tzinfo:
            value = value.astimezone(dt.UTC)
        elif value.time() == dt.time():
            value = value.date()
    return str(value)


def shown(value: Any) -> str:
    """Show a value in an error, however long it is."""
    try:
        text = repr(value)
    except ValueError:  # An integer of more digits than Python writes.
        return f"an integer of {value.bit_length()} bits"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _decoded(value: Any) -> str:
    """Return text as a plain string."""
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    # Members of an enumeration of text have other words for str().
    return str.__str__(value)
