"""The metric in which representations are compared: axes and precisions along them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Metric(NamedTuple):
    """A quadratic metric ``U diag(λ) Uᵀ``; None stands for the identity.

    Parameters
    ----------
    rotation : Tensor of shape (K, K), optional
        U, whose columns are the axes.
    precision : Tensor of shape (K,), optional
        λ, the squared inverse lengthscales 1/ℓ² along the axes.
    """

    rotation: Tensor | None = None
    precision: Tensor | None = None

    def to(self, like: Tensor) -> Metric:
        """Return the metric with the device and dtype of `like`."""
        return Metric(*(part if part is None else part.to(like) for part in self))


def identity(X: Tensor) -> Metric:  # noqa: ARG001 (a lengthscale may depend on the inputs)
    """Every direction of the input space counts alike."""
    return Metric()


def pca(X: Tensor) -> Metric:
    """Directions count in proportion to the variance of the training inputs along them.

    Parameters
    ----------
    X : Tensor of shape (N, ...)
        Training inputs as the network sees them; flattened to K features.

    Returns
    -------
    Metric
        In float64: eigenvectors and eigenvalues of the covariance of the centred inputs
        (Trinh et al. 2024, section 4.1). More repulsion acts along high-variance directions.
    """
    features = X.flatten(1).double()
    if len(features) == 1:
        return Metric()  # a single row has no variance to speak of
    covariance = torch.atleast_2d(torch.cov(features.T))
    return from_precision_matrix(covariance)


def tuned(X: Tensor, *, alpha: float, mix: str = "precision") -> Metric:
    """Between the identity (α = 0) and PCA (α = 1).

    With Λ the eigenvalues of the inputs' covariance, divided by their mean so that α does not
    depend on the inputs' units, the precisions are::

        (1 − α) + α Λ                 mix="precision": precisions are averaged
        1 / ((1 − α) + α / Λ)         mix="variance": squared lengthscales are averaged

    Trinh et al. 2024 state the second; the authors' web page states the first. A direction in which
    the data does not vary at all has precision 1 − α in the first, and zero in the second as soon
    as α > 0.

    Parameters
    ----------
    X : Tensor of shape (N, ...)
        Training inputs as the network sees them; flattened to K features.
    alpha : float
        In [0, 1].
    mix : {"precision", "variance"}, default="precision"
        What is averaged.

    Returns
    -------
    Metric
        In float64.

    Raises
    ------
    ValueError
        If `alpha` or `mix` is something else.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"Got alpha={alpha!r}, but expected a number in [0, 1].")
    if mix not in MIXES:
        raise ValueError(f"Got mix={mix!r}, but expected one of {MIXES}.")
    rotation, variance = pca(X)
    if alpha == 0 or variance is None or not variance.any():
        return Metric()
    variance = variance / variance.mean()
    if mix == "precision":
        return Metric(rotation, 1 - alpha + alpha * variance)
    return Metric(rotation, variance / ((1 - alpha) * variance + alpha))


def from_lengthscales(lengthscales: Tensor) -> Metric:
    """One lengthscale for each feature.

    Parameters
    ----------
    lengthscales : Tensor of shape (K,)
        ℓ, positive, not squared; infinite ones leave a feature out. λ = 1/ℓ².

    Returns
    -------
    Metric
        Without rotation.

    Raises
    ------
    ValueError
        If one is not positive, or none is finite.
    """
    precision = lengthscales.double() ** -2
    if not ((lengthscales > 0).all() and precision.isfinite().all() and precision.any()):
        raise ValueError(
            f"Got lengthscales {lengthscales.tolist()}, but expected positive numbers, at least "
            "one of them finite."
        )
    return Metric(None, precision)


def from_precision_matrix(matrix: Tensor) -> Metric:
    """Axes and precisions of a matrix Σ⁻¹ = U diag(λ) Uᵀ.

    Parameters
    ----------
    matrix : Tensor of shape (K, K)
        Symmetric and positive semi-definite.

    Returns
    -------
    Metric
        In float64.

    Raises
    ------
    ValueError
        If the matrix is not as it should be.
    """
    matrix = matrix.double()
    precision, rotation = torch.linalg.eigh(matrix)
    # Rounding leaves eigenvalues of a singular matrix slightly below zero.
    rounding = 1e-8 * precision.abs().max()
    if not torch.allclose(matrix, matrix.mT) or (precision < -rounding).any():
        raise ValueError(
            "Got a precision matrix that is not symmetric or has negative eigenvalues (the lowest "
            f"is {precision.min():.3g}), but expected a symmetric positive semi-definite one."
        )
    return Metric(rotation, precision.clamp(min=0))


LENGTHSCALES: dict[str, Callable[[Tensor], Metric]] = {"identity": identity, "pca": pca}
MIXES = ("precision", "variance")
