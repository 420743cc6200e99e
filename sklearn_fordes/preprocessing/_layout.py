"""Which encoded columns come from which column, and what of the rows they tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sklearn_fordes.preprocessing._columns import CATEGORY, EMPTY, Column
from sklearn_fordes.preprocessing._levels import Levels
from sklearn_fordes.preprocessing._numbers import with_parts


def are_numeric(kinds: NDArray[np.str_]) -> NDArray[np.bool_]:
    return ~np.isin(kinds, [CATEGORY, EMPTY])


def read_kinds(
    columns: list[Column],
    kinds: NDArray[np.str_],
    n_rows: int | None = None,
    order: Literal["C", "F"] = "C",
) -> tuple[NDArray[np.float64], list[Column]]:
    """Return floats of shape (n_samples, n_numeric_columns), and the columns of categories.

    The number of rows is that of the columns, unless there may be none. In the order "F" a column's
    values lie side by side in memory.
    """
    numeric, categories = [], []
    # Plain text is compared in less time than numpy's.
    for column, kind in zip(columns, kinds.tolist(), strict=True):
        if kind == CATEGORY:
            categories.append(column)
        elif kind != EMPTY:
            numeric.append((column, kind))
    raw = np.empty((len(columns[0]) if n_rows is None else n_rows, len(numeric)), order=order)
    for index, (column, kind) in enumerate(numeric):
        raw[:, index] = column.floats(kind, is_checked=False)
    if np.isinf(raw).any():  # One check of all columns, and then one of each, to name the first.
        for column, kind in numeric:
            column.floats(kind)
    return raw, categories


def are_clipped(
    raw: NDArray[np.float64],
    parts: list[list[str]],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Return whether values, or parts of dates, are outside a range, in the shape of `raw`."""
    numbers = with_parts(raw, parts)
    owner = np.repeat(np.arange(raw.shape[1]), [len(names) for names in parts])
    is_clipped = np.zeros(raw.shape, dtype=bool)
    rows, columns = np.nonzero((numbers < low) | (numbers > high))
    is_clipped[rows, owner[columns]] = True
    return is_clipped


def shares_of_rows(
    kinds: NDArray[np.str_],
    missing_share: NDArray[np.float64],
    levels: list[Levels],
    categories: list[Column],
) -> NDArray[np.float64]:
    """Return shares of rows, of shape (3, n_features_in): missing, infrequent and zeros.

    Those of numeric columns that are missing are given.
    """
    shares = np.where(kinds == EMPTY, [[np.nan], [0.0], [0.0]], 0.0)
    shares[0, are_numeric(kinds)] = missing_share
    shares[:2, kinds == CATEGORY] = np.reshape(
        [level.shares_of(*column.labels) for level, column in zip(levels, categories, strict=True)],
        (-1, 2),
    ).T
    return shares


def column_map(
    kinds: NDArray[np.str_],
    parts: list[list[str]],
    has_gaps: NDArray[np.bool_],
    levels: list[Levels],
) -> NDArray[np.int64]:
    """Return the index of the input column of each encoded column."""
    numeric = np.flatnonzero(are_numeric(kinds))
    n_parts = np.array([len(names) for names in parts], dtype=int)
    n_levels = np.array([len(column.share) for column in levels], dtype=int)
    of_levels = np.repeat(np.flatnonzero(kinds == CATEGORY), n_levels)
    return np.concatenate([np.repeat(numeric, n_parts), numeric[has_gaps], of_levels])


def unique_names(names: NDArray[np.object_]) -> Iterator[str]:
    """Append underscores to repeated names."""
    taken, seen = set(names), set[str]()
    for name in names:
        if name in seen:
            while name in taken:
                name += "_"
            taken.add(name)
        seen.add(name)
        yield name
