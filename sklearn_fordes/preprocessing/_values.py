"""What a single value of a table is: missing, a number, a date, a duration or a label."""

from __future__ import annotations

import datetime as dt
import math
import re
from decimal import Decimal
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
_NUMBER_AS_TEXT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DATE_AS_TEXT = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?", re.ASCII)
_GAPS_AS_TEXT = frozenset(["", "?", "na", "n/a", "nan", "none", "null"])


def kind_of(value: Any) -> str:
    """Return the kind of a value that is not missing."""
    return next((kind for kind, types in _TYPES if isinstance(value, types)), OTHER)


def is_missing(value: Any) -> bool:
    """Whether a hashable value is None, NA, NaT or NaN of any type."""
    return value is None or value is pd.NA or bool(value != value)


def is_code(text: Any) -> bool:
    """Whether text is digits after a zero, such as a postal code: a name and not a number."""
    return re.match(r"[+-]?0\d", _decoded(text).strip()) is not None


def number_of(value: Any) -> float:
    """Read a number, a truth value or text of a number; NaN for text that stands for a gap.

    Raises
    ------
    ValueError, TypeError or OverflowError
        If the value is something else, or infinite.
    """
    if kind_of(value) == TEXT:
        text = _decoded(value).strip()
        if text.lower() in _GAPS_AS_TEXT:
            return math.nan
        value = text if _NUMBER_AS_TEXT.fullmatch(text) else None
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
        if text.lower() in _GAPS_AS_TEXT:
            return math.nan
        if not _DATE_AS_TEXT.fullmatch(text):
            raise ValueError
        value = dt.datetime.fromisoformat(text)
    elif isinstance(value, np.datetime64):
        value = value.astype("M8[us]").item()
    elif isinstance(value, pd.Period):
        value = value.start_time
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day)
    if not isinstance(value, dt.datetime):
        raise TypeError
    return (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).timestamp()


def seconds_of(value: Any) -> float:
    """Read a duration, or a time of day as the duration since midnight.

    Raises
    ------
    TypeError
        If the value is something else.
    """
    if isinstance(value, np.timedelta64) and np.can_cast(value.dtype, "m8[us]"):
        value = value.astype("m8[us]").item()
    if isinstance(value, dt.time):
        return value.hour * 3600 + value.minute * 60 + value.second + value.microsecond / 1e6
    if not isinstance(value, dt.timedelta):
        raise TypeError
    return value.total_seconds()


def label_of(value: Any) -> str:
    """Name a level. Equal values have one name, in whatever type they come.

    True, 1, 1.0 and "1" are one level, and so are 0.1 in single and double precision, or a date
    and its midnight.

    Raises
    ------
    ValueError
        If the value has no text of its own.
    """
    kind = kind_of(value)
    if kind == TEXT:
        return _decoded(value)
    if kind == NUMBER:
        if isinstance(value, np.bool_ | Integral) or (math.isfinite(value) and value == int(value)):
            return str(int(value))
        return format(float(value), ".7g")
    if isinstance(value, np.datetime64):
        value = value.astype("M8[us]").item()
    if isinstance(value, dt.datetime):
        is_midnight = value.tzinfo is None and value.time() == dt.time()
        return str(value.date() if is_midnight else value)
    own_text: Any = type(value).__repr__
    if isinstance(value, complex) or own_text is object.__repr__:
        raise ValueError
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
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
