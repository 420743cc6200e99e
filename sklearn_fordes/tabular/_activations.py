"""Activations of the default network, with the derivatives that training needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Derivatives(NamedTuple):
    """Value and slope at every row, curvature at the first rows; None stands for zero."""

    value: Tensor
    slope: Tensor
    curvature: Tensor | None


class Activation(NamedTuple):
    """An activation as a layer and as a function with derivatives.

    `differentiate` takes preactivations (M, B, H), which it may overwrite, and n_rows: fresh memory
    costs as much as the arithmetic.
    """

    layer: type[nn.Module]
    differentiate: Callable[[Tensor, int], Derivatives]


def _silu(a: Tensor, n_rows: int) -> Derivatives:
    s = torch.sigmoid(a)
    value = a.mul_(s)
    first_s = s[:, :n_rows].clone()
    slope = torch.lerp(value, s.new_ones(1), s, out=s)  # s + a s (1 − s)
    curvature = None
    if n_rows:
        curvature = (1 - first_s) * (first_s + slope[:, :n_rows] - value[:, :n_rows] * first_s)
    return Derivatives(value, slope, curvature)


def _gelu(a: Tensor, n_rows: int) -> Derivatives:
    cdf = torch.special.ndtr(a)
    pdf = torch.exp(-0.5 * a.square()) / math.sqrt(2 * math.pi)
    curvature = pdf[:, :n_rows] * (2 - a[:, :n_rows].square()) if n_rows else None
    return Derivatives(a * cdf, cdf + a * pdf, curvature)


def _tanh(a: Tensor, n_rows: int) -> Derivatives:
    value = torch.tanh(a)
    slope = 1 - value.square()
    curvature = -2 * value[:, :n_rows] * slope[:, :n_rows] if n_rows else None
    return Derivatives(value, slope, curvature)


def _relu(a: Tensor, n_rows: int) -> Derivatives:  # noqa: ARG001 (no curvature anywhere)
    return Derivatives(a.clamp(min=0), (a > 0).to(a.dtype), None)


ACTIVATIONS: dict[str, Activation] = {
    "gelu": Activation(nn.GELU, _gelu),
    "relu": Activation(nn.ReLU, _relu),
    "silu": Activation(nn.SiLU, _silu),
    "tanh": Activation(nn.Tanh, _tanh),
}
