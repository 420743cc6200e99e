"""Dropout whose masks belong to a member, whoever holds it and however many there are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

# SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014).
# Torch has signed integers only, which multiply and add as unsigned ones do.
_STEP = 0x9E3779B97F4A7C15 - (1 << 64)
_ROUNDS = [(30, 0xBF58476D1CE4E5B9 - (1 << 64)), (27, 0x94D049BB133111EB - (1 << 64))]
_LAST_SHIFT = 31
# Another odd number, so that the words of one call are not those of the next one, moved by one.
_CALL = 0xD1342543DE82EF95 - (1 << 64)
# Each word of 64 random bits gives four draws of 16 bits: a rate is a multiple of 1 / 65536.
_DRAWS_A_WORD = 4
_N_DRAWS = 1 << 16


class Dropout(nn.Module):
    """Dropout by a counter-based generator of its own.

    A mask depends on the layer's key, on the number of calls so far and on the position in the
    batch, and on nothing else. So a member's masks do not depend on the global generators, on the
    other members of its ensemble or on the device, and a saved member goes on where it was.

    Parameters
    ----------
    p : float
        Probability of zeroing an entry in training, in [0, 1). It is rounded to a multiple of
        1 / 65536.
    generator : torch.Generator, optional
        Draws the key. None is torch's global generator.

    Attributes
    ----------
    draws : Tensor of shape (2,)
        Key and number of calls, int64.

    Examples
    --------
    >>> dropout = Dropout(0.5, generator=torch.Generator().manual_seed(0))
    >>> dropout(torch.ones(2, 4)).unique()
    tensor([0., 2.])
    """

    def __init__(self, p: float, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.p = float(p)
        self.register_buffer("draws", torch.zeros(2, dtype=torch.int64, device="cpu"))
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw another key, and count calls from zero."""
        draws = cast("Tensor", self.draws)
        draws.zero_()[0].random_(-(1 << 63), None, generator=generator)

    def forward(self, X: Tensor) -> Tensor:
        """Return X, in training with some entries zero and the others divided by 1 − p."""
        if not self.training:
            return X
        return X * dropout_mask(cast("Tensor", self.draws), X.shape, self.p, X.dtype)

    def extra_repr(self) -> str:
        return f"p={self.p}"


@torch.no_grad()
def dropout_mask(draws: Tensor, shape: Sequence[int], p: float, dtype: torch.dtype) -> Tensor:
    """Make the masks of the next call, and count it.

    Parameters
    ----------
    draws : Tensor of shape (2,) or (M, 2)
        Key and number of calls, of one layer or of M members' layers. The number is increased in
        place.
    shape : sequence of int
        Of one member's mask.
    p : float
    dtype : torch.dtype

    Returns
    -------
    Tensor of shape (*shape) or (M, *shape)
        Zeros at a rate of p, and elsewhere the number that makes the mean one.
    """
    n_zeros = min(round(p * _N_DRAWS), _N_DRAWS - 1)
    size = math.prod(shape)
    position = torch.arange(-(-size // _DRAWS_A_WORD), device=draws.device).mul_(_STEP)
    key, n_calls = draws[..., :1], draws[..., 1:]
    words = _scramble(position + (key + n_calls * _CALL))
    n_calls.add_(1)
    small = words.view(torch.int16)[..., :size]  # Sixteen bits as a signed number.
    lowest = n_zeros - _N_DRAWS // 2  # that is kept
    # Comparing into bools is not vectorised, and comparing in place not batched by vmap.
    kept = small.clamp(lowest - 1, lowest).sub_(lowest - 1) if n_zeros else torch.ones_like(small)
    mask = kept.to(dtype).mul_(_N_DRAWS / (_N_DRAWS - n_zeros))
    return mask.view(*mask.shape[:-1], *shape)


def _scramble(words: Tensor) -> Tensor:
    """Turn numbers that differ in few bits into independent ones, in place."""
    for shift, factor in _ROUNDS:
        words.bitwise_xor_(_shifted(words, shift)).mul_(factor)
    return words.bitwise_xor_(_shifted(words, _LAST_SHIFT))


def _shifted(words: Tensor, n_bits: int) -> Tensor:
    """Shift to the right as unsigned numbers: torch's own shift repeats the sign."""
    return (words >> n_bits).bitwise_and_((1 << (64 - n_bits)) - 1)
