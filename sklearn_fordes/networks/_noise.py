"""A noise level on top of a network that predicts a mean."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from sklearn_fordes.particles import MemberFactory, call_seeded


class HomoscedasticNoise(nn.Module):
    """A network that predicts a mean, and one learnt noise level for all rows.

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
        like = next(mean.parameters(), torch.zeros(1, dtype=torch.float32, device="cpu"))
        self.raw_variance = nn.Parameter(torch.zeros(1, dtype=like.dtype, device=like.device))

    @classmethod
    def draw(cls, make_mean: MemberFactory, *, generator: torch.Generator) -> Self:
        """Make one around a network drawn from a generator.

        ``partial(HomoscedasticNoise.draw, make_mean)`` is a factory of members for `stack_members`.

        Parameters
        ----------
        make_mean : callable
            Returns a network. It is called with the generator if it has an argument of that name.
        generator : torch.Generator

        Returns
        -------
        HomoscedasticNoise
        """
        return cls(call_seeded(make_mean, generator))

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
