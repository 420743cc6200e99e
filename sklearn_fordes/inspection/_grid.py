"""A grid over two features of a table, with the others held."""

from __future__ import annotations

from collections import Counter
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray


def columns_of(X: Any) -> dict[Any, Any]:
    """Return the columns of a frame by name, or those of an array by position."""
    if hasattr(X, "columns"):
        return {name: X[name] for name in X.columns}
    if np.ndim(X) != 2:
        raise ValueError(f"Got X of shape {np.shape(X)}, but expected (n_samples, n_features).")
    # Of objects too, each column gets the type of what is in it.
    return {j: np.array(list(column)) for j, column in enumerate(np.asarray(X).T)}


def find_feature(columns: dict[Any, Any], feature: Any) -> Any:
    """Return the key of a numeric column, named by its position or its name."""
    names = list(columns)
    by_position = isinstance(feature, Integral) and -len(names) <= int(feature) < len(names)
    key = names[int(feature)] if by_position else feature
    if key not in columns:
        raise ValueError(
            f"Got feature {feature!r}, but expected an index below {len(names)} or one of the "
            f"columns {names}."
        )
    if not is_numeric(columns[key]):
        raise ValueError(f"Got feature {feature!r}, which isn't numeric, but expected numbers.")
    return key


def is_numeric(column: Any) -> bool:
    """Return whether a column holds numbers; truth values and categories don't count."""
    dtype = column.dtype
    return bool(dtype.is_numeric()) if hasattr(dtype, "is_numeric") else dtype.kind in "iuf"


def numbers(column: Any) -> NDArray[np.float64]:
    """Return a numeric column as floats, NaN where a cell is missing."""
    # Nullable columns of pandas hold NA, which numpy doesn't know.
    options = {"dtype": np.float64, "na_value": np.nan} if hasattr(column, "iloc") else {}
    values = column.to_numpy(**options) if hasattr(column, "to_numpy") else column
    return np.asarray(values, dtype=np.float64)


def held(column: Any, n_rows: int) -> Any:
    """Return the median of a column, its most frequent value if it isn't numeric, n_rows times."""
    if is_numeric(column):
        return np.full(n_rows, np.nanmedian(numbers(column)))
    values = list(column)
    # Cells are taken from the column, so that a frame keeps its type (categories, say).
    rows = np.full(n_rows, values.index(Counter(values).most_common(1)[0][0]))
    return column.iloc[rows].reset_index(drop=True) if hasattr(column, "iloc") else column[rows]


def axis_of(column: Any, grid_resolution: int, eps: float) -> NDArray[np.float64]:
    """Return the grid along a feature, `eps` standard deviations wider than its values."""
    values = numbers(column)
    margin = eps * np.nanstd(values)
    return np.linspace(np.nanmin(values) - margin, np.nanmax(values) + margin, grid_resolution)


def table_at(
    X: Any, columns: dict[Any, Any], values: dict[Any, NDArray[np.float64]], n_rows: int
) -> Any:
    """Return a table like X with the values given in some columns, and the others held."""
    filled = {key: values[key] if key in values else held(columns[key], n_rows) for key in columns}
    if hasattr(X, "columns"):
        return type(X)(filled)
    mixed = not all(is_numeric(column) for column in filled.values())
    return np.array(list(filled.values()), dtype=object if mixed else np.float64).T
