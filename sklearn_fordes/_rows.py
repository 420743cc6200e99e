"""A table some rows at a time, in whatever container it comes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import narwhals as nw


def row_parts(table: Any, n_rows: int, first: int = 0) -> Iterator[tuple[slice, Any]]:
    """Yield successive slices of a table, and their rows in its container.

    Parameters
    ----------
    table : data frame, ndarray or sparse array in CSR format
        Checked.
    n_rows : int
        Largest number of rows of a part.
    first : int, default=0
        The row that the first part begins with.
    """
    n_in_all = table.shape[0]
    if not first and n_in_all <= n_rows:
        yield slice(0, n_in_all), table
        return
    frame = nw.from_native(table, eager_only=True, pass_through=True)
    for start in range(first, n_in_all, n_rows):
        part = slice(start, min(start + n_rows, n_in_all))
        yield part, nw.to_native(frame[part], pass_through=True)
