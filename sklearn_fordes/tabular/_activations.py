"""Activations of the default network, with the derivatives that training needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sklearn_fordes.tabular._workspace import Lease


class Derivatives(NamedTuple):
    """Value and slope at every row, curvature at the first rows; None stands for zero."""

    value: Tensor
    slope: Tensor
    curvature: Tensor | None


class Activation(NamedTuple):
    """An activation as a layer, as a function, and as a function with derivatives.

    `function` may overwrite what it is given where autograd doesn't follow.
    `differentiate` takes preactivations (M, B, H), which it may overwrite, n_rows, and memory for
    the rest.
    """

    layer: type[nn.Module]
    function: Callable[[Tensor], Tensor]
    differentiate: Callable[[Tensor, int, Lease], Derivatives]


def _silu(a: Tensor, n_rows: int, memory: Lease) -> Derivatives:
    slope = memory.empty_like(a)
    curvature = memory.empty_like(a[:, :n_rows]) if n_rows else None
    s = torch.sigmoid(a, out=memory.scratch_like(a))
    value = a.mul_(s)
    torch.lerp(value, s.new_ones(1), s, out=slope)  # s + a s (1 − s)
    if curvature is not None:  # (1 − s) (2 slope − value)
        torch.lerp(value[:, :n_rows], slope[:, :n_rows], 2.0, out=curvature)
        torch.addcmul(curvature, curvature, s[:, :n_rows], value=-1, out=curvature)
    return Derivatives(value, slope, curvature)


def _gelu(a: Tensor, n_rows: int, memory: Lease) -> Derivatives:
    slope = memory.empty_like(a)
    curvature = memory.empty_like(a[:, :n_rows]) if n_rows else None
    cdf = torch.special.ndtr(a, out=memory.scratch_like(a))
    pdf = torch.square(a, out=slope).mul_(-0.5).exp_().div_(math.sqrt(2 * math.pi))
    if curvature is not None:
        torch.square(a[:, :n_rows], out=curvature).neg_().add_(2).mul_(pdf[:, :n_rows])
    torch.addcmul(cdf, a, pdf, out=slope)
    return Derivatives(a.mul_(cdf), slope, curvature)


def _tanh(a: Tensor, n_rows: int, memory: Lease) -> Derivatives:
    value = a.tanh_()
    slope = torch.square(value, out=memory.empty_like(value)).neg_().add_(1)
    curvature = None
    if n_rows:
        curvature = memory.empty_like(a[:, :n_rows])
        torch.mul(value[:, :n_rows], slope[:, :n_rows], out=curvature).mul_(-2)
    return Derivatives(value, slope, curvature)


def _relu(a: Tensor, n_rows: int, memory: Lease) -> Derivatives:  # noqa: ARG001
    slope = torch.gt(a, 0, out=memory.empty_like(a))  # and no curvature anywhere
    return Derivatives(a.clamp_(min=0), slope, None)


def _in_place(layer: type[nn.Module]) -> Callable[[Tensor], Tensor]:
    fresh, overwriting = layer(), layer(inplace=True)
    return lambda a: (fresh if torch.is_grad_enabled() else overwriting)(a)


ACTIVATIONS: dict[str, Activation] = {
    "gelu": Activation(nn.GELU, nn.GELU(), _gelu),
    "relu": Activation(nn.ReLU, _in_place(nn.ReLU), _relu),
    "silu": Activation(nn.SiLU, _in_place(nn.SiLU), _silu),
    "tanh": Activation(nn.Tanh, nn.Tanh(), _tanh),
}
