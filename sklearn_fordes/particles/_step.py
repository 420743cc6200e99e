"""Wasserstein gradient descent on an ensemble: from a batch to the parameters' gradients."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from sklearn_fordes.particles._ensemble import Ensemble
from sklearn_fordes.particles._kernel import repulsion_force
from sklearn_fordes.particles._lengthscales import Metric
from sklearn_fordes.particles._spaces import Space, input_gradients


@dataclass(frozen=True)
class Repulsion:
    """What pushes the members apart.

    Parameters
    ----------
    space : callable, default=input_gradients
        Maps ``(ensemble, X, y, n_rows)`` to logits ``(M, B, C)`` and a representation
        ``(M, rows, K)`` that is part of the autograd graph.
    metric : Metric, default=Metric()
        How distances in that space are measured.
    strength : float, default=1.0
        Factor of the log density; 1 is the paper's. Divided by the batch's rows, see Notes.
    fraction : float, default=1.0
        Share of a batch's rows at which members are compared, in (0, 1].

    Notes
    -----
    A faithful posterior would divide by the rows of the training set, not of the batch: that is
    ``strength = B / N``.
    """

    space: Space = input_gradients
    metric: Metric = field(default_factory=Metric)
    strength: float = 1.0
    fraction: float = 1.0

    def to(self, like: Tensor) -> Repulsion:
        """Return the repulsion with its metric on the device and in the dtype of `like`."""
        return Repulsion(self.space, self.metric.to(like), self.strength, self.fraction)


class StepResult(NamedTuple):
    """What a step computed.

    Parameters
    ----------
    logits : Tensor of shape (M, B, C)
    driving_loss : Tensor of shape (M,)
        Each member's mean cross-entropy, in nats.
    repulsion : Tensor of shape (M,)
        ``strength / B * log_density`` of each member.
    """

    logits: Tensor
    driving_loss: Tensor
    repulsion: Tensor

    @property
    def objective(self) -> Tensor:
        """Sum over members of what each descends."""
        return (self.driving_loss + self.repulsion).sum()


def cross_entropy(logits: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
    """Each member's mean cross-entropy over the rows.

    Parameters
    ----------
    logits : Tensor of shape (M, B, C)
    y : Tensor of shape (B,)
    weight : Tensor of shape (B,), optional
        Row weights; the mean divides by B, not by their sum, so that a batch's weight is kept.

    Returns
    -------
    Tensor of shape (M,)
        In nats.
    """
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), y.repeat(len(logits)), reduction="none"
    ).view(logits.shape[:2])
    return (losses if weight is None else losses * weight).mean(1)


def accumulate_gradients(
    ensemble: Ensemble,
    X: Tensor,
    y: Tensor,
    weight: Tensor | None = None,
    repulsion: Repulsion | None = None,
) -> StepResult:
    """Add one step's direction to the parameters' ``grad``, for any optimizer to descend.

    Member i descends ``cross_entropy_i + strength / B * log Σ_j k(i, stopgrad j)``. The force is
    known in closed form, so one backward pass of the driving loss plus the inner product of
    representation and force gives both terms (Trinh et al. 2024, equation 12).

    Parameters
    ----------
    ensemble : Ensemble
    X : Tensor of shape (B, ...)
    y : Tensor of shape (B,)
        Classes, from 0 to C − 1.
    weight : Tensor of shape (B,), optional
        Row weights of the driving loss, of mean 1.
    repulsion : Repulsion, optional
        None makes a plain deep ensemble; so does a single member, which has nothing to repel it.

    Returns
    -------
    StepResult
        Logits, driving loss and repulsion, detached from the graph.
    """
    if repulsion is None or ensemble.n_members == 1:
        logits = ensemble(X)
        driving_loss = cross_entropy(logits, y, weight)
        driving_loss.sum().backward()
        repelled = torch.zeros_like(driving_loss)
    else:
        n_rows = max(1, round(repulsion.fraction * len(X)))
        logits, representation = repulsion.space(ensemble, X, y, n_rows)
        log_density, force = repulsion_force(
            representation.detach(),
            rotation=repulsion.metric.rotation,
            precision=repulsion.metric.precision,
        )
        factor = repulsion.strength / len(X)
        driving_loss = cross_entropy(logits, y, weight)
        (driving_loss.sum() + factor * (representation * force).sum()).backward()
        repelled = factor * log_density
    return StepResult(logits.detach(), driving_loss.detach(), repelled)
