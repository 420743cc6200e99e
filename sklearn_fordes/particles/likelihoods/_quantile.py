"""Numbers with a distribution of any shape, given by its quantiles at a fixed grid of levels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sklearn_fordes.particles.likelihoods._base import RealLikelihood

# The median comes first, then the levels above it and those below it, from the inside out.
_ABOVE = (*(0.5 + 0.05 * i for i in range(1, 10)), 0.975, 0.99)
LEVELS = (*sorted(1 - level for level in _ABOVE), 0.5, *_ABOVE)


@dataclass(frozen=True)
class QuantileLikelihood(RealLikelihood):
    """Outputs are the median and raw distances between quantiles at neighbouring levels.

    With levels ``l_1 < … < l_K`` and z the outputs, a distance is ``softplus(z + b)``, positive, so
    that quantiles never cross; b makes the quantiles of a standard normal distribution of z = 0.
    Between the levels, and beyond the outer ones, a member's quantile function is linear. The
    mixture averages the members' distribution functions.
    """

    levels = LEVELS
    n_outputs = len(LEVELS)
    outputs_are = f"a median and {len(LEVELS) - 1} raw distances between quantiles"

    def knots(self, outputs: Tensor) -> Tensor:
        """Return the quantiles of each member at all levels, (..., K), increasing."""
        n_above = len(_ABOVE)
        gaps = torch.special.ndtri(outputs.new_tensor(LEVELS)).diff()
        inverse_softplus = gaps + (-torch.expm1(-gaps)).log()
        median, above, below = outputs.split([1, n_above, n_above], dim=-1)
        above = torch.nn.functional.softplus(above + inverse_softplus[n_above:]).cumsum(-1)
        below = torch.nn.functional.softplus(below + inverse_softplus[n_above:]).cumsum(-1)
        return torch.cat([median - below.flip(-1), median, median + above], dim=-1)

    def constant_outputs(self, y: Tensor, weight: Tensor | None) -> Tensor:
        """Return those of a standard normal distribution."""
        return y.new_zeros(self.n_outputs)

    def row_losses(self, outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return twice the mean pinball loss over the levels (M, B), and its gradient.

        For a fine grid of equidistant levels this is the continuous ranked probability score.
        """
        followed = outputs.detach().clone().requires_grad_()
        with torch.enable_grad():
            losses = _pinball(self.knots(followed), y)
            (gradient,) = torch.autograd.grad(losses.sum(), followed)
        return losses.detach(), gradient

    def mixture_losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return twice the mean pinball loss of the mixture's quantiles, (B,)."""
        return _pinball(self.quantiles(outputs, outputs.new_tensor(LEVELS)), y).to(outputs.dtype)

    def losses_of_more(self, outputs: Tensor, y: Tensor, n_members: int) -> Tensor:
        """Return the losses of these members' mixture: a pinball loss is no density's."""
        return self.mixture_losses(outputs, y)

    def moments(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of each member's piecewise uniform distribution."""
        levels, values = self._ends(outputs)
        share, low, high = levels.diff(), values[..., :-1], values[..., 1:]
        mean = (share * (low + high)).sum(-1) / 2
        low, high = low - mean.unsqueeze(-1), high - mean.unsqueeze(-1)
        variance = (share * (low.square() + low * high + high.square())).sum(-1) / 3
        return mean, variance

    def member_quantiles(self, outputs: Tensor, levels: Tensor) -> Tensor:
        """Interpolate each member's quantiles, (M, B, L)."""
        known, values = self._ends(outputs)
        index = torch.searchsorted(known, levels, right=True).clamp(1, len(known) - 1)
        low, high = values[..., index - 1], values[..., index]
        share = (levels - known[index - 1]) / (known[index] - known[index - 1])
        return low + share * (high - low)

    def member_cdf(self, outputs: Tensor, values: Tensor) -> Tensor:
        """Interpolate each member's levels, (M, B, L)."""
        levels, knots = self._ends(outputs)
        values = values.expand(*knots.shape[:-1], values.shape[-1]).contiguous()
        index = torch.searchsorted(knots.contiguous(), values).clamp(1, len(levels) - 1)
        low, high = knots.gather(-1, index - 1), knots.gather(-1, index)
        share = ((values - low) / (high - low).clamp(min=1e-300)).clamp(0, 1)
        return levels[index - 1] + share * (levels[index] - levels[index - 1])

    def _ends(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return levels and quantiles with those at 0 and 1, on the lines through the outer two."""
        levels, knots = outputs.new_tensor((0.0, *LEVELS, 1.0)), self.knots(outputs)
        slope = knots.diff(dim=-1) / levels[1:-1].diff()
        lowest = knots[..., :1] - slope[..., :1] * levels[1]
        highest = knots[..., -1:] + slope[..., -1:] * (1 - levels[-2])
        return levels, torch.cat([lowest, knots, highest], dim=-1)


def _pinball(quantiles: Tensor, y: Tensor) -> Tensor:
    """Return twice the mean over levels of the pinball loss, (..., B, K), (B,) → (..., B)."""
    levels, below = quantiles.new_tensor(LEVELS), y.unsqueeze(-1) - quantiles
    return 2 * torch.maximum(levels * below, (levels - 1) * below).mean(-1)
