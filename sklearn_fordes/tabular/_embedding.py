"""Numbers as several features each, so that a network can be sharp in them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn


class Components(NamedTuple):
    """What an embedding makes of numbers (..., B, D).

    Parameters
    ----------
    value : Tensor of shape (..., B, D, K)
    slope : Tensor of shape (..., n_rows, D, K)
        Derivative of each component with respect to its number, at the first rows.
    """

    value: Tensor
    slope: Tensor


class PeriodicEmbedding(nn.Module):
    """Append to a row K learnt periodic components of each of some columns.

    A number x becomes ``W cos(2π (f x + φ)) + c`` with F frequencies f and phases φ of its own
    (Gorishniy, Rubachev, Babenko: On embeddings for numerical features in tabular deep learning,
    NeurIPS 2022; with phases and few components as in RealMLP, Holzmüller et al. 2024).

    Parameters
    ----------
    features : sequence of int
        Which columns are embedded, D of them.
    n_frequencies : int, default=16
        F.
    n_components : int, default=3
        K.
    frequency_scale : float, default=0.3
        Standard deviation of the frequencies at first, in periods per unit of the input.

    Examples
    --------
    >>> embedding = PeriodicEmbedding([0, 2], n_components=3)
    >>> embedding(torch.ones(5, 4)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        features: Sequence[int],
        *,
        n_frequencies: int = 16,
        n_components: int = 3,
        frequency_scale: float = 0.3,
    ) -> None:
        super().__init__()
        n_features = len(features)
        shape = (n_features, n_frequencies)
        self.frequency = nn.Parameter(2 * math.pi * frequency_scale * torch.randn(shape))
        self.phase = nn.Parameter(math.pi * (2 * torch.rand(shape) - 1))
        bound = n_frequencies**-0.5  # as in nn.Linear
        self.weight = nn.Parameter(bound * (2 * torch.rand(*shape, n_components) - 1))
        self.bias = nn.Parameter(bound * (2 * torch.rand(n_features, n_components) - 1))
        self.register_buffer("features", torch.as_tensor(features, dtype=torch.int64))

    @property
    def n_added(self) -> int:
        """How many columns are appended."""
        return self.bias.numel()

    def forward(self, X: Tensor) -> Tensor:
        """Return (B, n_features + D · K)."""
        numbers = X[:, cast("Tensor", self.features)]
        value = components(numbers, self.parameters()).value
        return torch.cat([X, value.flatten(1)], dim=1)


def components(numbers: Tensor, parameters: Iterable[Tensor], n_rows: int = 0) -> Components:
    """Embed numbers, and differentiate at the first rows.

    Parameters
    ----------
    numbers : Tensor of shape (..., B, D)
    parameters : iterable of Tensor
        Of a `PeriodicEmbedding`: frequency and phase (..., D, F), in radians, weight
        (..., D, F, K) and bias (..., D, K).
    n_rows : int, default=0

    Returns
    -------
    Components
    """
    frequency, phase, weight, bias = parameters
    # (…, D, B, F): one matrix product for each column.
    frequency = frequency.unsqueeze(-2)
    angle = numbers.mT.unsqueeze(-1) * frequency + phase.unsqueeze(-2)
    value = angle.cos() @ weight + bias.unsqueeze(-2)
    slope = -(angle[..., :n_rows, :].sin() * frequency) @ weight
    return Components(value.transpose(-3, -2), slope.transpose(-3, -2))
