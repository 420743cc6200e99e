"""The columns of a table: what each holds, and its rows as numbers or as labels."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from copy import copy
from functools import cached_property
from itertools import compress
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sklearn_fordes.preprocessing._values import (
    DATE,
    DURATION,
    MOST_DAYS,
    NUMBER,
    TEXT,
    is_code,
    is_gap,
    is_missing,
    kind_of,
    label_of,
    number_of,
    seconds_of,
    seconds_since_1970,
    shown,
)

# A column may also hold categories; one without any value in training is empty.
CATEGORY, EMPTY = "category", "empty"
_READERS: dict[str, tuple[Callable[[Any], float], str]] = {
    NUMBER: (number_of, "finite numbers or gaps"),
    DATE: (
        seconds_since_1970,
        "gaps or dates of the years 1 to 9999, such as 2024-01-31: pandas.to_datetime reads others",
    ),
    DURATION: (seconds_of, "durations"),
}

# Types of columns of pandas that are arrays of numbers, and those whose values Python reads.
_PLAIN = frozenset(np.dtype(code) for code in "?bhilqBHILQfd")
_LISTED = (pd.CategoricalDtype, pd.StringDtype, pd.DatetimeTZDtype)


def read_columns(table: Any) -> list[Column]:
    """Return the columns of a table, named by the frame or by their position in the array.

    Parameters
    ----------
    table : data frame or ndarray of shape (n_samples, n_features)
        As `as_table` returns it.
    """
    if isinstance(table, np.ndarray):
        return [Column(position, values) for position, values in enumerate(table.T)]
    # Without a wrapper for each column, which takes longer than a few rows themselves. Columns of
    # one name are refused below.
    if isinstance(table, pd.DataFrame) and table.columns.is_unique:
        dtypes = table.dtypes.tolist()
        if all(map(_is_read_directly, dtypes)):
            columns = zip(dtypes, table.items(), strict=True)
            return [
                Column(name, values.to_numpy() if dtype in _PLAIN else values)
                for dtype, (name, values) in columns
            ]
    return [Column(values.name, values) for values in nw.from_native(table).iter_columns()]


def _is_read_directly(dtype: Any) -> bool:
    is_listed = dtype.kind in "OmM" if isinstance(dtype, np.dtype) else isinstance(dtype, _LISTED)
    return is_listed or dtype in _PLAIN


class Column:
    """A column of a table.

    Its type in the container decides little: what it holds is found from all of its values, and
    how later rows are read from what it held in training.

    Parameters
    ----------
    name : str or int
    values : narwhals series, pandas series or ndarray of shape (n_samples,)
        A series of pandas holds no numbers, if its type is to be believed.
    """

    def __init__(self, name: Any, values: Any) -> None:
        self.name = name.item() if isinstance(name, np.generic) else name
        self._values, self._n_rows = values, len(values)
        self._rows: Any = None  # Indices of those that are its own, if others are there too.
        if isinstance(values, np.ndarray):
            self._has_numeric_type, self._has_category_type = values.dtype.kind in "biuf", False
        elif isinstance(values, pd.Series):
            self._has_numeric_type = False
            self._has_category_type = isinstance(values.dtype, pd.CategoricalDtype)
        else:
            dtype = values.dtype
            self._has_numeric_type = dtype.is_numeric() or dtype == nw.Boolean
            self._has_category_type = dtype in (nw.Categorical, nw.Enum)

    def __len__(self) -> int:
        return self._n_rows

    def at(self, rows: slice | NDArray[np.int64]) -> Column:
        """Return some rows of the column. Values that are no plain numbers are read only once."""
        part = copy(self)
        vars(part).pop("labels", None)
        if self._has_numeric_type:
            vars(part).pop("_distinct", None)
            # They are taken when they are read, so that no copy of the column is kept.
            part._rows = rows if self._rows is None else self._rows[rows]
            part._n_rows = len(range(self._n_rows)[rows]) if isinstance(rows, slice) else len(rows)
            return part
        distinct, codes = self._distinct
        codes = codes[rows]
        is_present = np.zeros(len(distinct), dtype=bool)
        is_present[codes] = True
        # In place of what the property would read.
        part._distinct = [*compress(distinct, is_present)], (np.cumsum(is_present) - 1)[codes]
        part._n_rows = len(codes)
        return part

    @property
    def _own_values(self) -> Any:
        return self._values if self._rows is None else self._values[self._rows]

    @property
    def has_numeric_type(self) -> bool:
        """Whether the container says that all values are numbers, truth values or gaps."""
        return bool(self._has_numeric_type)

    def find_kind(self) -> str:
        """Decide what the column holds: numbers, dates, durations, categories or nothing.

        Text is numbers or dates if all of it reads so. Digits after a zero are names.
        """
        if self._has_numeric_type:
            return EMPTY if np.isnan(self.floats(NUMBER)).all() else NUMBER
        kinds = {kind_of(value) for value in self._present}
        if not kinds:
            return EMPTY
        if self._has_category_type:
            return CATEGORY
        for kind in _READERS:
            if kinds == {kind} or (kinds <= {kind, TEXT} and self._text_reads_as(kind)):
                return kind
        return CATEGORY

    def has_text(self) -> bool:
        """Whether some values are text, of numbers perhaps."""
        return not self._has_numeric_type and any(kind_of(v) == TEXT for v in self._present)

    def floats(self, kind: str, *, is_checked: bool = True) -> NDArray[np.float64]:
        """Return numbers, seconds since 1970 (UTC) or seconds, NaN where missing.

        Parameters
        ----------
        kind : str
            What the column held in training.
        is_checked : bool, default=True
            Whether infinite numbers are looked for, if the column's type allows some.

        Returns
        -------
        ndarray of shape (n_samples,)

        Raises
        ------
        ValueError
            If a value is of another kind, or infinite.
        """
        if not (kind == NUMBER and self._has_numeric_type):
            distinct, codes = self._distinct
            return np.array([self._read(value, kind) for value in distinct])[codes]
        numbers = self._floats_of_type()
        if is_checked and np.isinf(numbers).any():
            raise ValueError(
                f"Got infinity in column {self.name!r}, but expected finite numbers or gaps."
            )
        return numbers

    @cached_property
    def labels(self) -> tuple[list[str | None], NDArray[np.int64]]:
        """Labels, None for missing values, and the index of each row's label.

        Raises
        ------
        ValueError
            If a value has no text of its own.
        """
        distinct, codes = self._distinct
        # As an array of strings, every label would take the memory of the longest.
        return [None if value is None else self._label(value) for value in distinct], codes

    def _floats_of_type(self) -> NDArray[np.float64]:
        values = self._own_values
        if isinstance(values, np.ndarray):
            return values.astype(np.float64)
        try:
            floats: NDArray[np.float64] = values.cast(nw.Float64).to_numpy()
        except ValueError:  # Arrow refuses to round integers, which others do.
            distinct, codes = self._distinct
            floats = np.array([self._read(value, NUMBER) for value in distinct])[codes]
        return floats

    @property
    def _present(self) -> list[Any]:
        return [value for value in self._distinct[0] if value is not None]

    @cached_property
    def _distinct(self) -> tuple[list[Any], NDArray[np.int64]]:
        """Return distinct values, None if missing, and the index of each row's value."""
        known = _distinct_text_of_arrow(self._own_values)
        if known is not None:
            return known
        try:
            values = self._listed()
        except (OverflowError, ValueError) as error:
            raise ValueError(
                f"Got values in column {self.name!r} that Python can't hold ({error}), but "
                "expected dates of the years 1 to 9999 or durations of as many days."
            ) from error
        position: dict[Hashable, int] = {}
        try:
            codes = [position.setdefault(value, len(position)) for value in values]
        except TypeError as error:
            raise ValueError(
                f"Got values in column {self.name!r} that can't be compared ({error}), but "
                "expected numbers, text, dates or categories."
            ) from error
        distinct = [None if is_missing(value) else value for value in position]
        return distinct, np.array(codes, dtype=np.int64)

    def _listed(self) -> list[Any]:
        values = self._own_values
        listed: list[Any]
        if not isinstance(values, np.ndarray):
            listed = values.to_list()
            return listed
        if values.dtype.kind in "mM":
            of_years, known = values.dtype.kind == "M", ~np.isnat(values)
            # Coarse units hold more than fine ones, and numpy does not say so.
            size = values[known].astype("M8[Y]" if of_years else "m8[D]").astype(np.int64)
            low, high = (1 - 1970, 9999 - 1970) if of_years else (-MOST_DAYS, MOST_DAYS)
            if ((size < low) | (size > high)).any():
                raise OverflowError(f"{values[known][(size < low) | (size > high)][0]}")
            # Finer units than microseconds would come as integers.
            values = values.astype(f"{values.dtype.kind}8[us]")
        listed = values.tolist()
        return listed

    def _text_reads_as(self, kind: str) -> bool:
        present = [value for value in self._present if not is_gap(value)]
        texts = [value for value in present if kind_of(value) == TEXT]
        if kind == NUMBER and any(map(is_code, texts)):
            return False
        try:
            for text in texts:
                _READERS[kind][0](text)
        except (ValueError, TypeError, OverflowError):
            return False
        return bool(present)  # Text that only stands for gaps says nothing of the kind.

    def _read(self, value: Any, kind: str) -> float:
        read, expected = _READERS[kind]
        try:
            return np.nan if value is None or is_gap(value) else read(value)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(
                f"Got {shown(value)} in column {self.name!r}, but expected {expected}."
            ) from error

    def _label(self, value: Any) -> str:
        try:
            return label_of(value)
        except (ValueError, OverflowError) as error:
            raise ValueError(
                f"Got {shown(value)} in column {self.name!r}, but expected numbers, text, dates "
                "or categories."
            ) from error


def _distinct_text_of_arrow(values: Any) -> tuple[list[Any], NDArray[np.int64]] | None:
    """Return distinct texts and their codes as Arrow counts them, in a quarter of Python's time.

    None of what is no column of text in Arrow's memory.
    """
    native = nw.to_native(values, pass_through=True)
    if str(getattr(native, "type", "")) not in ("string", "large_string"):
        return None
    # In one chunk, since Arrow joins no dictionaries in which something is missing.
    coded = native.combine_chunks().dictionary_encode(null_encoding="encode")
    chunks = getattr(coded, "chunks", [coded])
    if not chunks:
        return [], np.empty(0, dtype=np.int64)
    return chunks[0].dictionary.to_pylist(), chunks[0].indices.to_numpy().astype(np.int64)
