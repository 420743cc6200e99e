"""Classes: cross-entropy, mean probability, and the targets whose input gradients are compared."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sklearn_fordes.particles._evaluation import Hessian
from sklearn_fordes.particles.likelihoods._base import Likelihood, positive
from sklearn_fordes.uncertainty import Uncertainty, entropy_decomposition


class GradientTarget(NamedTuple):
    """A function of logits (M, B, C) and classes (B,), and its first two derivatives."""

    value: Callable[[Tensor, Tensor], Tensor]
    derivatives: Callable[[Tensor, Tensor], tuple[Tensor, Hessian | None]]


def logit(logits: Tensor, y: Tensor) -> Tensor:
    """Return the raw logit of the true class, z_y: (M, B, C), (B,) → (M, B).

    The reference implementation's choice. It is not identified: adding any function of the input
    to all logits changes its gradient and no prediction.
    """
    return logits.gather(-1, _index(logits, y)).squeeze(-1)


def log_odds(logits: Tensor, y: Tensor) -> Tensor:
    """Return log p_y − log(1 − p_y) = z_y − logsumexp_{c≠y} z_c: (M, B, C), (B,) → (M, B).

    Invariant to what all logits share, and its gradient does not vanish as p_y approaches 1.
    """
    others = logits.scatter(-1, _index(logits, y), -torch.inf)
    return logit(logits, y) - others.logsumexp(-1)


def log_prob(logits: Tensor, y: Tensor) -> Tensor:
    """Return log p_y: (M, B, C), (B,) → (M, B). Its gradient vanishes as training converges.

    Computed from the log-odds: a softmax would round 1 − p_y, a factor of the gradient, away.
    """
    return torch.nn.functional.logsigmoid(log_odds(logits, y))


def _index(logits: Tensor, y: Tensor) -> Tensor:
    return y.expand(logits.shape[:-1]).unsqueeze(-1)


def _logit_derivatives(logits: Tensor, y: Tensor) -> tuple[Tensor, None]:
    return torch.zeros_like(logits).scatter_(-1, _index(logits, y), 1.0), None


def _log_odds_derivatives(logits: Tensor, y: Tensor) -> tuple[Tensor, Hessian | None]:
    """∂t/∂z = 1_y − q with q the softmax over the other classes; ∂²t/∂z² = q qᵀ − diag q."""
    true_class = _index(logits, y)
    others = logits.scatter(-1, true_class, -torch.inf).softmax(-1)
    gradient = others.neg().scatter_(-1, true_class, 1.0)
    if logits.shape[-1] == 2:  # There is one other class, and its q is 1.
        return gradient, None

    def hessian(vector: Tensor) -> Tensor:
        weighted = others * vector
        return others * weighted.sum(-1, keepdim=True) - weighted

    return gradient, hessian


def _log_prob_derivatives(logits: Tensor, y: Tensor) -> tuple[Tensor, Hessian]:
    """Those of log σ(u), with u the log-odds: σ(−u) ∇u and σ(−u) (∇²u − σ(u) ∇u ∇uᵀ)."""
    of_odds, odds_hessian = _log_odds_derivatives(logits, y)
    rest = torch.sigmoid(-log_odds(logits, y)).unsqueeze(-1)  # 1 − p_y

    def hessian(vector: Tensor) -> Tensor:
        product = of_odds * (of_odds * vector).sum(-1, keepdim=True) * (rest - 1)
        return rest * (product if odds_hessian is None else product + odds_hessian(vector))

    return rest * of_odds, hessian


GRADIENT_TARGETS: dict[str, GradientTarget] = {
    "log_odds": GradientTarget(log_odds, _log_odds_derivatives),
    "logit": GradientTarget(logit, _logit_derivatives),
    "log_prob": GradientTarget(log_prob, _log_prob_derivatives),
}


@dataclass(frozen=True)
class CategoricalLikelihood(Likelihood):
    """Outputs are logits of classes 0 to C − 1; the mixture's probability is the mean probability.

    Parameters
    ----------
    n_outputs : int, default=2
        C, the number of classes. Training checks it; the methods take it from the outputs.
    target : {"log_odds", "logit", "log_prob"}, default="log_odds"
        The function of the true class whose input gradient is compared.
    """

    n_outputs: int = 2
    target: str = "log_odds"

    kind = "classifier"
    outputs_are = "a logit for each class"

    def row_losses(self, outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy in nats (M, B), and its gradient."""
        log_probabilities = outputs.log_softmax(-1)
        one_hot = torch.nn.functional.one_hot(y, outputs.shape[-1])
        return -logit(log_probabilities, y), log_probabilities.exp() - one_hot

    def gradient_target(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return log-odds, logit or log probability of the classes y, (M, B)."""
        return GRADIENT_TARGETS[self.target].value(outputs, y)

    def gradient_target_derivatives(
        self, outputs: Tensor, y: Tensor
    ) -> tuple[Tensor, Hessian | None]:
        """Differentiate the target twice in closed form."""
        return GRADIENT_TARGETS[self.target].derivatives(outputs, y)

    def prediction(self, outputs: Tensor) -> Tensor:
        """Return the members' probabilities (M, B, C)."""
        return outputs.softmax(-1)

    def guess(self, outputs: Tensor) -> Tensor:
        """Return the most probable class of the mixture, (B,)."""
        return outputs.softmax(-1).mean(0).argmax(-1)

    def relative_loss(
        self, loss: Tensor, outputs: Tensor, y: Tensor, weight: Tensor | None
    ) -> Tensor:
        """Return the share of log C, the loss of equal probabilities.

        The loss of the classes' frequencies may be smaller.
        """
        share = loss / math.log(outputs.shape[-1])
        return share if weight is None else share / positive(weight.mean(-1))

    def constant_outputs(self, y: Tensor, weight: Tensor | None) -> Tensor:
        """Return the logarithms of the classes' shares, (C,)."""
        counts = torch.bincount(y, weight, self.n_outputs).to(torch.float32)
        return (counts / counts.sum()).clamp(min=torch.finfo(torch.float32).tiny).log()

    def mixture_losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return ``−log mean_i p_i(y)`` in nats, (B,)."""
        return -logit(_log_of_mean(outputs), y)

    def member_probabilities(self, outputs: Tensor) -> Tensor:
        """Return the members' probabilities (M, B, C) in float64."""
        # Over a last axis of a few classes softmax takes four times as long.
        return outputs.permute(2, 0, 1).double().softmax(0).permute(1, 2, 0)

    def predict(self, outputs: Tensor) -> Tensor:
        """Return the mean of the members' probabilities, (B, C)."""
        return self.member_probabilities(outputs).mean(0).contiguous()

    def predict_log(self, outputs: Tensor) -> Tensor:
        """Return the logarithm of the mean of the members' probabilities, (B, C)."""
        return _log_of_mean(outputs.double())

    def decompose(self, outputs: Tensor) -> Uncertainty:
        """Split the entropy of the mean probability."""
        return entropy_decomposition(self.member_probabilities(outputs))


def _log_of_mean(outputs: Tensor) -> Tensor:
    return outputs.log_softmax(-1).logsumexp(0) - math.log(len(outputs))
