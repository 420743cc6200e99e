"""Activations of the default network, with the derivatives that training needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

EmptyLike = Callable[[Tensor], Tensor]


class Derivatives(NamedTuple):
    """Value and slope at every row, curvature at the first rows; None stands for zero."""

    value: Tensor
    slope: Tensor
    curvature: Tensor | None


class Activation(NamedTuple):
    """An activation as a layer and as a function with derivatives.

    `differentiate` takes preactivations (M, B, H), which it may overwrite, n_rows, and what gives
    memory of a tensor's shape.
    """

    layer: type[nn.Module]
    differentiate: Callable[[Tensor, int, EmptyLike], Derivatives]


def _silu(a: Tensor, n_rows: int, empty_like: EmptyLike) -> Derivatives:
    s = torch.sigmoid(a, out=empty_like(a))
    value = a.mul_(s)
    first_s = empty_like(s[:, :n_rows]).copy_(s[:, :n_rows])
    slope = torch.lerp(value, s.new_ones(1), s, out=s)  # s + a s (1 − s)
    curvature = None
    if n_rows:  # (1 − s) (s + slope − a s²)
        curvature = empty_like(first_s)
        torch.addcmul(slope[:, :n_rows], value[:, :n_rows], first_s, value=-1, out=curvature)
        curvature.add_(first_s)
        torch.addcmul(curvature, curvature, first_s, value=-1, out=curvature)
    return Derivatives(value, slope, curvature)


def _gelu(a: Tensor, n_rows: int, empty_like: EmptyLike) -> Derivatives:
    cdf = torch.special.ndtr(a, out=empty_like(a))
    pdf = torch.square(a, out=empty_like(a)).mul_(-0.5).exp_().div_(math.sqrt(2 * math.pi))
    curvature = None
    if n_rows:
        first = a[:, :n_rows]
        curvature = torch.mul(first, first, out=empty_like(first))
        curvature.neg_().add_(2).mul_(pdf[:, :n_rows])
    slope = torch.addcmul(cdf, a, pdf, out=pdf)
    return Derivatives(a.mul_(cdf), slope, curvature)


def _tanh(a: Tensor, n_rows: int, empty_like: EmptyLike) -> Derivatives:
    value = a.tanh_()
    slope = torch.mul(value, value, out=empty_like(value)).neg_().add_(1)
    curvature = None
    if n_rows:
        first = value[:, :n_rows]
        curvature = torch.mul(first, slope[:, :n_rows], out=empty_like(first)).mul_(-2)
    return Derivatives(value, slope, curvature)


def _relu(a: Tensor, n_rows: int, empty_like: EmptyLike) -> Derivatives:  # noqa: ARG001
    slope = torch.gt(a, 0, out=empty_like(a))  # and no curvature anywhere
    return Derivatives(a.clamp_(min=0), slope, None)


ACTIVATIONS: dict[str, Activation] = {
    "gelu": Activation(nn.GELU, _gelu),
    "relu": Activation(nn.ReLU, _relu),
    "silu": Activation(nn.SiLU, _silu),
    "tanh": Activation(nn.Tanh, _tanh),
}
