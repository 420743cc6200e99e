"""What the members' outputs mean, as outputs of a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from sklearn_fordes.particles import GaussianLikelihood, QuantileLikelihood
from sklearn_fordes.persistence.onnx._graph import ROWS, Graph, Value, as_text

# The normal distribution function is interpolated between so many values for each unit, up to such
# a number, with an error of 2e-10: onnxruntime has no error function in double precision.
_KNOTS_PER_UNIT, _FARTHEST = 64.0, 9.0
# Halvings of an interval after which its ends are equal in double precision.
_BISECTIONS = 60


def add_classes(graph: Graph, outputs: Value, classes: NDArray[Any], n_members: int) -> None:
    """Add the label and probabilities of the ensemble, and the members' probabilities.

    Parameters
    ----------
    graph : Graph
    outputs : Value of shape (M, B, C)
        Logits in float64.
    classes : ndarray of shape (C,)
        Whole numbers, floats, truth values or strings.
    n_members : int
    """
    members = outputs.call("Softmax", axis=2)
    probabilities = members.reduce("Mean", 0)
    constant = as_text(classes) if classes.dtype.kind == "U" else classes
    index = probabilities.call("ArgMax", axis=1, keepdims=0)
    graph.output("label", graph.call("Gather", constant, index), constant.dtype, [ROWS])
    graph.output("probabilities", probabilities, np.float64, [ROWS, len(classes)])
    graph.output("members", members, np.float64, [n_members, ROWS, len(classes)])


def add_numbers(
    graph: Graph,
    outputs: Value,
    likelihood: Any,
    *,
    location: float,
    scale: float,
    levels: NDArray[np.float64],
    n_members: int,
) -> None:
    """Add mean, standard deviation and quantiles of the mixture, and the members' means.

    Parameters
    ----------
    graph : Graph
    outputs : Value of shape (M, B, C)
        In float64.
    likelihood : GaussianLikelihood or QuantileLikelihood
    location, scale : float
        Of the target.
    levels : ndarray of shape (L,)
        Of the quantiles, in (0, 1). There is no such output if there are none.
    n_members : int
    """
    kind = _Gaussians if type(likelihood) is GaussianLikelihood else _Quantiles
    distributions = kind(graph, outputs, likelihood)
    means, variances = distributions.moments()
    mean = means.reduce("Mean", 0)
    distance = means - mean
    variance = variances.reduce("Mean", 0) + (distance * distance).reduce("Mean", 0)
    graph.output("mean", mean * scale + location, np.float64, [ROWS])
    graph.output("std", variance.call("Sqrt") * scale, np.float64, [ROWS])
    if len(levels):
        quantiles = _of_mixture(graph, distributions, levels)
        graph.output("quantiles", quantiles * scale + location, np.float64, [ROWS, len(levels)])
    graph.output("members", means * scale + location, np.float64, [n_members, ROWS])


class _Gaussians:
    """Members' Gaussians, of a mean and what softplus turns into a variance."""

    def __init__(self, graph: Graph, outputs: Value, likelihood: GaussianLikelihood) -> None:
        self._graph = graph
        self._mean, raw = outputs.take([0], axis=2), outputs.take([1], axis=2)
        self._variance = raw.softplus() + likelihood.smallest_variance
        self._deviation = self._variance.call("Sqrt")

    def moments(self) -> tuple[Value, Value]:
        """Return means and variances, (M, B)."""
        axis = np.array([2])
        return self._mean.call("Squeeze", axis), self._variance.call("Squeeze", axis)

    def quantiles(self, levels: NDArray[np.float64]) -> Value:
        """Return quantiles at levels, (M, B, L)."""
        quantiles: Value = self._mean + self._deviation * ndtri(levels)
        return quantiles

    def cdf(self, values: Value) -> Value:
        """Return the distribution functions at values (B, L), (M, B, L)."""
        return _normal_cdf((values - self._mean) / self._deviation)


def _normal_cdf(values: Value) -> Value:
    """Interpolate by cubics that have the right values and slopes at both ends."""
    knots = np.arange(-_FARTHEST * _KNOTS_PER_UNIT, _FARTHEST * _KNOTS_PER_UNIT + 2)
    knots = knots / _KNOTS_PER_UNIT
    height, slope = ndtr(knots), np.exp(-(knots**2) / 2) / np.sqrt(2 * np.pi) / _KNOTS_PER_UNIT
    rise = np.diff(height)
    # The cubic h + t (s + t (a + t b)) of each distance between two knots.
    a = 3 * rise - 2 * slope[:-1] - slope[1:]
    b = slope[:-1] + slope[1:] - 2 * rise
    place = (values.clip(-_FARTHEST, _FARTHEST) + _FARTHEST) * _KNOTS_PER_UNIT
    # An index that is no number would end the evaluation of all rows. The interval of a row with
    # NaN ends at NaN whatever is found here.
    place = values.graph.where(place.call("IsNaN"), 0.0, place)
    below = place.call("Floor")
    t, index = place - below, below.cast(np.int64)
    h, s, a, b = (
        values.graph.call("Gather", constants, index) for constants in (height, slope, a, b)
    )
    return h + t * (s + t * (a + t * b))


