"""Updates: the potential of each member, and the force between members in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sklearn_fordes.particles._communication import ALONE, Communicator
from sklearn_fordes.particles._kernel import Kernel, exact, on_sphere
from sklearn_fordes.particles._lengthscales import Lengthscale

_DEFAULT_KERNEL = Kernel()


class Forces(NamedTuple):
    """Potential and force between members.

    Parameters
    ----------
    potential : Tensor of shape (M,)
        What each member descends, given where the others are.
    force : Tensor of shape (M, B, K)
        What the members descend, as a gradient with respect to the representation: that of
        ``potential.sum()``, with the others held constant if there is a kernel.
    mixing : Tensor of shape (M, M), optional
        Member i's driving force is the sum over j of ``mixing[i, j]`` times member j's.
        Default: its own alone.
    """

    potential: Tensor
    force: Tensor
    mixing: Tensor | None = None


Update = Callable[..., Forces]


def wasserstein_update(
    representation: Tensor,
    kernel: Kernel = _DEFAULT_KERNEL,
    communicator: Communicator = ALONE,
) -> Forces:
    """Wasserstein gradient descent: away from where the members' density is high.

    The potential is the log density ``log Σ_j k_ij``, and the force is
    ``Σ_j ∇_i k_ij / Σ_j k_ij`` (Trinh et al. 2024, equations 7 to 12).

    Parameters
    ----------
    representation : Tensor of shape (M, B, K)
        What all members are compared by, at the rows of this process.
    kernel : Kernel, default=Kernel()
        How they are compared.
    communicator : Communicator, default=ALONE
        Reaches other processes that hold rows; by default there are none.

    Returns
    -------
    Forces
        With a potential in nats, between 0 (no other member near) and log M (all alike). Both are
        zero for M = 1.

    Raises
    ------
    ValueError
        If a shape does not fit.
    """
    values = kernel.compare(representation)
    density, n_rows = communicator.mean(values.kernel.sum(1), representation.shape[1])
    force = values.gradient / (n_rows * density.view(-1, 1, 1))
    return Forces(density.log(), force)


def stein_update(
    representation: Tensor,
    kernel: Kernel = _DEFAULT_KERNEL,
    communicator: Communicator = ALONE,
) -> Forces:
    """Stein variational gradient descent, which also smooths the driving force.

    Member i descends ``(1/M) Σ_j [k_ij ∇_j loss + ∇_i k_ij]`` (Liu and Wang 2016).

    Parameters
    ----------
    representation : Tensor of shape (M, B, K)
        What all members are compared by, at the rows of this process.
    kernel : Kernel, default=Kernel()
        With a bandwidth that does not depend on the member, so that it is symmetric.
    communicator : Communicator, default=ALONE
        Reaches other processes that hold rows; by default there are none.

    Returns
    -------
    Forces
        With ``mean_j k_ij`` as potential, and ``k / M`` as mixing.

    Raises
    ------
    ValueError
        If the bandwidth depends on the member, or a shape does not fit.
    """
    if kernel.bandwidth == "reference":
        raise ValueError(
            "Got bandwidth='reference' with update='svgd', which needs a symmetric kernel, but "
            "expected 'auto', 'paper' or a number."
        )
    values = kernel.compare(representation)
    n_members = len(representation)
    kernel_values, n_rows = communicator.mean(values.kernel, representation.shape[1])
    force = values.gradient / (n_rows * n_members)
    return Forces(kernel_values.mean(1), force, kernel_values / n_members)


@exact()
def independence_update(
    representation: Tensor,
    kernel: Kernel = _DEFAULT_KERNEL,
    communicator: Communicator = ALONE,
) -> Forces:
    """Local independence training: makes the members' directions orthogonal.

    The members descend ``Σ_{i<j} mean_b cos²(i, j)`` (Ross, Pan, Celi and Doshi-Velez 2020), which
    differs from a kernel in that opposite directions count as alike.

    Parameters
    ----------
    representation : Tensor of shape (M, B, K)
        What all members are compared by, at the rows of this process.
    kernel : Kernel, default=Kernel()
        Only its `eps` counts: norms are as there.
    communicator : Communicator, default=ALONE
        Reaches other processes that hold rows; by default there are none.

    Returns
    -------
    Forces
        Each member has half of its pairs as potential; the force is the whole sum's gradient.
    """
    direction, inverse_norm = on_sphere(representation.transpose(0, 1), kernel.eps)  # (B, M, K)
    same = torch.eye(len(representation), dtype=direction.dtype, device=direction.device)
    cosine = (direction @ direction.mT) * (1 - same)  # (B, M, M)
    of_rows = cosine.square().sum(-1).mean(0) / 2
    potential, n_rows = communicator.mean(of_rows, representation.shape[1])
    grad = (2 / n_rows) * (cosine @ direction)
    grad = grad - direction * (direction * grad).sum(-1, keepdim=True)
    force = grad * inverse_norm
    return Forces(potential, force.transpose(0, 1))


def repulsion_force(
    representation: Tensor,
    *,
    rotation: Tensor | None = None,
    precision: Tensor | None = None,
    eps: float = 1e-24,
) -> tuple[Tensor, Tensor]:
    """Compute the repulsion of FoRDE for a training loop that has its own everything else.

    Add ``strength / B`` times the force to the cotangent of the representation in the backward pass
    of the loss; see `wasserstein_update` for the formula and `Kernel` for the kernel.

    Parameters
    ----------
    representation : Tensor of shape (M, B, K)
        Input gradients of M members at B rows, K features each.
    rotation : Tensor of shape (K, K), optional
        Axes of the lengthscale, as columns. Default: those of the input.
    precision : Tensor of shape (K,), optional
        Squared inverse lengthscales along the axes. Default: ones.
    eps : float, default=1e-24
        Added to the squared norms of the gradients.

    Returns
    -------
    log_density : Tensor of shape (M,)
        ``log Σ_j k_ij``, in nats.
    force : Tensor of shape (M, B, K)
        Gradient of ``log_density.sum()`` with the other members held constant.

    Examples
    --------
    >>> import torch
    >>> log_density, force = repulsion_force(torch.eye(2).unsqueeze(1))
    >>> log_density.exp()
    tensor([1.2500, 1.2500])
    """
    kernel = Kernel(Lengthscale(rotation, precision), eps=eps)
    return wasserstein_update(representation, kernel)[:2]


UPDATES: dict[str, Update] = {
    "wgd": wasserstein_update,
    "svgd": stein_update,
    "lit": independence_update,
}
