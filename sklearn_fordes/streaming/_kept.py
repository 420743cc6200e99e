"""The rows of lowest hash: a sample whose size is bounded, and that no order of blocks changes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sklearn_fordes.streaming._tables import joined, taken

_ALL = 1 << 64
# Rows that are kept, and cells at most.
MOST_ROWS, _MOST_CELLS = 131_072, 1 << 24


def rows_kept(n_columns: int) -> int:
    """Return how many rows are kept as a sample by default.

    Parameters
    ----------
    n_columns : int

    Returns
    -------
    int
        So few that a sample of numbers takes 128 MiB at most.
    """
    return max(1, min(MOST_ROWS, _MOST_CELLS // max(n_columns, 1)))


class Kept(NamedTuple):
    """Rows of a source that are kept in memory.

    Parameters
    ----------
    X : data frame or ndarray of shape (n_rows, ...)
    y : ndarray of shape (n_rows,)
    sample_weight : ndarray of shape (n_rows,)
    hashes : ndarray of uint64 of shape (n_rows,)
        By which they are kept.
    others : ndarray of uint64 of shape (n_rows,)
        Those of another purpose.
    parts : ndarray of int of shape (n_rows,)
        From which part of the source each row comes.
    """

    X: Any
    y: NDArray[Any]
    sample_weight: NDArray[np.float64]
    hashes: NDArray[np.uint64]
    others: NDArray[np.uint64]
    parts: NDArray[np.int64]

    def take(self, rows: NDArray[Any]) -> Kept:
        """Return the rows at some indices, or of a mask."""
        return Kept(taken(self.X, rows), *(column[rows] for column in self[1:]))

    @classmethod
    def join(cls, pieces: list[Kept]) -> Kept:
        """Return the rows of all pieces."""
        X, *columns = zip(*pieces, strict=True)
        return cls(joined(X), *map(np.concatenate, columns))


class LowestHashes:
    """At most `size` rows, those of the lowest hashes below a threshold: a bottom-k sample.

    Of rows with one hash all are kept or none. When too many are kept, the threshold falls to the
    lowest hash that has to go: so in the end it is that of all rows at once, in whatever order and
    in how many processes they came.

    Parameters
    ----------
    size : int
    threshold : int, default=2**64
        Rows of this hash, or of a higher one, are not kept.
    """

    def __init__(self, size: int, threshold: int = _ALL) -> None:
        self.size = size
        self.is_in_use = threshold > 0
        self._threshold = threshold
        self._pieces: list[Kept] = []
        self._n_kept = 0

    @property
    def threshold(self) -> int:
        """Rows of this hash, or of a higher one, are not kept."""
        self._prune()
        return self._threshold

    def limit(self, threshold: int) -> None:
        """Keep only rows below another threshold, if that is lower."""
        if threshold < self.threshold:
            self._keep_below(threshold)

    def add(self, rows: Kept) -> None:
        """Keep those rows whose hash is low enough."""
        if self._threshold < _ALL:
            rows = rows.take(np.flatnonzero(rows.hashes < np.uint64(self._threshold)))
        if len(rows.hashes):
            self._pieces.append(rows)
            self._n_kept += len(rows.hashes)
        if self._n_kept > self.size + self.size // 2:
            self._prune()

    def merge(self, other: LowestHashes) -> LowestHashes:
        """Return what both would be together."""
        threshold = min(self.threshold, other.threshold)
        merged = LowestHashes(min(self.size, other.size), threshold)
        for piece in (*self._pieces, *other._pieces):
            merged.add(piece)
        return merged

    def rows(self) -> Kept | None:
        """Return the rows in the order of their hashes; None if there are none."""
        self._prune()
        if not self._pieces:
            return None
        rows = Kept.join(self._pieces)
        return rows.take(np.lexsort((rows.sample_weight, rows.others, rows.hashes)))

    def _prune(self) -> None:
        if self._n_kept <= self.size:
            return
        hashes = np.concatenate([piece.hashes for piece in self._pieces])
        self._keep_below(int(np.partition(hashes, self.size)[self.size]))

    def _keep_below(self, threshold: int) -> None:
        self._threshold = threshold
        limit = np.uint64(self._threshold)
        kept = [piece.take(np.flatnonzero(piece.hashes < limit)) for piece in self._pieces]
        kept = [piece for piece in kept if len(piece.hashes)]
        self._pieces = [Kept.join(kept)] if kept else []
        self._n_kept = sum(len(piece.hashes) for piece in self._pieces)
