"""Which sources are read in blocks and which are tables in memory: their type says it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from inspect import isbuiltin
from io import IOBase
from numbers import Integral
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
from scipy.sparse import issparse

from sklearn_fordes.streaming._blocks import Blocks, Share, Source
from sklearn_fordes.streaming._sources import (
    Array,
    ArrowDataset,
    ArrowStream,
    Iterated,
    Pairs,
    PolarsLazyFrame,
    as_pair,
)
from sklearn_fordes.streaming._tables import column_names, without_columns

_EXPECTED = (
    "a pyarrow dataset, another source of Arrow data that can be read again and again, an array "
    "with the index of its column of targets, or an iterable of pairs (X_block, y_block) that can "
    "be iterated again and again"
)


def opened(X: Any, y: Any = None, sample_weight: Any = None) -> Blocks | None:
    """Return the blocks of a source for a fit, or None for a table in memory.

    Parameters
    ----------
    X : object
        A source is a dataset of pyarrow; what has ``__arrow_c_stream__`` and is no frame; a lazy
        frame of polars; an array, if `y` is an integer; or, if `y` is None, a list of pairs,
        another iterable, or a function that returns an iterator; or a `Share` of one of these.
    y : object
        Name of the column of targets, or its index in an array. None of an iterable of pairs.
    sample_weight : object
        Name or index of the column of weights, if there is one.

    Returns
    -------
    Blocks or None
        They can be read again and again.

    Raises
    ------
    TypeError
        If a source can be read only once.
    ValueError
        If `y` or `sample_weight` names no column.
    """
    is_share = isinstance(X, Share)
    X = X.source if is_share else X
    source, is_paired = _source_of(X, y)
    if source is None and is_share:
        raise ValueError(f"Got a Share of a {type(X).__name__}, but expected one of {_EXPECTED}.")
    if source is None:
        return None
    kind = Integral if isinstance(source, Array) else str
    wanted = "the index of a column" if kind is Integral else "the name of a column"
    if is_paired and y is not None:
        raise ValueError(f"Got y={_shown(y)} with {source.name} of pairs, but expected none.")
    given = [("sample_weight", sample_weight)] if is_paired else [("y", y)]
    given += [] if is_paired or sample_weight is None else [("sample_weight", sample_weight)]
    for name, value in given:
        is_allowed = value is None and is_paired
        if not (is_allowed or (isinstance(value, kind) and not isinstance(value, bool))):
            raise ValueError(
                f"Got {name}={_shown(value)} with {source.name}, but expected {wanted}: data that "
                "are read in blocks hold it beside the features."
            )
    if sample_weight is not None and sample_weight == y:
        raise ValueError(f"Got {_shown(y)} as y and as sample_weight, but expected two columns.")
    return Blocks(source, None if is_paired else y, sample_weight, is_share=is_share)


def is_stream(X: Any) -> bool:
    """Return whether rows to predict come in blocks.

    Parameters
    ----------
    X : object
        As in `opened`; an iterator too, which is read once.

    Returns
    -------
    bool
        False of arrays, which are tables in memory.
    """
    if isinstance(X, np.ndarray | pd.DataFrame):
        return False
    if isinstance(X, list | tuple):
        return _are_pairs(X)
    return _kind_of(X) is not None


def blocks_to_predict(X: Any, names: list[str] | None) -> Iterator[Any]:
    """Yield tables of a source for prediction, with the columns of the training rows.

    Parameters
    ----------
    X : object
        Of which `is_stream` is true. Pairs count by their first part.
    names : list of str or None
        Names of the features; all other columns are left out. None leaves all columns.

    Yields
    ------
    data frame or ndarray
    """
    source = _source_for(X, lambda given: given)
    blocks = Blocks(_FirstOfPairs(source))
    for block in blocks.read():
        known = column_names(block.X)
        if names is not None and known is not None and set(names) <= set(known):
            others = [name for name in known if name not in names]
            yield without_columns(block.X, others)[0]
        else:
            yield block.X


class _FirstOfPairs(Source):
    """A source without targets."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.name = source.name

    def read_all(self) -> Iterator[Any]:
        for given in self.source.read_all():
            yield given[0] if isinstance(given, tuple) and len(given) == 2 else given


def _source_of(X: Any, y: Any) -> tuple[Source | None, bool]:
    """Return the source, if there is one, and whether it has pairs with targets."""
    if isinstance(X, np.ndarray):
        is_index = isinstance(y, Integral) and not isinstance(y, bool)
        return (Array(_of_two_axes(X)), False) if is_index else (None, False)
    if isinstance(X, list | tuple):
        return (Pairs(X), True) if y is None and _are_pairs(X) else (None, False)
    kind = _kind_of(X)
    if kind is None or (kind == "iterable" and y is not None):
        return None, False
    if _is_iterator(X) or _is_reader(X):
        raise TypeError(
            f"Got a {type(X).__name__}, which can be read only once, but expected {_EXPECTED}; a "
            "function that returns a new iterator is one."
        )
    return _source_for(X, as_pair), kind == "iterable"


def _kind_of(X: Any) -> str | None:
    """Return the kind of a source, None of a table in memory and of what is no table."""
    X = nw.to_native(X, pass_through=True)
    if issparse(X) or _is_in_memory(X):
        return None
    if _is_of(X, "pyarrow.dataset", "Dataset"):
        return "dataset"
    if _is_of(X, "polars", "LazyFrame"):
        return "lazy"
    if hasattr(X, "__arrow_c_stream__"):
        return "arrow"
    # Sequences and sets are tables or no tables, but no sources, and open files are text.
    is_other = isinstance(X, type | Sequence | Set | Mapping) or isbuiltin(X)
    is_other = is_other or isinstance(X, IOBase)
    is_array = hasattr(X, "__array__") or hasattr(X, "shape")
    is_new = callable(X) or hasattr(X, "__iter__")
    return "iterable" if is_new and not (is_array or is_other) else None


def _source_for(X: Any, check: Any) -> Source:
    X = nw.to_native(X, pass_through=True)
    kind = _kind_of(X)
    if kind == "dataset":
        return ArrowDataset(X)
    if kind == "lazy":
        return PolarsLazyFrame(X)
    return ArrowStream(X) if kind == "arrow" else Iterated(X, check)


def _is_in_memory(X: Any) -> bool:
    is_frame = nw.dependencies.is_into_dataframe(X) or nw.dependencies.is_into_series(X)
    return bool(is_frame) or _is_of(X, "pyarrow", "RecordBatch")


def _is_reader(X: Any) -> bool:
    return _is_of(X, "pyarrow", "RecordBatchReader")


def _is_iterator(X: Any) -> bool:
    return hasattr(X, "__next__") and not _is_reader(X)


def _is_of(X: Any, module: str, name: str) -> bool:
    """Return whether an object is of a class of a module, without importing it."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(X, getattr(loaded, name))


def _are_pairs(X: Any) -> bool:
    """Return whether a list holds pairs of a table and targets, and not rows of a table."""
    return bool(X) and all(isinstance(p, tuple) and len(p) == 2 and np.ndim(p[1]) for p in X)


def _of_two_axes(X: Any) -> Any:
    if X.ndim != 2 or not len(X):
        raise ValueError(
            f"Got X of shape {X.shape} with the index of a column as y, but expected rows and "
            "columns."
        )
    return X


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | None) else ""
    return text or f"a {type(value).__name__}"
