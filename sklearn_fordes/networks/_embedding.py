"""Numbers as several features each, so that a network can be sharp in them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn


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
        Standard deviation of the initial frequencies, in periods per unit of the input.
    generator : torch.Generator, optional
        Draws the initial weights. None is torch's global generator.

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
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        shape = (len(features), n_frequencies)
        # Type and device are explicit, for scripts change torch's defaults.
        normal = torch.empty(shape, dtype=torch.float32, device="cpu")
        normal.normal_(generator=generator)

        def uniform(bound: float, *shape: int) -> nn.Parameter:
            draws = torch.empty(shape, dtype=torch.float32, device="cpu")
            return nn.Parameter(bound * (2 * draws.uniform_(generator=generator) - 1))

        self.frequency = nn.Parameter(2 * math.pi * frequency_scale * normal)
        self.phase = uniform(math.pi, *shape)
        bound = n_frequencies**-0.5  # as in nn.Linear
        self.weight = uniform(bound, *shape, n_components)
        self.bias = uniform(bound, len(features), n_components)
        columns = torch.as_tensor(features, dtype=torch.int64, device="cpu")
        self.register_buffer("features", columns)

    @property
    def n_added(self) -> int:
        """Number of columns that are appended."""
        return self.bias.numel()

    def forward(self, X: Tensor) -> Tensor:
        """Return (B, n_features + D · K)."""
        numbers = X[:, cast("Tensor", self.features)]
        return torch.cat([X, components(numbers, self.parameters())], dim=1)


def components(numbers: Tensor, parameters: Iterable[Tensor]) -> Tensor:
    """Embed numbers.

    Parameters
    ----------
    numbers : Tensor of shape (..., B, D)
    parameters : iterable of Tensor
        Of a `PeriodicEmbedding`: frequency and phase (..., D, F), in radians, weight
        (..., D, F, K) and bias (..., D, K).

    Returns
    -------
    Tensor of shape (..., B, D · K)
    """
    frequency, phase, weight, bias = parameters
    # Rows last: one matrix product for each column, whose short side comes first.
    # (…, D, F, B)
    angle = torch.addcmul(phase.unsqueeze(-1), frequency.unsqueeze(-1), numbers.mT.unsqueeze(-2))
    cos = angle.cos() if torch.is_grad_enabled() else angle.cos_()
    value = weight.mT @ cos + bias.unsqueeze(-1)  # (…, D, K, B)
    return value.flatten(-3, -2).mT
