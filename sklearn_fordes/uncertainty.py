"""How sure an ensemble is, and what its uncertainty comes from."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import rel_entr, xlogy


class Uncertainty(NamedTuple):
    """The uncertainty of predictions and its parts: ``total = aleatoric + epistemic + support``.

    Parameters
    ----------
    total : ndarray of shape (n_samples,)
        Of the ensemble's prediction.
    aleatoric : ndarray of shape (n_samples,)
        What would remain if the members agreed and every cell of the row were known: the mean of
        the members' own, less `support`.
    epistemic : ndarray of shape (n_samples,)
        The members' disagreement.
    support : ndarray of shape (n_samples,)
        What the cells would tell that are missing or beyond the training rows. Zero where all
        cells are known, and in what the functions of this module return, which see no cells.
    """

    total: NDArray[np.float64]
    aleatoric: NDArray[np.float64]
    epistemic: NDArray[np.float64]
    support: NDArray[np.float64]

    def with_support(
        self, if_known: NDArray[np.float64], degree: NDArray[np.float64]
    ) -> Uncertainty:
        """Split off what unknown cells would tell from the aleatoric part.

        Parameters
        ----------
        if_known : ndarray of shape (n_samples,)
            The aleatoric part if the unknown cells were known, on average over what they may hold.
        degree : ndarray of shape (n_samples,)
            How far cells of the row are unknown, in [0, 1].

        Returns
        -------
        Uncertainty
            Of the same total, to rounding. No part is negative.
        """
        support = degree * np.clip(self.aleatoric - if_known, 0.0, self.aleatoric)
        return Uncertainty(self.total, self.aleatoric - support, self.epistemic, support)


def entropy_decomposition(probabilities: ArrayLike) -> Uncertainty:
    r"""Split the entropy of the mean probability.

    With :math:`p_i` the members' probabilities and :math:`\bar p` their mean::

        H(p̄)   =   mean_i H(p_i)   +   mean_i KL(p_i || p̄)
        total       aleatoric           epistemic (mutual information)

    Parameters
    ----------
    probabilities : array-like of shape (n_members, n_samples, n_classes)
        Rows sum to one (to 1e-3, as those in half precision do).

    Returns
    -------
    Uncertainty
        In nats, non-negative; between 0 and log n_classes.

    Raises
    ------
    ValueError
        If there are not three axes, or not probabilities along the last.

    Examples
    --------
    >>> entropy_decomposition([[[0.5, 0.5]], [[0.5, 0.5]]]).epistemic  # they agree to be unsure
    array([0.])
    >>> entropy_decomposition([[[1.0, 0.0]], [[0.0, 1.0]]]).epistemic.round(4)  # log 2
    array([0.6931])
    """
    p = _checked(probabilities, 3, "(n_members, n_samples, n_classes)")
    if not ((p >= 0).all() and np.abs(p.sum(-1) - 1).max(initial=0) < 1e-3):
        raise ValueError(
            f"Got probabilities from {p.min(initial=1):.3g} that sum to {p.sum(-1).min():.3g} to "
            f"{p.sum(-1).max():.3g}, but expected non-negative ones that sum to 1."
        )
    mean = _mean_over_members(p)
    # The smallest numbers have a mean that rounds to zero, and would diverge from it for ever.
    divergence = np.where(mean > 0, rel_entr(p, mean), 0.0)
    return _sum_of_parts(-xlogy(p, p).sum(-1).mean(0), divergence.sum(-1).mean(0))


def variance_decomposition(means: ArrayLike, variances: ArrayLike) -> Uncertainty:
    """Split the variance of an equal mixture of the members' distributions.

    The aleatoric part is the mean of the members' variances, the epistemic part the variance of
    their means.

    Parameters
    ----------
    means, variances : array-like of shape (n_members, n_samples)
        Of the members' predictive distributions.

    Returns
    -------
    Uncertainty
        Variances, in the squared unit of the target.

    Raises
    ------
    ValueError
        If there are not two axes, or a variance is negative.

    Examples
    --------
    >>> parts = variance_decomposition([[1.0], [3.0]], [[0.5], [0.5]])
    >>> parts.total, parts.aleatoric, parts.epistemic
    (array([1.5]), array([0.5]), array([1.]))
    """
    mu = _checked(means, 2, "(n_members, n_samples)")
    var = _checked(variances, 2, "(n_members, n_samples)")
    if var.shape != mu.shape or (var < 0).any():
        raise ValueError(
            f"Got variances of shape {var.shape}, from {var.min(initial=0):.3g}, but expected "
            f"non-negative ones of shape {mu.shape}, that of the means."
        )
    return _sum_of_parts(_mean_over_members(var), np.square(mu - _mean_over_members(mu)).mean(0))


def _sum_of_parts(*parts: NDArray[np.float64]) -> Uncertainty:
    # Rounding may leave a sum of terms of both signs slightly below zero.
    aleatoric, epistemic = np.clip(parts, 0, None)
    return Uncertainty(aleatoric + epistemic, aleatoric, epistemic, np.zeros_like(epistemic))


def _mean_over_members(values: NDArray[np.float64]) -> Any:
    """Mean over the first axis, exact where members are identical."""
    return values[0] + (values - values[0]).mean(0)


def _checked(values: ArrayLike, ndim: int, expected: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != ndim or not len(array):
        raise ValueError(f"Got an array of shape {array.shape}, but expected {expected}.")
    if not np.isfinite(array).all():
        raise ValueError("Got NaN or infinity, but expected finite numbers.")
    return array
