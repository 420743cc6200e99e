"""The kernel between members and its gradient with respect to their representations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Real
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sklearn_fordes.particles._lengthscales import Lengthscale

BANDWIDTHS = ("reference", "paper")
# Pairs of members, over rows, whose distances are held at a time.
_PAIRS_AT_A_TIME = 1 << 22


@contextmanager
def exact() -> Iterator[None]:
    """Compute without autograd, and in the inputs' precision under autocast."""
    with (
        torch.no_grad(),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
    ):
        yield


class KernelValues(NamedTuple):
    """Kernel between members, and its gradient.

    Parameters
    ----------
    kernel : Tensor of shape (M, M)
        ``k_ij``, the mean of κ_ijb over rows; i is the member that moves.
    gradient : Tensor of shape (M, B, K)
        Gradient of ``Σ_jb κ_ijb`` with respect to the representation of member i, where j and the
        bandwidth are held constant.
    """

    kernel: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class Kernel:
    r"""Gaussian kernel between the members' representations.

    With G the representation, U the rotation and λ the precision of the lengthscale::

        a = G U                                axes of the lengthscale
        u = a / sqrt(|a|² + eps)               a point on the unit sphere (or u = a)
        s = u ∘ sqrt(λ)
        d²_ijb = |s_ib − s_jb|²
        κ_ijb = exp(−d²_ijb / h_jb)            base kernel
        k_ij = mean_b κ_ijb                    kernel between members

    A subclass is another kernel if it overrides `base_kernel`.

    Parameters
    ----------
    lengthscale : Lengthscale, default=Lengthscale()
        λ and U. A common factor of λ cancels in the bandwidth unless that is fixed.
    bandwidth : {"reference", "paper"} or float, default="reference"
        h, in units of a squared distance: ``median_i(d²_ijb) / log M + 1e-12`` for each member j
        and row b (Trinh et al. 2024, reference implementation); the median over all pairs, for each
        row (their text); or a fixed number.
    unit_sphere : bool, default=True
        Whether only the directions of the representations are compared.
    eps : float, default=1e-24
        Added to squared norms, so that a vanishing representation maps to the centre of the
        sphere. Where the squared norm is no larger, the force is zero.
    """

    lengthscale: Lengthscale = field(default_factory=Lengthscale)
    bandwidth: str | float = "reference"
    unit_sphere: bool = True
    eps: float = 1e-24

    def __post_init__(self) -> None:
        is_number = isinstance(self.bandwidth, Real) and 0 < self.bandwidth < math.inf
        is_rule = isinstance(self.bandwidth, str) and self.bandwidth in BANDWIDTHS
        if not (is_number or is_rule):
            raise ValueError(
                f"Got bandwidth={self.bandwidth!r}, but expected one of {BANDWIDTHS} or a number "
                "> 0."
            )

    def base_kernel(self, sq_dist: Tensor, bandwidth: Tensor) -> tuple[Tensor, Tensor]:
        """Return κ(d²) and its slope −∂κ/∂d² (both like `sq_dist`, which may be overwritten)."""
        value = sq_dist.div_(bandwidth).neg_().exp_()
        return value, value / bandwidth

    @exact()
    def compare(self, representation: Tensor) -> KernelValues:
        """Compare all members with each other at every row.

        Parameters
        ----------
        representation : Tensor of shape (M, B, K)
            What M members are compared by at B rows: their input gradients, for example.

        Returns
        -------
        KernelValues

        Raises
        ------
        ValueError
            If a shape does not fit.

        Notes
        -----
        With h held constant, the gradient is::

            q_ijb = −∂κ_ijb/∂d²        (κ_ijb / h_jb for the Gaussian)
            ∂/∂s_ib = −2 Σ_j q_ijb (s_ib − s_jb)
            ∂/∂a_ib = (∂u − u (u·∂u)) / sqrt(|a|² + eps),    ∂u = sqrt(λ) ∘ ∂s
            ∂/∂G = ∂a Uᵀ

        It processes rows in chunks: memory is O(M B K + M²) instead of O(M² B). Autocast is off
        inside. The transforms of `torch.func` can't follow (nor do they need to: the derivative is
        here).
        """
        self._check_shapes(representation)
        rotation, precision = self.lengthscale
        scale = None if precision is None else self._scale(precision)
        # Rows come first, so that each row is one small matrix problem.
        axes = representation.transpose(0, 1)
        axes = axes.contiguous() if rotation is None else axes @ rotation
        direction, inverse_norm = on_sphere(axes, self.eps) if self.unit_sphere else (axes, None)
        point = direction if scale is None else direction * scale
        # Only differences matter; taking them from the first member makes those between identical
        # members cancel exactly.
        point = point - point[:, :1]  # (B, M, K)

        n_rows, n_members, _ = point.shape
        chunks = point.split(max(1, _PAIRS_AT_A_TIME // n_members**2))
        sums, grads = zip(*map(self._compare_at, chunks), strict=True)
        grad = torch.cat(grads)
        if scale is not None:
            grad = grad * scale
        if inverse_norm is not None:
            radial = torch.linalg.vecdot(direction, grad).unsqueeze(-1)
            grad = torch.addcmul(grad, direction, radial, value=-1).mul_(inverse_norm)
        if rotation is not None:
            grad = grad @ rotation.T
        return KernelValues(sum(sums[1:], sums[0]) / n_rows, grad.transpose(0, 1))

    def _compare_at(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """Return Σ_b κ_ijb (M, M) and the gradients with respect to points (B, M, K)."""
        sq_dist = _sq_distances(point)
        value, q = self.base_kernel(sq_dist, self._bandwidth(sq_dist))
        # −2 (Σ_j q s_i − Σ_j q s_j)
        own_terms = q.sum(-1, keepdim=True) * point
        return value.sum(0), torch.baddbmm(own_terms, q, point, beta=-2, alpha=2)

    def _scale(self, precision: Tensor) -> Tensor:
        if self.bandwidth not in BANDWIDTHS:
            return precision.sqrt()
        # A common factor cancels in the bandwidth, but not in the floor of the bandwidth.
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
        # log 1 = 0, but a single member is at distance zero from itself, whatever the bandwidth.
        return medians / math.log(max(sq_dist.shape[-1], 2)) + 1e-12

    def _check_shapes(self, representation: Tensor) -> None:
        if representation.ndim != 3 or 0 in representation.shape:
            raise ValueError(
                f"Got representation of shape {tuple(representation.shape)}, but expected "
                "(n_members, n_rows, n_features), none of them zero."
            )
        width = representation.shape[-1]
        for name, expected in (("rotation", (width, width)), ("precision", (width,))):
            part = getattr(self.lengthscale, name)
            if part is not None and part.shape != expected:
                raise ValueError(
                    f"Got a lengthscale whose {name} has shape {tuple(part.shape)}, but expected "
                    f"{expected} in this space."
                )


def on_sphere(vectors: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return points on the unit sphere, and the inverse norms that pull gradients back."""
    sq_norm = torch.linalg.vecdot(vectors, vectors).unsqueeze(-1)
    inverse_norm = (sq_norm + eps).rsqrt_()
    direction = vectors * inverse_norm
    # A zero vector has no direction: its gradient is zero instead of up to 1/sqrt(eps).
    return direction, inverse_norm.masked_fill_(sq_norm <= eps, 0.0)


def _sq_distances(point: Tensor) -> Tensor:
    """(B, M, K) → (B, M, M), small ones as exact as the points: the force divides by them."""
    if point.dtype == torch.float64 or point.device.type == "mps":
        distance = torch.cdist(point, point, compute_mode="donot_use_mm_for_euclid_dist")
        return distance.square_()
    # In double precision |x|² + |y|² − 2xy rounds by less than single precision separates points.
    wide = point.double()
    sq_norm = torch.linalg.vecdot(wide, wide)
    sums = sq_norm.unsqueeze(-1) + sq_norm.unsqueeze(-2)
    return torch.baddbmm(sums, wide, wide.mT, alpha=-2).to(point.dtype).clamp_(min=0)


def _median(values: Tensor) -> Tensor:
    """Median along the last axis; the mean of the two middle values if their count is even.

    ``torch.median`` returns the lower one: with two members, the distance of one to itself.
    """
    n = values.shape[-1]
    lower, upper = (n - 1) // 2, n // 2
    if values.device.type == "cpu" and values.dtype != torch.bfloat16:  # numpy has no bfloat16.
        # numpy sorts short rows several times as fast as torch selects from them.
        in_order = torch.from_numpy(np.sort(values.numpy(), axis=-1))
    else:
        in_order = values.topk(upper + 1, largest=False).values
    return (in_order[..., lower] + in_order[..., upper]) / 2
