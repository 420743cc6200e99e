"""What is put on top of a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class HomoscedasticNoise(nn.Module):
    """A network that predicts a mean, beside one learnt noise level for all rows.

    Parameters
    ----------
    mean : nn.Module
        Maps rows (B, ...) to means (B, 1).

    Examples
    --------
    >>> HomoscedasticNoise(nn.Linear(3, 1))(torch.ones(4, 3)).shape
    torch.Size([4, 2])
    """

    def __init__(self, mean: nn.Module) -> None:
        super().__init__()
        self.mean = mean
        self.raw_variance = nn.Parameter(torch.zeros(1))

    def forward(self, X: Tensor) -> Tensor:
        """Return mean and raw variance, (B, 2)."""
        mean: Tensor = self.mean(X)
        return torch.cat([mean, self.raw_variance.expand_as(mean)], dim=-1)
