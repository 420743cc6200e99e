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
        Maps ``(ensemble, X, y, n_rows)`` to an `Evaluation` with a representation
        ``(M, rows, K)``.
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

    def __post_init__(self) -> None:
        if not self.strength >= 0:
            raise ValueError(f"Got strength={self.strength}, but expected a number >= 0.")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"Got fraction={self.fraction}, but expected a number in (0, 1].")

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


def cross_entropy(logits: Tensor, y: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Each member's mean cross-entropy over the rows, and its gradient.

    Parameters
    ----------
    logits : Tensor of shape (M, B, C)
        One set for each member.
    y : Tensor of shape (B,)
        Classes, from 0 to C − 1.
    weight : Tensor of shape (B,), optional
        Row weights; the mean divides by B, not by their sum, so that a batch's weight is kept.

    Returns
    -------
    loss : Tensor of shape (M,)
        In nats.
    cotangent : Tensor of shape (M, B, C)
        Gradient of the sum of losses with respect to the logits.
    """
    true_class = y.expand(logits.shape[:-1]).unsqueeze(-1)
    log_prob = logits.log_softmax(-1)
    loss = -log_prob.gather(-1, true_class)  # (M, B, 1)
    cotangent = log_prob.exp().scatter_add_(-1, true_class, loss.new_full((), -1.0).expand_as(loss))
    if weight is not None:
        loss, cotangent = loss * weight.unsqueeze(-1), cotangent * weight.unsqueeze(-1)
    return loss.mean((1, 2)), cotangent / len(y)


def accumulate_gradients(
    ensemble: Ensemble,
    X: Tensor,
    y: Tensor,
    weight: Tensor | None = None,
    repulsion: Repulsion | None = None,
) -> StepResult:
    """Add one step's direction to the parameters' ``grad``, for any optimizer to descend.

    Member i descends ``cross_entropy_i + strength / B * log Σ_j k(i, stopgrad j)``. The force is
    known in closed form, so one backward pass, with the cross-entropy's gradient as cotangent of
    the logits and the force as that of the representation, gives both terms (Trinh et al. 2024,
    equation 12).

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
        Logits, driving loss and repulsion.
    """
    if repulsion is None or ensemble.n_members == 1:
        logits, _, pullback = ensemble.evaluate(X)
        driving_loss, cotangent = cross_entropy(logits, y, weight)
        pullback(cotangent)
        return StepResult(logits, driving_loss, torch.zeros_like(driving_loss))

    n_rows = max(1, round(repulsion.fraction * len(X)))
    logits, representation, pullback = repulsion.space(ensemble, X, y, n_rows)
    if representation is None:
        raise TypeError("Got no representation from the space, but expected one to compare.")
    driving_loss, cotangent = cross_entropy(logits, y, weight)
    log_density, force = repulsion_force(representation, **repulsion.metric._asdict())
    factor = repulsion.strength / len(X)
    pullback(cotangent, factor * force)
    return StepResult(logits, driving_loss, factor * log_density)