class _Quantiles:
    """Members' quantiles at a grid of levels, with straight lines between and beyond them."""

    def __init__(self, graph: Graph, outputs: Value, likelihood: QuantileLikelihood) -> None:
        levels = np.array(likelihood.levels)
        standard = likelihood.knots(torch.zeros(likelihood.n_outputs, dtype=torch.float64)).numpy()
        n_above = int((levels > 0.5).sum())
        # Distances of the levels above the median, which those below mirror.
        distances = np.diff(standard)[n_above:]
        offset = np.tile(np.log(np.expm1(distances)), 2)
        median = outputs.take([0], axis=2)
        distances_of_rows = outputs.take(np.arange(1, len(levels)), axis=2) + offset
        steps = np.tri(n_above).T
        to_knots = np.zeros((2 * n_above, len(levels)))
        to_knots[:n_above, n_above + 1 :] = steps
        to_knots[n_above:, :n_above] = -steps[:, ::-1]
        self._levels = np.concatenate([[0.0], levels, [1.0]])
        to_all = to_knots @ self._ends(levels)
        self._values = distances_of_rows.softplus() @ to_all + median
        last = len(levels) + 1
        self._low = self._values.take(np.arange(last), axis=2)
        self._high = self._values.take(np.arange(1, last + 1), axis=2)

    @staticmethod
    def _ends(levels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what turns quantiles at levels into those at 0, the levels and 1, (K, K + 2)."""
        matrix = np.eye(len(levels), len(levels) + 2, 1)
        for end, level, (inner, outer) in ((0, 0.0, (1, 0)), (-1, 1.0, (-2, -1))):
            share = (level - levels[outer]) / (levels[outer] - levels[inner])
            matrix[outer, end], matrix[inner, end] = 1 + share, -share
        return matrix

    def moments(self) -> tuple[Value, Value]:
        """Return means and variances, (M, B)."""
        share = np.diff(self._levels)
        mean = ((self._low + self._high) * share).reduce("Sum", 2, keepdims=True) / 2.0
        low, high = self._low - mean, self._high - mean
        squares = low * low + low * high + high * high
        variance = (squares * share).reduce("Sum", 2) / 3.0
        return mean.call("Squeeze", np.array([2])), variance

    def quantiles(self, levels: NDArray[np.float64]) -> Value:
        """Return quantiles at levels, (M, B, L)."""
        index = np.searchsorted(self._levels, levels, side="right")
        index = index.clip(1, len(self._levels) - 1)
        level_below = self._levels[index - 1]
        share = (levels - level_below) / (self._levels[index] - level_below)
        low, high = (values.take(index - 1, axis=2) for values in (self._low, self._high))
        quantiles: Value = low + (high - low) * share
        return quantiles

    def cdf(self, values: Value) -> Value:
        """Return the distribution functions at values (B, L), (M, B, L)."""
        low, width = self._low.new_axis(2), (self._high - self._low).call("Max", 1e-300)
        share = ((values.new_axis(2) - low) / width.new_axis(2)).clip(0.0, 1.0)
        return (share * np.diff(self._levels)).reduce("Sum", 3)


def _of_mixture(
    graph: Graph, members: _Gaussians | _Quantiles, levels: NDArray[np.float64]
) -> Value:
    """Return quantiles of the members' equal mixture by bisection, (B, L)."""
    order = np.argsort(levels, kind="stable")
    levels = levels[order]
    of_members = members.quantiles(levels)

    def halved(low: Value, high: Value) -> tuple[Value, Value]:
        middle = (low + high) / 2.0
        is_below = members.cdf(middle).reduce("Mean", 0) < levels
        return graph.where(is_below, middle, low), graph.where(is_below, high, middle)

    start = of_members.reduce("Min", 0), of_members.reduce("Max", 0)
    _, high = graph.repeat(_BISECTIONS, halved, *start)
    # Rounding must not let two quantiles cross.
    is_up_to = np.tri(len(levels), dtype=bool)
    high = graph.where(is_up_to, high.new_axis(1), -np.inf).reduce("Max", 2)
    return high.take(np.argsort(order), axis=1)
