"""Lengthscales of the space in which members are compared: axes and precisions along them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sklearn_fordes._signatures import explaining_arguments
from sklearn_fordes.particles._memory import expect_memory

MIXES = ("precision", "variance")


class Lengthscale(NamedTuple):
    """A quadratic form ``U diag(λ) Uᵀ`` that measures differences; None is the identity.

    Parameters
    ----------
    rotation : Tensor of shape (K, K), optional
        U, whose columns are the axes.
    precision : Tensor of shape (K,), optional
        λ, the squared inverse lengthscales 1/ℓ² along the axes.
    """

    rotation: Tensor | None = None
    precision: Tensor | None = None

    def to(self, like: Tensor) -> Lengthscale:
        """Return the lengthscale with the device and dtype of `like`."""
        return Lengthscale(*(part if part is None else part.to(like) for part in self))


def tuned_lengthscale(alpha: float, mix: str = "precision") -> Callable[[Tensor], Lengthscale]:
    """Make a lengthscale between "identity" (α = 0) and "pca" (α = 1).

    With Λ the eigenvalues of the inputs' covariance, divided by their mean so that α does not
    depend on the inputs' units, the precisions are::

        (1 − α) + α Λ                 mix="precision": average the precisions
        1 / ((1 − α) + α / Λ)         mix="variance": average the squared lengthscales

    Trinh et al. 2024 state the second; the authors' web page states the first. A direction without
    any variance in the data has precision 1 − α in the first, and zero in the second for α > 0.

    Parameters
    ----------
    alpha : float
        In [0, 1].
    mix : {"precision", "variance"}, default="precision"
        What is averaged.

    Returns
    -------
    callable
        Maps encoded training inputs (N, ...) to a `Lengthscale` in float64.

    Raises
    ------
    ValueError
        If `alpha` or `mix` is something else.

    Examples
    --------
    >>> import torch
    >>> tuned_lengthscale(0.5)(torch.tensor([[0.0, 0.0], [0.0, 1.0]])).precision
    tensor([0.5000, 1.5000], dtype=torch.float64)
    """
    if not (isinstance(alpha, Real) and 0 <= float(alpha) <= 1):
        raise ValueError(f"Got alpha={alpha!r}, but expected a number in [0, 1].")
    if mix not in MIXES:
        raise ValueError(f"Got mix={mix!r}, but expected one of {MIXES}.")
    return partial(_tuned, alpha=float(alpha), mix=mix)


def _tuned(X: Tensor, *, alpha: float, mix: str) -> Lengthscale:
    if alpha == 0:
        return Lengthscale()
    # MPS has no double precision.
    features = (X.cpu() if X.device.type == "mps" else X).flatten(1).double()
    if (features == features[:1]).all():
        return Lengthscale()  # Rows that are all alike have no variance.
    width = features.shape[1]
    expect_memory(
        f"a lengthscale of the variance of {width} inputs, whose covariance and axes",
        2 * 8 * width**2,
        X.device,
    )
    features = features / features.abs().max()  # Units cancel, and no square overflows.
    variance, rotation = torch.linalg.eigh(torch.atleast_2d(torch.cov(features.T)))
    variance = variance.clamp(min=0)  # Rounding leaves some slightly below zero.
    variance = variance / variance.mean()
    if mix == "precision":
        return Lengthscale(rotation, 1 - alpha + alpha * variance)
    return Lengthscale(rotation, variance / ((1 - alpha) * variance + alpha))


def from_lengthscales(lengthscales: Tensor) -> Lengthscale:
    """Make a lengthscale of one number for each feature.

    Parameters
    ----------
    lengthscales : Tensor of shape (K,)
        ℓ, positive, not squared; an infinite one leaves its feature out. λ = 1/ℓ².

    Returns
    -------
    Lengthscale
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
    return Lengthscale(None, precision)


def from_precision_matrix(matrix: Tensor) -> Lengthscale:
    """Make a lengthscale of a precision matrix Σ⁻¹ = U diag(λ) Uᵀ.

    Parameters
    ----------
    matrix : Tensor of shape (K, K)
        Symmetric and positive semi-definite, not zero.

    Returns
    -------
    Lengthscale
        In float64.

    Raises
    ------
    ValueError
        If the matrix is something else.
    """
    matrix = matrix.double()
    precision, rotation = torch.linalg.eigh(matrix)
    # Rounding leaves eigenvalues of a singular matrix slightly below zero.
    rounding = 1e-8 * precision.abs().max()
    if not torch.allclose(matrix, matrix.mT) or (precision < -rounding).any() or not matrix.any():
        raise ValueError(
            "Got a precision matrix that is zero, not symmetric or has negative eigenvalues (the "
            f"lowest is {precision.min():.3g}), but expected a symmetric positive semi-definite "
            "one."
        )
    return Lengthscale(rotation, precision.clamp(min=0))


def make_lengthscale(value: Any, X: Tensor) -> Lengthscale:
    """Make the lengthscale that a parameter describes.

    Parameters
    ----------
    value : {"identity", "pca"}, float, array-like, Lengthscale or callable
        A name; α of `tuned_lengthscale`; lengthscales (K,) or a precision matrix (K, K); or a
        function of X that returns an array of these, or a `Lengthscale`.
    X : Tensor of shape (N, ...)
        Encoded training inputs.

    Returns
    -------
    Lengthscale
        On the device and in the dtype of X.

    Raises
    ------
    ValueError
        If the value describes no lengthscale, or one that is zero or infinite in X's dtype.
    """
    if isinstance(value, str):
        value = LENGTHSCALES[value]
    elif isinstance(value, Real):
        value = tuned_lengthscale(float(value))
    if callable(value):
        expected = "a function of (X): the encoded training rows"
        with explaining_arguments(value, "a function as lengthscale", expected, "X"):
            value = value(X)
    made = value if isinstance(value, Lengthscale) else _from_array(value)
    made = made.to(X)
    precision = made.precision
    if precision is not None and not (
        precision.isfinite().all() and precision.any() and (precision >= 0).all()
    ):
        raise ValueError(
            f"Got a lengthscale whose inverse square is zero, infinite or negative in {X.dtype}, "
            "but expected positive numbers; another unit may help."
        )
    return made


def _from_array(value: Any) -> Lengthscale:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Got lengthscale={value!r}, but expected an array of numbers.") from error
    if array.ndim not in (1, 2) or len(set(array.shape)) > 1:
        raise ValueError(
            f"Got a lengthscale of shape {array.shape}, but expected (K,) (lengthscales ℓ of the K "
            "features) or (K, K) (a precision matrix)."
        )
    make = from_lengthscales if array.ndim == 1 else from_precision_matrix
    try:
        return make(torch.tensor(array, device="cpu"))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"Got a lengthscale that is not usable: {error}") from error


# Every direction of the input space counts alike; or in proportion to the variance of the training
# inputs along it (Trinh et al. 2024, section 4.1), so that more repulsion acts where it is high.
LENGTHSCALES = {"identity": tuned_lengthscale(0), "pca": tuned_lengthscale(1)}
