"""Blocks of a source: a few rows at a time, again and again, some or all of its parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sklearn_fordes._rows import row_parts
from sklearn_fordes.preprocessing import as_rows, as_table
from sklearn_fordes.streaming._tables import column_names, without_columns

# Rows of a block, and cells at most, so that memory does not grow with a source's parts.
_ROWS_OF_A_BLOCK, _CELLS_OF_A_BLOCK = 65_536, 1 << 23


def rows_of_a_block(n_columns: int) -> int:
    """Return the largest number of rows of a block with so many columns."""
    return max(1, min(_ROWS_OF_A_BLOCK, _CELLS_OF_A_BLOCK // max(n_columns, 1)))


@dataclass(frozen=True)
class Share:
    """A source with the rows of one process only, where others have other rows.

    For a fit with ``distributed="rows"`` in a process that has read, or was given, its own part of
    the data: a shard of Ray Data, for example. Without it each process is given the whole source,
    and reads every n-th part of it.

    Parameters
    ----------
    source : object
        As `fit` takes it: a dataset of pyarrow, an iterable of pairs, and so on.

    Examples
    --------
    >>> import numpy as np
    >>> pairs = [(np.zeros((2, 3)), np.array([0, 1])), (np.ones((2, 3)), np.array([1, 0]))]
    >>> share = Share(pairs)
    """

    source: Any


class Block(NamedTuple):
    """Some rows of a part of a source.

    Parameters
    ----------
    part : int
    X : data frame or ndarray of shape (n_rows, ...)
    y : ndarray of shape (n_rows,) or None
        Targets, if there are some.
    sample_weight : ndarray of shape (n_rows,) or None
        Weights, if there are some.
    """

    part: int
    X: Any
    y: NDArray[Any] | None
    sample_weight: NDArray[Any] | None


class Source(ABC):
    """Where rows come from, in the order in which it gives them.

    Attributes
    ----------
    name : str
        As errors call it.
    n_parts : int or None
        None without random access.
    parts_at_once : int
        How many parts are read at once, in turns, where the order of rows ought to be random.
    """

    name: str
    n_parts: int | None = None
    parts_at_once: int = 8

    @abstractmethod
    def read_all(self) -> Iterator[Any]:
        """Yield the rows in the source's own order, as tables, or as pairs with targets."""


class SourceOfParts(Source):
    """Where rows come from: parts, which can be read in any order if `n_parts` is their number."""

    @abstractmethod
    def read_part(self, part: int) -> Iterator[Any]:
        """Yield tables with the rows of a part, or pairs of a table and targets."""

    def read_all(self) -> Iterator[Any]:
        """Yield the rows of all parts, one after another."""
        for part in range(self.n_parts or 0):
            yield from self.read_part(part)


