"""Normal scores of the ranks of numbers, by interpolation between quantiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

# Scores of the quantiles between which others are interpolated, if there are more values than that.
# The normal score has no bound; it ends here, where one row in 740 is beyond.
_SCORES = np.linspace(-3.0, 3.0, 17)
# Scaled numbers that differ by less cannot be interpolated between.
_LEAST_DISTANCE = 1e-100
# Unused knots lie beyond all scaled numbers.
_BEYOND = 1e151


def rank_knots(z: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the numbers between which scores of ranks are interpolated, and their scores.

    The rank of a number is the share of the rows with a smaller one, and half of that of the rows
    with an equal one. The score of a rank is the quantile of the standard normal distribution, from
    −3 to 3, less the score of zero: that of zero is zero, exactly. Each of up to 17 values is a
    knot. Of more values, the knots are the quantiles at equal distances of the score, so that the
    score of a value which many rows have is that between its neighbours' knots.

    Parameters
    ----------
    z : ndarray of shape (n_samples, n_numbers)
        NaN where missing.

    Returns
    -------
    numbers, scores : ndarray of shape (n_numbers, n_knots)
        Numbers rise. Those that fill up a row are beyond all others.
    """
    n_knots = len(_SCORES) + 1
    numbers = np.tile(_BEYOND * np.arange(1, n_knots + 1), (z.shape[1], 1))
    scores = np.zeros_like(numbers)
    for column, of_number, of_score in zip(z.T, numbers, scores, strict=True):
        known = column[~np.isnan(column)]
        if not len(known):
            continue
        known[np.abs(known) < _LEAST_DISTANCE] = 0.0
        knot, count = np.unique(known, return_counts=True)
        rank = (np.cumsum(count) - count / 2) / count.sum()
        score = ndtri(rank).clip(_SCORES[0], _SCORES[-1])
        if len(knot) > len(_SCORES):
            score = np.unique(_SCORES.clip(score[0], score[-1]))
            knot, kept = np.unique(np.interp(ndtr(score), rank, knot), return_index=True)
            score = score[kept]
        at_zero = np.interp(0.0, knot, score)
        if not (knot == 0).any():
            place = np.searchsorted(knot, 0.0)
            # By rounding the score between two knots may be beyond that of one of them.
            score[:place] = np.minimum(score[:place], at_zero)
            score[place:] = np.maximum(score[place:], at_zero)
            knot, score = np.insert(knot, place, 0.0), np.insert(score, place, at_zero)
        of_score[:] = score[-1] - at_zero
        of_number[: len(knot)], of_score[: len(knot)] = knot, score - at_zero
    return numbers, scores


def rank_scores(
    z: NDArray[np.float64], numbers: NDArray[np.float64], scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the scores of numbers, constant beyond the first and the last quantile.

    Parameters
    ----------
    z : ndarray of shape (n_samples, n_numbers)
    numbers, scores : ndarray of shape (n_numbers, n_knots)
        As `rank_knots` returns them.

    Returns
    -------
    ndarray of shape (n_samples, n_numbers)
    """
    # What numpy.interp computes for a column, without a search that a processor can't foresee: the
    # number of knots that are not above each number says between which two it lies.
    z = np.ascontiguousarray(z.T)
    below, is_below = np.zeros(z.shape, dtype=np.int8), np.empty(z.shape, dtype=bool)
    for knots in numbers.T:
        np.greater_equal(z, knots[:, None], out=is_below)
        below += is_below.view(np.int8)
    # Before the first knot and after the last one scores are constant.
    rises = np.zeros((len(scores), scores.shape[1] + 1))
    rises[:, 1:-1] = (scores[:, 1:] - scores[:, :-1]) / (numbers[:, 1:] - numbers[:, :-1])
    starts, of_starts = (np.concatenate([v[:, :1], v], axis=1) for v in (numbers, scores))
    place = below + np.arange(0, rises.size, rises.shape[1])[:, None]
    found: NDArray[np.float64] = z - starts.take(place)
    found *= rises.take(place)
    found += of_starts.take(place)
    return found.T
