"""What one pass over a source learns: exact sums of targets, and two samples of rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_fordes.preprocessing import mixed, row_hashes
from sklearn_fordes.streaming._blocks import Block
from sklearn_fordes.streaming._kept import Kept, LowestHashes

# Distinct keys of the two hashes, whatever the seed is.
_OF_THE_SAMPLE, _OF_VALIDATION = 0x5A3D_1E57, 0xB10C_CA5E
_PLACES = np.uint64(0xD6E8_FEB8_6659_FD93)


@dataclass
class ExactSum:
    """Sums over blocks of weights and of weighted numbers, which no order of the blocks changes.

    Parameters
    ----------
    weight, first, second : Fraction
        Sums of w, w y and w y².
    largest : float
        The largest absolute number.
    """

    weight: Fraction = Fraction(0)
    first: Fraction = Fraction(0)
    second: Fraction = Fraction(0)
    largest: float = 0.0

    @classmethod
    def of(cls, values: NDArray[Any], weight: NDArray[np.float64]) -> ExactSum:
        """Return the sums of one block, whose mean and variance are rounded."""
        values = values.astype(np.float64)
        largest = float(np.abs(values).max(initial=0.0))
        unit = largest or 1.0  # Relative to the largest no square overflows.
        scale, total = Fraction(unit), float(weight.sum())
        mean = float((values / unit * weight).sum()) / total
        square = float(((values / unit - mean) ** 2 * weight).sum())
        first = Fraction(total) * Fraction(mean) * scale
        second = (Fraction(square) + Fraction(total) * Fraction(mean) ** 2) * scale**2
        return cls(Fraction(total), first, second, largest)

    def __add__(self, other: ExactSum) -> ExactSum:
        return ExactSum(
            self.weight + other.weight,
            self.first + other.first,
            self.second + other.second,
            max(self.largest, other.largest),
        )

    def moments(self) -> tuple[float, float]:
        """Return the mean and the standard deviation, both divided by the largest number."""
        unit = Fraction(self.largest or 1.0)
        mean = self.first / self.weight
        variance = (self.second / self.weight - mean**2) / unit**2
        return float(mean / unit), max(float(variance), 0.0) ** 0.5


@dataclass
class Summary:
    """What a pass over some blocks has learnt; those of several passes can be merged.

    Parameters
    ----------
    seed : int
        Key of both hashes.
    sample : LowestHashes
        A uniform sample of the rows. The hash is one of a row's place in its block and of all that
        the block holds: equal rows are drawn independently, and no order of blocks matters.
    held_out : LowestHashes
        Rows that validate, by a hash of the row alone, so that equal rows are on one side.
    n_rows : int, default=0
        Number of rows so far.
    targets : dict
        An `ExactSum` for each class; of numbers, one under the key None.
    counts : dict of int
        Number of rows of each class, or of all.
    parts : dict
        Number of rows, and checksum, of each part.
    dtype : numpy.dtype, optional
        Of the labels.
    """

    seed: int
    sample: LowestHashes
    held_out: LowestHashes
    n_rows: int = 0
    targets: dict[Any, ExactSum] = field(default_factory=dict)
    counts: dict[Any, int] = field(default_factory=dict)
    parts: dict[int, tuple[int, int]] = field(default_factory=dict)
    dtype: np.dtype[Any] | None = None

    def add(self, block: Block, codes: NDArray[np.int64] | None, labels: NDArray[Any]) -> None:
        """Take a block in.

        Parameters
        ----------
        block : Block
            With finite targets, or labels, and positive weights.
        codes : ndarray of int of shape (n_rows,) or None
            Index in `labels` of each row's class; None of numbers.
        labels : ndarray
            Distinct classes of the block.
        """
        y, weight = np.asarray(block.y), np.asarray(block.sample_weight)
        self._count(y, weight, codes, labels)
        if not len(y):
            return
        hashes = row_hashes(block.X, y)
        digest = int(hashes.sum(dtype=np.uint64))
        places = np.arange(len(y), dtype=np.uint64) * _PLACES
        drawn = mixed(places ^ np.uint64(digest), _key(self.seed, _OF_THE_SAMPLE))
        held_out = self.validation_hashes(hashes)
        parts = np.full(len(y), block.part)
        self.sample.add(Kept(block.X, y, weight, drawn, held_out, parts))
        if self.is_split:
            self.held_out.add(Kept(block.X, y, weight, held_out, drawn, parts))
        n_before, before = self.parts.get(block.part, (0, 0))
        # Blocks of a part have an order, and so have their digests.
        mixed_before = int(mixed(np.array([before], dtype=np.uint64))[0])
        self.parts[block.part] = n_before + len(y), (mixed_before + digest) % (1 << 64)
        self.n_rows += len(y)

    @property
    def is_split(self) -> bool:
        """Whether rows are held out."""
        return self.held_out.is_in_use

    @property
    def thresholds(self) -> tuple[int, int]:
        """Rows of these hashes, or of higher ones, are neither in the sample nor held out."""
        return self.sample.threshold, self.held_out.threshold

    def limit(self, sample: int, held_out: int) -> None:
        """Keep only rows below other thresholds: those that others who merge with this one have."""
        self.sample.limit(sample)
        self.held_out.limit(held_out)

    def validation_hashes(self, hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Return by which numbers rows are held out, for those of `row_hashes`."""
        return mixed(hashes, _key(self.seed, _OF_VALIDATION))

    def merge(self, other: Summary) -> Summary:
        """Return what a pass over the blocks of both would have learnt.

        Raises
        ------
        ValueError
            If the two have other seeds, or a part is in both.
        """
        if self.seed != other.seed or self.parts.keys() & other.parts.keys():
            raise ValueError(
                "Got summaries of other seeds or of the same parts, but expected two of one source "
                "and seed, each of other parts."
            )
        targets = dict(self.targets)
        for label, found in other.targets.items():
            targets[label] = targets.get(label, ExactSum()) + found
        labels = self.counts.keys() | other.counts.keys()
        return Summary(
            self.seed,
            self.sample.merge(other.sample),
            self.held_out.merge(other.held_out),
            self.n_rows + other.n_rows,
            targets,
            {label: self.counts.get(label, 0) + other.counts.get(label, 0) for label in labels},
            {**self.parts, **other.parts},
            _common_type(self.dtype, other.dtype),
        )

    def classes(self) -> NDArray[Any]:
        """Return the labels, sorted."""
        return np.unique(np.array([*self.counts], dtype=self.dtype))

    def _count(
        self,
        y: NDArray[Any],
        weight: NDArray[np.float64],
        codes: NDArray[np.int64] | None,
        labels: NDArray[Any],
    ) -> None:
        if codes is None and not len(y):
            return
        if codes is None:
            self.targets[None] = self.targets.get(None, ExactSum()) + ExactSum.of(y, weight)
            self.counts[None] = self.counts.get(None, 0) + len(y)
            return
        self.dtype = _common_type(self.dtype, labels.dtype)
        n_of_each = np.bincount(codes, minlength=len(labels)).tolist()
        weights = np.bincount(codes, weights=weight, minlength=len(labels)).tolist()
        for label, n, total in zip(labels.tolist(), n_of_each, weights, strict=True):
            found = ExactSum(Fraction(total))
            self.targets[label] = self.targets.get(label, ExactSum()) + found
            self.counts[label] = self.counts.get(label, 0) + n


def _common_type(first: Any, second: Any) -> Any:
    if first is None or second is None:
        return second if first is None else first
    return np.result_type(first, second)


def _key(seed: int, purpose: int) -> int:
    return int(mixed(np.array([seed], dtype=np.uint64), purpose)[0])
