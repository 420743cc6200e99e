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
        like = next(mean.parameters(), torch.zeros(1))
        self.raw_variance = nn.Parameter(torch.zeros(1, dtype=like.dtype, device=like.device))

    def forward(self, X: Tensor) -> Tensor:
        """Return mean and raw variance, (B, 2).

        Raises
        ------
        ValueError
            If the network's output is not (B, 1).
        """
        mean: Tensor = self.mean(X)
        if mean.shape != (len(X), 1):
            raise ValueError(
                f"Got output of shape {tuple(mean.shape)} from the module for {len(X)} rows, but "
                f"expected {(len(X), 1)}: a mean for each row, beside noise='homoscedastic'."
            )
        return torch.cat([mean, self.raw_variance.expand_as(mean)], dim=-1)
