"""How members move, given what they are compared by: the repulsion in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sklearn_fordes.particles._kernel import Kernel

_DEFAULT_KERNEL = Kernel()


class Interaction(NamedTuple):
    """What members do to each other.

    Parameters
    ----------
    potential : Tensor of shape (M,)
        What each member descends, given where the others are.
    force : Tensor of shape (M, B, K)
        What the members descend, as a gradient with respect to the representation: that of
        ``potential.sum()``, with the others held constant where there is a kernel.
    mixing : Tensor of shape (M, M), optional
        Member i's driving force is the sum over j of ``mixing[i, j]`` times member j's.
        Default: its own alone.
    """

    potential: Tensor
    force: Tensor
    mixing: Tensor | None = None


Update = Callable[[Tensor, Kernel], Interaction]


@torch.no_grad()
def wasserstein(representation: Tensor, kernel: Kernel = _DEFAULT_KERNEL) -> Interaction:
    """Wasserstein gradient descent: away from where the members' density is high.

    The potential is the log density ``log Σ_j k_ij``, and the force is
    ``Σ_j ∇_i k_ij / Σ_j k_ij`` (Trinh et al. 2024, equations 7 to 12).

    Parameters
    ----------
    representation : Tensor of shape (M, B, K)
        What members are compared by.
    kernel : Kernel, default=Kernel()
        How they are compared.

    Returns
    -------
    Interaction
        With a potential in nats, between 0 (no other member near) and log M (all alike). Both are
        zero for M = 1.

    Raises
    ------
    ValueError
        If a shape does not fit.
    """
    comparison = kernel.compare(representation)
    density = comparison.kernel.sum(1)
    n_rows = representation.shape[1]
    return Interaction(density.log(), comparison.gradient / (n_rows * density.view(-1, 1, 1)))


@torch.no_grad()
def stein(representation: Tensor, kernel: Kernel = _DEFAULT_KERNEL) -> Interaction:
    """Stein variational gradient descent, which also smooths the driving force.

    Member i descends ``(1/M) Σ_j [k_ij ∇_j loss + ∇_i k_ij]`` (Liu and Wang 2016).

    Parameters
    ----------
    representation : Tensor of shape (M, B, K)
        What members are compared by.
    kernel : Kernel, default=Kernel()
        With a bandwidth that does not depend on the member, so that it is symmetric.

    Returns
    -------
    Interaction
        With ``mean_j k_ij`` as potential, and ``k / M`` as mixing.

    Raises
    ------
    ValueError
        If the bandwidth depends on the member, or a shape does not fit.
    """
    if kernel.bandwidth == "reference":
        raise ValueError(
            "Got bandwidth='reference' with update='svgd', which needs a symmetric kernel, but "
            "expected 'paper' or a number."
        )
    comparison = kernel.compare(representation)
    n_members, n_rows, _ = representation.shape
    force = comparison.gradient / (n_rows * n_members)
    return Interaction(comparison.kernel.mean(1), force, comparison.kernel / n_members)


@torch.no_grad()
def independence(representation: Tensor, kernel: Kernel = _DEFAULT_KERNEL) -> Interaction:
    """Local independence training: members' directions are to be orthogonal.

    The members descend ``Σ_{i<j} mean_b cos²(i, j)`` (Ross, Pan, Celi and Doshi-Velez 2020),
    which differs from a kernel in that opposite directions count as alike.

    Parameters
    ----------
    representation : Tensor of shape (M, B, K)
        What members are compared by.
    kernel : Kernel, default=Kernel()
        Only its `eps` counts: norms are as there.

    Returns
    -------
    Interaction
        Each member has half of its pairs as potential; the force is the whole sum's gradient.
    """
    n_members, n_rows, _ = representation.shape
    sq_norm = representation.square().sum(-1, keepdim=True)
    inverse_norm = (sq_norm + kernel.eps).rsqrt()
    direction = (representation * inverse_norm).transpose(0, 1)  # (B, M, K)
    others = 1 - torch.eye(n_members, dtype=direction.dtype, device=direction.device)
    cosine = (direction @ direction.mT) * others  # (B, M, M)
    grad = (2 / n_rows) * (cosine @ direction)
    grad = grad - direction * (direction * grad).sum(-1, keepdim=True)
    inverse_norm = torch.where(sq_norm > kernel.eps, inverse_norm, 0.0)
    potential = cosine.square().sum(-1).mean(0) / 2
    return Interaction(potential, inverse_norm * grad.transpose(0, 1))


UPDATES: dict[str, Update] = {"wgd": wasserstein, "svgd": stein, "lit": independence}
