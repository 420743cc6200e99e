"""A hash of each row of a table, by which equal rows are known in whatever container they come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sklearn_fordes.preprocessing._columns import Column, read_columns
from sklearn_fordes.preprocessing._tables import as_rows, as_table
from sklearn_fordes.preprocessing._values import NUMBER

# Of a cell without a value, in a column of any type.
_GAP = np.uint64(0x7FF8_0000_0000_0000)
# Odd numbers without structure: that of Steele, Lea, Flood (Fast splittable pseudorandom number
# generators, OOPSLA 2014), and those of its finaliser by Stafford.
_GOLDEN = np.uint64(0x9E37_79B9_7F4A_7C15)
_FACTORS = np.uint64(0xBF58_476D_1CE4_E5B9), np.uint64(0x94D0_49BB_1331_11EB)
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)
_HALF = np.uint64(32)


def row_hashes(X: Any, y: NDArray[Any] | None = None) -> NDArray[np.uint64]:
    """Hash rows by their values, in the order of the columns.

    Numbers count in double precision, other values by the label that the encoder gives them.

    Parameters
    ----------
    X : data frame or array of shape (n_rows, ...)
    y : ndarray of shape (n_rows,), optional
        One more column.

    Returns
    -------
    ndarray of uint64 of shape (n_rows,)
        Equal for equal rows.

    Raises
    ------
    ValueError
        If a value has no text of its own.
    """
    if isinstance(X, np.ndarray) and X.ndim > 2:
        X = as_rows(X.reshape(len(X), -1))
    parts = [_bits(column) for column in read_columns(as_table(X))]
    if y is not None:
        codes, distinct = pd.factorize(y, use_na_sentinel=False)
        parts.append(_bits(Column("y", np.asarray(distinct)))[codes])
    total = np.full(len(parts[0]), _GOLDEN)
    for bits in parts:
        # Each step is a bijection of the total and of the column's bits.
        total ^= bits
        total *= _FACTORS[0]
        total ^= total >> _HALF
    return mixed(total)


def mixed(values: NDArray[np.uint64], key: int = 0) -> NDArray[np.uint64]:
    """Mix 64-bit numbers with a key, so that those of two keys say nothing of each other.

    Parameters
    ----------
    values : ndarray of uint64
    key : int, default=0
        Of at most 64 bits.

    Returns
    -------
    ndarray of uint64
        A permutation of all 64-bit numbers, for each key.
    """
    found = (values ^ np.uint64(key)) + _GOLDEN
    for shift, factor in zip(_SHIFTS[:2], _FACTORS, strict=True):
        found ^= found >> shift
        found *= factor
    found ^= found >> _SHIFTS[2]
    return found


def _bits(column: Column) -> NDArray[np.uint64]:
    if column.has_numeric_type:
        numbers = column.floats(NUMBER, is_checked=False) + 0.0  # No negative zero.
        bits = numbers.view(np.uint64)
        bits[np.isnan(numbers)] = _GAP
        return bits
    labels, codes = column.labels
    texts = np.array(["" if label is None else label for label in labels], dtype=object)
    of_labels = pd.util.hash_array(texts, categorize=False)
    of_labels[[label is None for label in labels]] = _GAP
    found: NDArray[np.uint64] = of_labels[codes]
    return found
