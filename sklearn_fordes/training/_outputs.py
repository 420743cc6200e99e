"""What a net's outputs (B, M, C) say together, and the loss of that."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sklearn_fordes.particles import gaussian_moments


def batch_first(outputs: Tensor) -> Tensor:
    """(M, B, C) → (B, M, C): skorch concatenates and counts along the first axis."""
    return outputs.transpose(0, 1)


def member_probabilities(logits: Tensor) -> Tensor:
    """(B, M, C) → (C, M, B): each member's probabilities, in float64."""
    # Over a last axis of a few classes softmax takes four times as long.
    return logits.permute(2, 1, 0).double().softmax(0)


def mean_probability(logits: Tensor) -> Tensor:
    """(B, M, C) → (B, C): the ensemble's probability is the mean of its members', in float64."""
    return member_probabilities(logits).mean(1).T.contiguous()


def mean_prediction(outputs: Tensor) -> Tensor:
    """(B, M, 2) → (B,): the mean of the members' means, in float64."""
    return outputs[..., 0].double().mean(1)


class EnsembleLogLoss(nn.Module):
    """Log loss of the members' mean probability, in nats per row.

    Training never descends this (it would couple the members); validation reports it.
    """

    def forward(self, logits: Tensor, y: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the (weighted) mean over rows of ``−log mean_i p_i(y)``; logits (B, M, C)."""
        log_prob = logits.log_softmax(-1).logsumexp(1) - math.log(logits.shape[1])
        return _mean(nn.functional.nll_loss(log_prob, y, reduction="none"), sample_weight)


class EnsembleGaussianLoss(nn.Module):
    """Negative log density of the equal mixture of the members' Gaussians, in nats per row."""

    def forward(self, outputs: Tensor, y: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the (weighted) mean over rows of ``−log mean_i N(y; i)``; outputs (B, M, 2)."""
        mean, variance = gaussian_moments(outputs)
        gaussians = torch.distributions.Normal(mean, variance.sqrt(), validate_args=False)
        log_density = gaussians.log_prob(y.unsqueeze(1)).logsumexp(1) - math.log(mean.shape[1])
        return _mean(-log_density, sample_weight)


def _mean(losses: Tensor, weight: Tensor | None) -> Tensor:
    return (losses if weight is None else losses * weight).mean()
