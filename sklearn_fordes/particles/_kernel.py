"""The kernel between members, and how a force between them is pulled back to what they are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sklearn_fordes.particles._lengthscales import Metric

BANDWIDTHS = ("reference", "paper")
# Pairs of members, over rows, whose distances are held at a time.
_PAIRS_AT_A_TIME = 1 << 22


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

        Notes
        -----
        With w_i = 1 and h held constant, the gradient is::

            q_ijb = κ_ijb / h_jb
            ∂/∂s_ib = −2 Σ_j q_ijb (s_ib − s_jb)
            ∂/∂a_ib = (∂u − u (u·∂u)) / sqrt(|a|² + eps),    ∂u = sqrt(λ) ∘ ∂s
            ∂/∂G = ∂a Uᵀ

        Rows are taken so many at a time that memory is O(M B K + M²), whatever M² B is. The
        transforms of `torch.func` can't follow (nor need they: the derivative is here).
        """
        rotation, precision = self.metric
        _check_shapes(representation, rotation, precision)
        scale = None if precision is None else self._scale(precision)
        # Rows first, so that each row is one small matrix problem.
        axes = representation.transpose(0, 1)
        axes = axes.contiguous() if rotation is None else axes @ rotation
        direction, inverse_norm = axes, None
        if self.unit_sphere:
            sq_norm = torch.linalg.vecdot(axes, axes).unsqueeze(-1)
            inverse_norm = (sq_norm + self.eps).rsqrt_()
            direction = axes * inverse_norm
            # What vanishes has no direction to turn; the quotient would be up to 1/sqrt(eps).
            inverse_norm = inverse_norm.masked_fill_(sq_norm <= self.eps, 0.0)
        point = direction if scale is None else direction * scale
        # Only differences matter; taking them from the first member makes those between identical
        # members cancel exactly.
        point = point - point[:, :1]  # (B, M, K)

        n_rows, n_members, _ = point.shape
        total = point.new_zeros(n_members, n_members)
        grads = []
        for rows in point.split(_rows_at_a_time(n_members)):
            of_rows, grad = self._compare_at(rows)
            total += of_rows
            grads.append(grad)
        grad = torch.cat(grads) if len(grads) > 1 else grads[0]
        if scale is not None:
            grad = grad * scale
        if inverse_norm is not None:
            radial = torch.linalg.vecdot(direction, grad).unsqueeze(-1)
            grad = torch.addcmul(grad, direction, radial, value=-1).mul_(inverse_norm)
        if rotation is not None:
            grad = grad @ rotation.T
        return Comparison(total / n_rows, grad.transpose(0, 1))

    def _compare_at(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """Return Σ_b κ_ijb (M, M) and the gradients with respect to points (B, M, K)."""
        sq_dist = _sq_distances(point)
        bandwidth = self._bandwidth(sq_dist)
        base_kernel = torch.exp(sq_dist.div_(bandwidth).neg_())
        total = base_kernel.sum(0)
        q = base_kernel.div_(bandwidth)
        # −2 (Σ_j q s_i − Σ_j q s_j)
        return total, torch.baddbmm(q.sum(-1, keepdim=True) * point, q, point, beta=-2, alpha=2)

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


class Comparison(NamedTuple):
    """How near members are, and how that changes as they move.

    Parameters
    ----------
    kernel : Tensor of shape (M, M)
        ``k_ij``, the mean of κ_ijb over rows; i is the member that moves.
    gradient : Tensor of shape (M, B, K)
        Of ``Σ_jb κ_ijb`` with respect to the representation of member i, where j and the bandwidth
        are held constant.
    """

    kernel: Tensor
    gradient: Tensor


def _sq_distances(point: Tensor) -> Tensor:
    """(B, M, K) → (B, M, M), small ones as exact as the points: the force is an inverse of them."""
    if point.dtype == torch.float64 or point.device.type == "mps":
        distance = torch.cdist(point, point, compute_mode="donot_use_mm_for_euclid_dist")
        return distance.square_()
    # |x|² + |y|² − 2xy rounds by less, in double precision, than the points are apart in single.
    wide = point.double()
    sq_norm = torch.linalg.vecdot(wide, wide)
    sums = sq_norm.unsqueeze(-1) + sq_norm.unsqueeze(-2)
    return torch.baddbmm(sums, wide, wide.mT, alpha=-2).to(point.dtype).clamp_(min=0)


def _rows_at_a_time(n_members: int) -> int:
    return max(1, _PAIRS_AT_A_TIME // n_members**2)


def _median(values: Tensor) -> Tensor:
    """Median along the last axis; the mean of the two middle values where their count is even.

    ``torch.median`` returns the lower one: with two members, the distance of one to itself.
    """
    n = values.shape[-1]
    lower, upper = (n - 1) // 2, n // 2
    if values.device.type == "cpu":
        # numpy sorts short rows several times as fast as torch selects from them.
        in_order = torch.from_numpy(np.sort(values.numpy(), axis=-1))
    else:
        in_order = values.topk(upper + 1, largest=False).values
    return (in_order[..., lower] + in_order[..., upper]) / 2


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