@dataclass(frozen=True)
class Blocks:
    """A source, or a share of its parts, with the columns that are no features.

    Parameters
    ----------
    source : Source
    target : str, int or None
        The column of the targets. None: blocks are pairs of a table and targets, or have none.
    weight : str, int or None
        The column of the rows' weights.
    index, n_shards : int
        The share: each part with an index of ``index + i * n_shards``. Without random access a part
        is what the source yields at once.
    is_share : bool, default=False
        Whether the source has the rows of one share only (see `Share`). Its part i has the number
        ``index + i * n_shards`` among those of all shares.
    """

    source: Source
    target: Any = None
    weight: Any = None
    index: int = 0
    n_shards: int = 1
    is_share: bool = False

    @property
    def parts(self) -> range | None:
        """The parts of this share, which can be read in any order; None without random access."""
        n_parts = self.source.n_parts
        if n_parts is None:
            return None
        end = self.index + n_parts * self.n_shards if self.is_share else n_parts
        return range(self.index, end, self.n_shards)

    def shard(self, index: int, n_shards: int) -> Blocks:
        """Return each `n_shards`-th part of this share, beginning with that at `index`.

        Of a `Share` all parts are that share.

        Parameters
        ----------
        index : int
            From 0 to n_shards − 1.
        n_shards : int

        Raises
        ------
        ValueError
            If there is no such share.
        """
        if not 0 <= index < n_shards:
            raise ValueError(f"Got shard {index} of {n_shards}, but expected one from 0 on.")
        first = self.index + self.n_shards * index
        return replace(self, index=first, n_shards=self.n_shards * n_shards)

    def rows_of_shards(self, n_rows_of: Mapping[int, int]) -> list[int]:
        """Return how many rows each share of the source has.

        Parameters
        ----------
        n_rows_of : dict of int
            Number of rows of each part of the whole source.
        """
        found = [0] * self.n_shards
        for part, n_rows in n_rows_of.items():
            found[part % self.n_shards] += n_rows
        return found

    def read_in_turns(self, parts: Sequence[int], n_rows: int) -> Iterator[Block]:
        """Yield the rows of some parts, a few of each in turns.

        Parameters
        ----------
        parts : sequence of int
        n_rows : int
            Largest number of rows of a turn, if there are as many parts at least.

        Yields
        ------
        Block
        """
        most = max(1, n_rows // len(parts))
        readers = [self.read([part], most) for part in parts]
        while readers:
            found = [(reader, next(reader, None)) for reader in readers]
            readers = [reader for reader, block in found if block is not None]
            yield from (block for _, block in found if block is not None)

    def read(self, order: Iterable[int] | None = None, most: int | None = None) -> Iterator[Block]:
        """Yield the rows, in the order of their parts.

        Parameters
        ----------
        order : iterable of int, optional
            Parts to read, if there is random access. Default: those of this share.
        most : int, optional
            Largest number of rows of a block. Default: what `rows_of_a_block` says.

        Yields
        ------
        Block
            Of at least one row.

        Raises
        ------
        ValueError
            If a block is no table, has other columns than the first one, or lacks a column.
        """
        names: Any = None
        for part, given in self._given(order):
            pair = given if isinstance(given, tuple) else (given, None)
            if getattr(pair[0], "shape", (1,))[:1] == (0,):
                continue  # A query may leave no row of a part.
            table, y = _checked(pair[0], f"block {part} of {self.source.name}"), pair[1]
            found = column_names(table) or table.shape[1:]
            names = found if names is None else names
            if found != names:
                raise ValueError(
                    f"Got block {part} of {self.source.name} with {_shown(found)}, but expected "
                    f"{_shown(names)}, as in the first block."
                )
            yield from self._divided(part, table, y, most)

    def _given(self, order: Iterable[int] | None) -> Iterator[tuple[int, Any]]:
        source = self.source
        if source.n_parts is None or not isinstance(source, SourceOfParts):
            for part, table in enumerate(source.read_all()):
                if self.is_share:
                    yield self.index + part * self.n_shards, table
                elif part % self.n_shards == self.index:
                    yield part, table
            return
        for part in self.parts or () if order is None else order:
            place = part // self.n_shards if self.is_share else part
            for table in source.read_part(int(place)):
                yield int(part), table

    def _divided(self, part: int, table: Any, y: Any, most: int | None) -> Iterator[Block]:
        if y is not None:
            y = np.asarray(y)
            if y.ndim == 0 or len(y) != table.shape[0]:
                raise ValueError(
                    f"Got block {part} of {self.source.name} with {table.shape[0]} rows and "
                    f"targets of shape {y.shape}, but expected one for each row."
                )
        has_target, has_weight = self.target is not None, self.weight is not None
        names = [self.target] * has_target + [self.weight] * has_weight
        n_rows = rows_of_a_block(int(np.prod(table.shape[1:])))
        n_rows = n_rows if most is None else min(n_rows, most)
        for place, rows in row_parts(table, n_rows):
            X, columns = without_columns(rows, names)
            targets = columns[0] if has_target else None if y is None else y[place]
            yield Block(part, X, targets, columns[-1] if has_weight else None)


def _checked(table: Any, name: str) -> Any:
    """Return what a source gave as a frame or an array."""
    try:
        is_wide = len(getattr(table, "shape", ())) > 2
        table = as_rows(table, n_axes=None) if is_wide else as_table(table)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Got {name} that is no table with rows and columns: {error}") from error
    return table


def _shown(names: Any) -> str:
    is_list = isinstance(names, list)
    return f"the columns {names}" if is_list else f"rows of shape {tuple(names)}"
