"""Normal scores of the ranks of numbers, by interpolation between quantiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

# A score is interpolated between so many quantiles and one more, at equal distances of the rank:
# with 256 of them it follows the table's steps, and is no better.
_N_INTERVALS = 16
# Ranks are kept from the ends, where their normal scores have no bound.
_LEAST_RANK = 1e-3


def rank_knots(z: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the numbers between which scores of ranks are interpolated, and their scores.

    The rank of a number is the share of the rows with a smaller one, and half of that of the rows
    with an equal one. Scores are the quantiles of the standard normal distribution at the ranks,
    less that at zero: the score of zero is zero, exactly.

    Parameters
    ----------
    z : ndarray of shape (n_samples, n_numbers)
        NaN where missing.

    Returns
    -------
    numbers, scores : ndarray of shape (n_numbers, n_knots)
        Numbers rise; the last knot of a column fills up its row.
    """
    n_knots = _N_INTERVALS + 2
    numbers = np.zeros((z.shape[1], n_knots))
    scores = np.zeros_like(numbers)
    for column, of_number, of_score in zip(z.T, numbers, scores, strict=True):
        knot, count = np.unique(column[~np.isnan(column)], return_counts=True)
        if not len(knot):
            continue
        rank = (np.cumsum(count) - count / 2) / count.sum()
        if len(knot) > n_knots - 1:
            wanted = np.linspace(rank[0], rank[-1], n_knots - 1)
            kept = np.unique(np.searchsorted(rank, wanted).clip(0, len(knot) - 1))
            knot, rank = knot[kept], rank[kept]
        score = ndtri(rank.clip(_LEAST_RANK, 1 - _LEAST_RANK))
        at_zero = np.interp(0.0, knot, score)
        if not (knot == 0).any():
            place = np.searchsorted(knot, 0.0)
            knot, score = np.insert(knot, place, 0.0), np.insert(score, place, at_zero)
        of_number[:], of_score[:] = knot[-1], score[-1] - at_zero
        of_number[: len(knot)], of_score[: len(knot)] = knot, score - at_zero
    return numbers, scores


def rank_scores(
    z: NDArray[np.float64], numbers: NDArray[np.float64], scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the scores of numbers, constant beyond the first and the last knot.

    Parameters
    ----------
    z : ndarray of shape (n_samples, n_numbers)
    numbers, scores : ndarray of shape (n_numbers, n_knots)
        As `rank_knots` returns them.

    Returns
    -------
    ndarray of shape (n_samples, n_numbers)
    """
    below = np.zeros(z.shape, dtype=np.intp)
    for knot in numbers.T[1:-1]:
        below += z >= knot
    column = np.arange(z.shape[1])
    start, score = numbers[column, below], scores[column, below]
    length, rise = numbers[column, below + 1] - start, scores[column, below + 1] - score
    share = np.zeros_like(z)
    # A quotient of two differences is finite even where their difference is next to nothing.
    np.divide(z - start, length, out=share, where=length > 0)
    found: NDArray[np.float64] = score + share.clip(0.0, 1.0) * rise
    return found
