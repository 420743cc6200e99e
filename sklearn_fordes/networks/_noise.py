"""A noise level on top of a network that predicts a mean."""

from functools import partial

import torch
from torch import Tensor, nn

from sklearn_fordes.particles import MemberFactory, accepts_generator


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
        like = next(mean.parameters(), torch.zeros(1))
        self.raw_variance = nn.Parameter(like.new_zeros(1))

    @property
    def rows_are_independent(self) -> bool:
        """Whether a row's output depends on no other row."""
        return bool(getattr(self.mean, "rows_are_independent", False))

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
                f"expected {(len(X), 1)}: a mean for each row with noise='homoscedastic'."
            )
        return torch.cat([mean, self.raw_variance.expand_as(mean)], dim=-1)


def with_homoscedastic_noise(make_mean: MemberFactory | nn.Module) -> MemberFactory | nn.Module:
    """Return a factory of `HomoscedasticNoise` around the networks of another factory.

    Parameters
    ----------
    make_mean : callable or nn.Module
        As in `Ensemble`.

    Returns
    -------
    callable or nn.Module
        It takes a ``generator`` if `make_mean` does.
    """
    if isinstance(make_mean, nn.Module):
        return HomoscedasticNoise(make_mean)
    return partial(_drawn if accepts_generator(make_mean) else _made, make_mean)


def _drawn(make_mean: MemberFactory, *, generator: torch.Generator) -> HomoscedasticNoise:
    return HomoscedasticNoise(make_mean(generator=generator))


def _made(make_mean: MemberFactory) -> HomoscedasticNoise:
    return HomoscedasticNoise(make_mean())
