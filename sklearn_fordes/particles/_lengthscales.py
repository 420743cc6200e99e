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
    precision, rotation = torch.linalg.eigh(covariance)
    # Rounding leaves eigenvalues of a singular covariance slightly below zero.
    return Metric(rotation, precision.clamp(min=0))


LENGTHSCALES: dict[str, Callable[[Tensor], Metric]] = {"identity": identity, "pca": pca}
