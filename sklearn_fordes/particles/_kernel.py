"""The kernel between members and the repulsion force, in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor


@torch.no_grad()
def repulsion_force(
    representation: Tensor,
    *,
    rotation: Tensor | None = None,
    precision: Tensor | None = None,
    eps: float = 1e-24,
) -> tuple[Tensor, Tensor]:
    r"""Log density of the members at each other's place, and its gradient.

    With :math:`G` the representation, :math:`U` the rotation and :math:`\lambda` the precision::

        a = G U                                axes of the metric
        u = a / sqrt(|a|² + eps)               a point on the unit sphere
        s = u ∘ sqrt(λ)
        d²_ijb = |s_ib − s_jb|²
        h_jb = median_i(d²_ijb) / log M + 1e-12
        κ_ijb = exp(−d²_ijb / h_jb)            base kernel
        log_density_i = log mean_b Σ_j κ_ijb

    The gradient treats the second argument of the kernel (member j) and the bandwidth h as
    constants, so that each member is pushed away from where the others are::

        q_ijb = κ_ijb / (h_jb Σ_j'b' κ_ij'b')
        ∂/∂s_ib = −2 Σ_j q_ijb (s_ib − s_jb)
        ∂/∂a_ib = (∂u − u (u·∂u)) / sqrt(|a|² + eps),    ∂u = sqrt(λ) ∘ ∂s
        force = ∂a Uᵀ

    Gradient descent on ``strength / B * log_density.sum()`` (B: rows) is the repulsion of the
    paper. No ``(M, M, B, K)`` array is made and no autograd graph is recorded.

    Parameters
    ----------
    representation : Tensor of shape (M, B, K)
        What M members are compared by at B rows: their input gradients, for example.
    rotation : Tensor of shape (K, K), optional
        Orthogonal matrix whose columns are the axes of the metric. Default: the identity.
    precision : Tensor of shape (K,), optional
        Non-negative weights λ of the squared distance along these axes (eigenvalues, not their
        roots). Default: ones. A common factor cancels in the bandwidth.
    eps : float, default=1e-24
        Added to squared norms, so that a vanishing representation maps to the centre of the
        sphere. Where the squared norm is no larger, the force is zero.

    Returns
    -------
    log_density : Tensor of shape (M,)
        In nats; between 0 (no other member near) and log M (all members alike).
    force : Tensor of shape (M, B, K)
        Gradient of ``log_density.sum()`` with respect to ``representation``. Zero for M = 1.

    Raises
    ------
    ValueError
        If a shape does not fit.

    Notes
    -----
    Kernel, bandwidth (one per member and row, the zero distance to itself included) and stopped
    gradients follow the reference implementation of Trinh et al., *Input-gradient space particle
    inference for neural network ensembles*, ICLR 2024, equations 7 to 12. λ is divided by its
    largest entry first, which changes nothing but what the floor of the bandwidth is compared with.

    Examples
    --------
    >>> import torch
    >>> gradients = torch.tensor([[[1.0, 0.0]], [[0.8, 0.6]]])  # two members, one row
    >>> log_density, force = repulsion_force(gradients)
    >>> log_density                                             # κ = 1/4 whenever M = 2
    tensor([0.2231, 0.2231])
    >>> bool(force[0, 0, 1] > 0)        # descending turns the first member away from the second
    True
    """
    _check_shapes(representation, rotation, precision)
    n_members, n_rows, _ = representation.shape
    if n_members == 1:
        return representation.new_zeros(1), torch.zeros_like(representation)

    scale = None
    if precision is not None:
        # A common factor cancels in the bandwidth, but for the floor of that.
        largest = precision.max()
        scale = (precision / torch.where(largest > 0, largest, 1.0)).sqrt()
    axes = representation if rotation is None else representation @ rotation
    sq_norm = axes.square().sum(-1, keepdim=True)
    inverse_norm = (sq_norm + eps).rsqrt()
    direction = axes * inverse_norm
    point = direction if scale is None else direction * scale

    # Rows first, so that each row is one small matrix problem. Only differences matter; taking
    # them from the first member makes those between identical members cancel exactly.
    point = (point - point[:1]).transpose(0, 1).contiguous()  # (B, M, K)
    # The exact mode: the Gram matrix's |x|² + |y|² − 2xy loses small distances.
    distance = torch.cdist(point, point, compute_mode="donot_use_mm_for_euclid_dist")
    sq_dist = distance.square()  # (B, M, M)

    bandwidth = _median(sq_dist) / math.log(n_members) + 1e-12  # (B, M), of the second argument
    bandwidth = bandwidth.unsqueeze(1)
    base_kernel = torch.exp(-sq_dist / bandwidth)
    density = base_kernel.sum(dim=(0, 2))

    q = base_kernel / (bandwidth * density.unsqueeze(-1))
    grad_point = -2 * (q.sum(-1, keepdim=True) * point - q @ point)
    grad_direction = grad_point.transpose(0, 1)  # (M, B, K)
    if scale is not None:
        grad_direction = grad_direction * scale
    radial = (direction * grad_direction).sum(-1, keepdim=True)
    # What vanishes has no direction to turn; the quotient would be as large as 1/sqrt(eps).
    inverse_norm = torch.where(sq_norm > eps, inverse_norm, 0.0)
    force = inverse_norm * (grad_direction - direction * radial)
    if rotation is not None:
        force = force @ rotation.T
    return torch.log(density / n_rows), force


def _median(values: Tensor) -> Tensor:
    """Median along the last axis; the mean of the two middle values where their count is even.

    ``torch.median`` returns the lower one: with two members, the distance of one to itself.
    """
    ordered = values.sort(dim=-1).values
    n = ordered.shape[-1]
    return (ordered[..., (n - 1) // 2] + ordered[..., n // 2]) / 2


def _check_shapes(
    representation: Tensor, rotation: Tensor | None, precision: Tensor | None
) -> None:
    if representation.ndim != 3 or 0 in representation.shape:
        raise ValueError(
            f"Got representation of shape {tuple(representation.shape)}, but expected "
            "(n_members, n_rows, n_features), none of them zero."
        )
    width = representation.shape[-1]
    if rotation is not None and rotation.shape != (width, width):
        raise ValueError(
            f"Got rotation of shape {tuple(rotation.shape)}, but expected {(width, width)}."
        )
    if precision is not None and precision.shape != (width,):
        raise ValueError(
            f"Got precision of shape {tuple(precision.shape)}, but expected {(width,)}."
        )
