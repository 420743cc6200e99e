"""Numbers with Gaussian noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sklearn_fordes.particles.likelihoods._base import RealLikelihood

# In units of the target's variance.
_SMALLEST_VARIANCE = 1e-6


@dataclass(frozen=True)
class GaussianLikelihood(RealLikelihood):
    """Outputs are a mean and a number that softplus turns into a variance.

    Parameters
    ----------
    beta : float, default=0.0
        The gradient of a row's loss is multiplied by its variance to this power. With 0 it is that
        of the negative log density, which learns little where a member is unsure, and with 1 the
        mean is learnt as by the squared error (Seitzer, Tavakoli, Antic, Martius: On the pitfalls
        of heteroscedastic uncertainty estimation with probabilistic neural networks, ICLR 2022).
    """

    beta: float = 0.0

    n_outputs = 2
    smallest_variance = _SMALLEST_VARIANCE
    outputs_are = "a mean and what softplus turns into a variance"

    def constant_outputs(self, y: Tensor, weight: Tensor | None) -> Tensor:
        """Return those of mean 0 and variance 1."""
        return y.new_tensor([0.0, math.log(math.expm1(1.0))])

    def moments(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of each member's Gaussian, (..., B) of (..., B, 2)."""
        mean, raw = outputs.unbind(-1)
        return mean, torch.nn.functional.softplus(raw) + _SMALLEST_VARIANCE

    def row_losses(self, outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the negative log density in nats (M, B), and its gradient times variance^beta."""
        mean, variance = self.moments(outputs)
        residual = mean - y
        losses = 0.5 * (residual.square() / variance + variance.log() + math.log(2 * math.pi))
        grad_variance = 0.5 * (1 - residual.square() / variance) / variance
        grad_raw = grad_variance * outputs[..., 1].sigmoid()
        gradient = torch.stack([residual / variance, grad_raw], -1)
        return losses, gradient * variance.pow(self.beta).unsqueeze(-1) if self.beta else gradient

    def mixture_losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return ``−log mean_i N(y; i)`` in nats, (B,)."""
        mean, variance = self.moments(outputs)
        gaussians = torch.distributions.Normal(mean, variance.sqrt(), validate_args=False)
        losses: Tensor = math.log(len(outputs)) - gaussians.log_prob(y).logsumexp(0)
        return losses

    def member_quantiles(self, outputs: Tensor, levels: Tensor) -> Tensor:
        """Return ``μ + σ Φ⁻¹(level)``, (M, B, L)."""
        mean, variance = self.moments(outputs.unsqueeze(-2))
        quantiles: Tensor = mean + variance.sqrt() * torch.special.ndtri(levels)
        return quantiles

    def member_cdf(self, outputs: Tensor, values: Tensor) -> Tensor:
        """Return ``Φ((value − μ) / σ)``, (M, B, L)."""
        mean, variance = self.moments(outputs.unsqueeze(-2))
        share: Tensor = torch.special.ndtr((values - mean) / variance.sqrt())
        return share
