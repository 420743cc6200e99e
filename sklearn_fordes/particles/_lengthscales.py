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
        (Trinh et al. 2024, section 4.1), divided by the eigenvalues' mean. More repulsion acts
        along high-variance directions.
    """
    return tuned(X, alpha=1.0)


def tuned(X: Tensor, *, alpha: float, mix: str = "precision") -> Metric:
    """Between the identity (α = 0) and `pca` (α = 1).

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
    features = X.flatten(1).double()
    if alpha == 0 or (features == features[:1]).all():
        return Metric()  # rows that are all alike have no variance to speak of
    features = features / features.abs().max()  # units don't matter, and no square overflows
    rotation, variance = _axes(torch.atleast_2d(torch.cov(features.T)))
    variance = variance.clamp(min=0)  # rounding leaves some slightly below zero
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
        Symmetric and positive semi-definite, not zero.

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
    rotation, precision = _axes(matrix)
    # Rounding leaves eigenvalues of a singular matrix slightly below zero.
    rounding = 1e-8 * precision.abs().max()
    if not torch.allclose(matrix, matrix.mT) or (precision < -rounding).any() or not matrix.any():
        raise ValueError(
            "Got a precision matrix that is zero, not symmetric or has negative eigenvalues (the "
            f"lowest is {precision.min():.3g}), but expected a symmetric positive semi-definite "
            "one."
        )
    return Metric(rotation, precision.clamp(min=0))


def _axes(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvectors, as columns, and eigenvalues of a symmetric matrix."""
    eigenvalues, eigenvectors = torch.linalg.eigh(matrix)
    return eigenvectors, eigenvalues


LENGTHSCALES: dict[str, Callable[[Tensor], Metric]] = {"identity": identity, "pca": pca}
MIXES = ("precision", "variance")
