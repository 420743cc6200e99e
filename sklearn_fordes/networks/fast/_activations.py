"""Activations of the default network, with the derivatives that training needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

# Torch computes a multiple of so many numbers as vectors, and what remains one by one.
_AT_A_TIME = 32
# Torch gives a thread so many numbers at least.
_FEWEST_OF_A_THREAD = 32768


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
    """Return the sigmoid of each member's numbers, bit by bit the same for any number of members.

    On a CPU, torch rounds the last numbers of a thread's share in another way than the others.
    """
    n_pieces = max(1, min(torch.get_num_threads(), -(-a.numel() // _FEWEST_OF_A_THREAD)))
    share = -(-a.numel() // n_pieces)
    if a.device.type != "cpu" or not (share % _AT_A_TIME or a[0].numel() % _AT_A_TIME):
        return torch.sigmoid(a)
    s = torch.empty_like(a)
    for of_member, out in zip(a, s, strict=True):
        torch.sigmoid(of_member, out=out)
    return s


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
