"""The kernel between members, and how a force between them is pulled back to what they are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from sklearn_fordes.particles._lengthscales import Metric

BANDWIDTHS = ("reference", "paper")


@dataclass(frozen=True)
class Kernel:
    r"""How near two members are, given what they are compared by.

    With G the representation, U the rotation and λ the precision of the metric::

        a = G U                                axes of the metric
        u = a / sqrt(|a|² + eps)               a point on the unit sphere (or u = a)
        s = u ∘ sqrt(λ)
        d²_ijb = |s_ib − s_jb|²
        κ_ijb = exp(−d²_ijb / h_jb)            base kernel
        k_ij = mean_b κ_ijb                    kernel between members

    Parameters
    ----------
    metric : Metric, default=Metric()
        λ and U. A common factor of λ cancels in the bandwidth unless that is fixed.
    bandwidth : {"reference", "paper"} or float, default="reference"
        h, in units of a squared distance: ``median_i(d²_ijb) / log M + 1e-12`` for each member j
        and row b (Trinh et al. 2024, reference implementation); the median over all pairs, for each
        row (their text); or a fixed number.
    unit_sphere : bool, default=True
        Whether directions alone are compared.
    eps : float, default=1e-24
        Added to squared norms, so that a vanishing representation maps to the centre of the
        sphere. Where the squared norm is no larger, the force is zero.

    Raises
    ------
    ValueError
        If the bandwidth is neither a known rule nor a positive number.
    """

    metric: Metric = field(default_factory=Metric)
    bandwidth: str | float = "reference"
    unit_sphere: bool = True
    eps: float = 1e-24

    def __post_init__(self) -> None:
        known = self.bandwidth in BANDWIDTHS
        if not known and not (isinstance(self.bandwidth, int | float) and self.bandwidth > 0):
            raise ValueError(
                f"Got bandwidth={self.bandwidth!r}, but expected one of {BANDWIDTHS} or a number "
                "> 0."
            )

    def to(self, like: Tensor) -> Kernel:
        """Return the kernel with its metric on the device and in the dtype of `like`."""
        return replace(self, metric=self.metric.to(like))

    @torch.no_grad()
    def compare(self, representation: Tensor) -> Comparison:
        """Compare every member with every other at every row.

        Parameters
        ----------
        representation : Tensor of shape (M, B, K)
            What M members are compared by at B rows: their input gradients, for example.

        Returns
        -------
        Comparison

        Raises
        ------
        ValueError
            If a shape does not fit.
        """
        rotation, precision = self.metric
        _check_shapes(representation, rotation, precision)
        scale = None if precision is None else self._scale(precision)
        axes = representation if rotation is None else representation @ rotation
        direction, inverse_norm = axes, None
        if self.unit_sphere:
            sq_norm = axes.square().sum(-1, keepdim=True)
            inverse_norm = (sq_norm + self.eps).rsqrt()
            direction = axes * inverse_norm
            # What vanishes has no direction to turn; the quotient would be up to 1/sqrt(eps).
            inverse_norm = torch.where(sq_norm > self.eps, inverse_norm, 0.0)
        point = direction if scale is None else direction * scale

        # Rows first, so that each row is one small matrix problem. Only differences matter; taking
        # them from the first member makes those between identical members cancel exactly.
        point = (point - point[:1]).transpose(0, 1).contiguous()  # (B, M, K)
        # The exact mode: the Gram matrix's |x|² + |y|² − 2xy loses small distances.
        distance = torch.cdist(point, point, compute_mode="donot_use_mm_for_euclid_dist")
        sq_dist = distance.square()  # (B, M, M)
        bandwidth = self._bandwidth(sq_dist)
        return Comparison(
            torch.exp(-sq_dist / bandwidth),
            bandwidth,
            _Points(point, scale, rotation, direction, inverse_norm),
        )

    def _scale(self, precision: Tensor) -> Tensor:
        if self.bandwidth not in BANDWIDTHS:
            return precision.sqrt()
        # A common factor cancels in the bandwidth, but for the floor of that.
        largest = precision.max()
        return (precision / torch.where(largest > 0, largest, 1.0)).sqrt()

    def _bandwidth(self, sq_dist: Tensor) -> Tensor:
        """Bandwidths of the second argument's members, (B, 1, M), or of all, (B, 1, 1)."""
        if self.bandwidth == "reference":
            medians = _median(sq_dist).unsqueeze(1)
        elif self.bandwidth == "paper":
            medians = _median(sq_dist.flatten(1)).view(-1, 1, 1)
        else:
            return sq_dist.new_full((1, 1, 1), float(self.bandwidth))
        # A single member is at distance zero from itself, whatever the bandwidth.
        return medians / math.log(max(sq_dist.shape[-1], 2)) + 1e-12


class _Points(NamedTuple):
    """Where members are, and the steps that led there from their representations."""

    point: Tensor  # (B, M, K)
    scale: Tensor | None
    rotation: Tensor | None
    direction: Tensor  # (M, B, K)
    inverse_norm: Tensor | None


class Comparison(NamedTuple):
    """Kernel values between members, with the way from there to their representations.

    Parameters
    ----------
    base_kernel : Tensor of shape (B, M, M)
        κ_ijb, with rows first; i is the member that moves.
    bandwidth : Tensor of shape (B, 1, M) or (B, 1, 1) or (1, 1, 1)
        h of member j.
    points : tuple
        The members' points and how they were computed.
    """

    base_kernel: Tensor
    bandwidth: Tensor
    points: _Points

    @torch.no_grad()
    def kernel_gradient(self, weight: Tensor) -> Tensor:
        """Gradient of the weighted kernel sums with respect to the first argument.

        Parameters
        ----------
        weight : Tensor of shape (M,) or ()
            w_i.

        Returns
        -------
        Tensor of shape (M, B, K)
            Gradient of ``Σ_i w_i Σ_jb κ_ijb`` with respect to the representation, where j, h and w
            are held constant::

                q_ijb = w_i κ_ijb / h_jb
                ∂/∂s_ib = −2 Σ_j q_ijb (s_ib − s_jb)
                ∂/∂a_ib = (∂u − u (u·∂u)) / sqrt(|a|² + eps),    ∂u = sqrt(λ) ∘ ∂s
                ∂/∂G = ∂a Uᵀ
        """
        point, scale, rotation, direction, inverse_norm = self.points
        q = self.base_kernel * (weight.unsqueeze(-1) / self.bandwidth)
        grad_point = -2 * (q.sum(-1, keepdim=True) * point - q @ point)
        grad = grad_point.transpose(0, 1)  # (M, B, K)
        if scale is not None:
            grad = grad * scale
        if inverse_norm is not None:
            radial = (direction * grad).sum(-1, keepdim=True)
            grad = inverse_norm * (grad - direction * radial)
        return grad if rotation is None else grad @ rotation.T


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
            f"Got a lengthscale whose rotation has shape {tuple(rotation.shape)}, but expected "
            f"{(width, width)} in this space."
        )
    if precision is not None and precision.shape != (width,):
        raise ValueError(
            f"Got a lengthscale whose precision has shape {tuple(precision.shape)}, but expected "
            f"{(width,)} in this space."
        )
