"""What training rows say of columns of numbers, learnt from a few columns at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sklearn_fordes.preprocessing import _support
from sklearn_fordes.preprocessing._columns import Column
from sklearn_fordes.preprocessing._layout import read_kinds
from sklearn_fordes.preprocessing._numbers import (
    Statistics,
    scaled,
    statistics,
    varying_parts,
    with_parts,
)
from sklearn_fordes.preprocessing._ranks import rank_knots
from sklearn_fordes.preprocessing._values import DATE

# Numbers that are learnt from and encoded at once. Several copies of them take tens of megabytes,
# however large the table is.
_LEARNT_AT_ONCE, _ENCODED_AT_ONCE = 1 << 20, 1 << 19


class LearntNumbers(NamedTuple):
    """What training rows say of K numeric columns, of which N numbers are made.

    Parameters
    ----------
    parts : list of K lists of str
        As `TabularEncoder.parts_`.
    statistics : Statistics
        Of the N numbers.
    n_missing : ndarray of int of shape (K,)
        Rows without a value.
    rank_numbers, rank_scores : ndarray of shape (N, n_knots)
        From `rank_knots`.
    samples : ndarray of shape (16, K)
        From `sampled_numbers`.
    """

    parts: list[list[str]]
    statistics: Statistics
    n_missing: NDArray[np.int64]
    rank_numbers: NDArray[np.float64]
    rank_scores: NDArray[np.float64]
    samples: NDArray[np.float64]

    @classmethod
    def learn(
        cls,
        columns: list[Column],
        kinds: NDArray[np.str_],
        surprise: NDArray[np.float64],
        min_frequency: int,
        order: np.random.Generator,
    ) -> LearntNumbers:
        """Learn from some columns at a time, so that memory does not grow with their number.

        Parameters
        ----------
        columns : list of K Column
            Of numbers, dates and durations.
        kinds : ndarray of str of shape (K,)
        surprise : ndarray of shape (2, n_samples)
            `surprise_of_numbers` is added to it.
        min_frequency : int
            As in `statistics`.
        order : numpy.random.Generator
            As in `sampled_numbers`.
        """
        n_at_once = max(1, _LEARNT_AT_ONCE // surprise.shape[1])
        blocks = [
            cls._of_block(
                columns[start : start + n_at_once],
                kinds[start : start + n_at_once],
                surprise,
                min_frequency,
                order,
            )
            for start in range(0, max(len(columns), 1), n_at_once)
        ]
        parts, learnt, n_missing, numbers, scores, samples = zip(*blocks, strict=True)
        return cls(
            [names for of_block in parts for names in of_block],
            Statistics(*map(np.concatenate, zip(*learnt, strict=True))),
            np.concatenate(n_missing),
            np.concatenate(numbers),
            np.concatenate(scores),
            np.concatenate(samples, axis=1),
        )

    @classmethod
    def _of_block(
        cls,
        columns: list[Column],
        kinds: NDArray[np.str_],
        surprise: NDArray[np.float64],
        min_frequency: int,
        order: np.random.Generator,
    ) -> LearntNumbers:
        raw, _ = read_kinds(columns, kinds, surprise.shape[1])
        parts = [
            varying_parts(values) if kind == DATE else [""]
            for values, kind in zip(raw.T, kinds, strict=True)
        ]
        numbers = with_parts(raw, parts)
        learnt = statistics(numbers, min_frequency)
        is_ranked = ~learnt.is_long_tailed & (learnt.n_values > 2)
        z = np.where(np.isnan(numbers) | ~is_ranked, np.nan, scaled(numbers, *learnt[:4]))
        knots = rank_knots(z)
        del z
        distance = _support.of_columns(_support.distance_from_others(numbers, learnt), parts)
        surprise += _support.surprise_of_numbers(raw, distance)
        samples = _support.sampled_numbers(raw, order)
        return cls(parts, learnt, np.isnan(raw).sum(axis=0), *knots, samples)


def parts_of_rows(n_rows: int, n_columns: int) -> Iterator[slice]:
    """Yield the rows of a table in parts that are encoded at once."""
    n_at_once = max(1, _ENCODED_AT_ONCE // max(n_columns, 1))
    for start in range(0, n_rows, n_at_once):
        yield slice(start, min(start + n_at_once, n_rows))
