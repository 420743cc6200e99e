"""Rows and columns of blocks, in whatever container they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray


def column_names(table: Any) -> list[Any] | None:
    """Return the names of a frame's columns.

    Parameters
    ----------
    table : data frame or ndarray

    Returns
    -------
    list or None
        None of an array, which has no names.
    """
    return None if isinstance(table, np.ndarray) else list(_frame(table).columns)


def without_columns(table: Any, names: Sequence[Any]) -> tuple[Any, list[NDArray[Any]]]:
    """Return a table without some columns, and these.

    Parameters
    ----------
    table : data frame or ndarray of shape (n_rows, n_columns)
    names : sequence of str or int
        Names of a frame's columns, or indices of an array's, from its end if negative.

    Returns
    -------
    table : data frame or ndarray
        With the other columns.
    columns : list of ndarray of shape (n_rows,)
        In the order of `names`.

    Raises
    ------
    ValueError
        If there is no such column, or no other.
    """
    if not names:
        return table, []
    if isinstance(table, np.ndarray):
        return _without_indices(table, names)
    known = column_names(table) or []
    for name in names:
        if name not in known:
            raise ValueError(f"Got {name!r} as the name of a column, but expected one of {known}.")
    if len(known) == len(set(names)):
        raise ValueError(f"Got a table of the columns {known} only, but expected some beside them.")
    frame = _frame(table)
    columns = [np.asarray(frame[name].to_numpy()) for name in names]
    return frame.drop(list(names)).to_native(), columns


def _without_indices(
    table: NDArray[Any], names: Sequence[Any]
) -> tuple[NDArray[Any], list[NDArray[Any]]]:
    n_columns = table.shape[1] if table.ndim == 2 else 0
    for index in names:
        is_index = isinstance(index, int | np.integer) and not isinstance(index, bool)
        if not (is_index and -n_columns <= index < n_columns and n_columns > 1):
            raise ValueError(
                f"Got {index!r} as a column of an array of shape {table.shape}, but expected an "
                "index of one of several columns."
            )
    columns = [np.array(table[:, index]) for index in names]
    kept = np.delete(np.arange(n_columns), list(names))
    return table[:, kept], columns


def taken(table: Any, rows: NDArray[Any]) -> Any:
    """Return a copy of some rows.

    Parameters
    ----------
    table : data frame or ndarray of shape (n_rows, ...)
    rows : ndarray of int or bool
        Their indices, or a mask.

    Returns
    -------
    data frame or ndarray
        In the container of the table.
    """
    if rows.dtype == bool:
        rows = np.flatnonzero(rows)
    if isinstance(table, np.ndarray):
        return np.asarray(table[rows])
    if hasattr(table, "iloc"):
        return table.iloc[rows]
    return _frame(table)[rows].to_native()


def joined(tables: Sequence[Any]) -> Any:
    """Return tables below each other.

    Parameters
    ----------
    tables : sequence of data frame or ndarray
        At least one, all in one container and with the same columns.

    Returns
    -------
    data frame or ndarray
        With types that hold the values of all tables.
    """
    first = tables[0]
    if len(tables) == 1:
        return first
    if isinstance(first, np.ndarray):
        return np.concatenate(tables)
    if isinstance(first, pd.DataFrame):
        return _joined_in_pandas(tables)
    library = nw.get_native_namespace(_frame(first))
    if nw.dependencies.is_pyarrow_table(first):
        return library.concat_tables(tables, promote_options="permissive")
    return library.concat(tables, how="vertical_relaxed")


def _joined_in_pandas(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join frames whose columns of categories may have others in each of them."""
    columns = {}
    for name, *_ in zip(*tables, strict=True):
        parts = [table[name] for table in tables]
        if all(isinstance(part.dtype, pd.CategoricalDtype) for part in parts):
            # Those of different types, or ordered in several ways, are joined as values.
            values = [category for part in parts for category in part.cat.categories]
            every = pd.CategoricalDtype(list(dict.fromkeys(values)))
            parts = [part.astype(every) for part in parts]
        columns[name] = pd.concat(parts, ignore_index=True)
    return pd.DataFrame(columns)


def _frame(table: Any) -> Any:
    return nw.from_native(table, eager_only=True)
