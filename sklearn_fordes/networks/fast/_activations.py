"""Activations of the default network, with the derivatives that training needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Derivatives(NamedTuple):
    """Value and slope at every row, curvature at the first rows; None stands for zero."""

    value: Tensor
    slope: Tensor
    curvature: Tensor | None


def _silu(a: Tensor, n_rows: int) -> Derivatives:
    s = _sigmoid(a)
    value = a.mul_(s)
    # lerp(x, y, t) = x + t (y − x), in one pass over memory: s + a s (1 − s).
    slope = torch.lerp(value, s.new_ones(1), s)
    if not n_rows:
        return Derivatives(value, slope, None)
    # The curvature is (1 − s) (2 slope − value).
    curvature = torch.lerp(value[:, :n_rows], slope[:, :n_rows], 2.0)
    return Derivatives(value, slope, curvature.addcmul_(curvature, s[:, :n_rows], value=-1))


def _sigmoid(a: Tensor) -> Tensor:
    if a.device.type != "cpu":
        return torch.sigmoid(a)
    # Torch's own rounds the last numbers of a thread's share in another way than the others, so
    # that a member's weights would depend on how many members there are.
    return torch.neg(a).exp_().add_(1).reciprocal_()


def _gelu(a: Tensor, n_rows: int) -> Derivatives:
    cdf = torch.special.ndtr(a)
    pdf = torch.square(a).mul_(-0.5).exp_().div_(math.sqrt(2 * math.pi))
    curvature = None
    if n_rows:
        curvature = torch.square(a[:, :n_rows]).neg_().add_(2).mul_(pdf[:, :n_rows])
    slope = torch.addcmul(cdf, a, pdf)
    return Derivatives(a.mul_(cdf), slope, curvature)


def _tanh(a: Tensor, n_rows: int) -> Derivatives:
    value = a.tanh_()
    slope = torch.square(value).neg_().add_(1)
    curvature = torch.mul(value[:, :n_rows], slope[:, :n_rows]).mul_(-2) if n_rows else None
    return Derivatives(value, slope, curvature)


def _relu(a: Tensor, n_rows: int) -> Derivatives:  # noqa: ARG001 (its curvature is zero)
    slope = (a > 0).to(a.dtype)
    return Derivatives(a.relu_(), slope, None)


# Each takes preactivations (M, B, H), which it overwrites because nothing else needs them, and the
# number of rows that need a curvature.
DERIVATIVES: dict[str, Callable[[Tensor, int], Derivatives]] = {
    "gelu": _gelu,
    "relu": _relu,
    "silu": _silu,
    "tanh": _tanh,
}
