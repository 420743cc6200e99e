"""What a network's outputs mean: the loss, what is differentiated, and what is predicted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sklearn_fordes.particles._ensemble import Hessian

Loss = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
GradientTarget = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Likelihood:
    """How outputs (M, B, C) and targets y (B,) belong together.

    Parameters
    ----------
    loss : callable
        Maps ``(outputs, y, weight)``, with row weights ``(B,)`` or None, to each member's mean
        negative log likelihood ``(M,)`` and its gradient with respect to the outputs.
    gradient_target : callable
        Maps ``(outputs, y)`` to the scalars ``(M, B)`` whose input gradients are compared.
    prediction : callable
        Maps outputs to what a member says ``(M, B, K)``: what the function space compares.
    guess : callable
        Maps outputs to the ensemble's own guess of y, for points that have none.
    unexplained : callable
        Maps ``(driving_loss, outputs, y, weight)`` to what each member still gets wrong ``(M,)``,
        as a share of what one that has seen no row does.
    """

    loss: Loss
    gradient_target: GradientTarget
    prediction: Callable[[Tensor], Tensor]
    guess: Callable[[Tensor], Tensor]
    unexplained: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]

    def completed(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return targets of all rows: guesses for those that come before the ones y is of.

        Parameters
        ----------
        outputs : Tensor of shape (M, n_points + B, C)
        y : Tensor of shape (B,)

        Returns
        -------
        Tensor of shape (n_points + B,)
        """
        n_points = outputs.shape[1] - len(y)
        if not n_points:
            return y
        return torch.cat([self.guess(outputs[:, :n_points].detach()), y])


# ---- classes


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
    cotangent = log_prob.exp() - _one_hot(y, logits)
    if weight is not None:
        loss, cotangent = loss * weight.unsqueeze(-1), cotangent * weight.unsqueeze(-1)
    return loss.mean((1, 2)), cotangent / len(y)


def _one_hot(y: Tensor, like: Tensor) -> Tensor:
    classes = torch.arange(like.shape[-1], device=like.device)
    return (y.unsqueeze(-1) == classes).to(like.dtype)


def logit(logits: Tensor, y: Tensor) -> Tensor:
    """Return the raw logit of the true class, z_y: (M, B, C), (B,) → (M, B).

    The reference implementation's choice. It is not identified: adding any function of the input
    to all logits changes its gradient and no prediction.
    """
    return logits.gather(-1, y.expand(logits.shape[:-1]).unsqueeze(-1)).squeeze(-1)


def log_prob(logits: Tensor, y: Tensor) -> Tensor:
    """Return log p_y: (M, B, C), (B,) → (M, B). Its gradient vanishes as training converges.

    Computed from the log-odds: a softmax would round 1 − p_y, a factor of the gradient, away.
    """
    return torch.nn.functional.logsigmoid(log_odds(logits, y))


def log_odds(logits: Tensor, y: Tensor) -> Tensor:
    """Return log p_y − log(1 − p_y) = z_y − logsumexp_{c≠y} z_c: (M, B, C), (B,) → (M, B).

    Invariant to what all logits share, and its gradient does not vanish as p_y approaches 1.
    """
    true_class = y.expand(logits.shape[:-1]).unsqueeze(-1)
    others = logits.scatter(-1, true_class, -torch.inf)
    return logit(logits, y) - others.logsumexp(-1)


def _logit_derivatives(logits: Tensor, y: Tensor) -> tuple[Tensor, None]:
    true_class = y.expand(logits.shape[:-1]).unsqueeze(-1)
    return torch.zeros_like(logits).scatter_(-1, true_class, 1.0), None


def _log_odds_derivatives(logits: Tensor, y: Tensor) -> tuple[Tensor, Hessian | None]:
    """∂t/∂z = 1_y − q with q the softmax over the other classes; ∂²t/∂z² = q qᵀ − diag q."""
    true_class = y.expand(logits.shape[:-1]).unsqueeze(-1)
    others = logits.scatter(-1, true_class, -torch.inf).softmax(-1)
    gradient = others.neg().scatter_(-1, true_class, 1.0)
    if logits.shape[-1] == 2:  # one other class, of which q is 1
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


def _probabilities(logits: Tensor) -> Tensor:
    return logits.softmax(-1)


def _most_probable_class(logits: Tensor) -> Tensor:
    return logits.softmax(-1).mean(0).argmax(-1)


def _share_of_uniform_loss(
    loss: Tensor,
    logits: Tensor,
    y: Tensor,  # noqa: ARG001
    weight: Tensor | None,
) -> Tensor:
    """Share of the loss of equal probabilities; that of the classes' frequencies may be smaller."""
    share = loss / math.log(logits.shape[-1])
    return share if weight is None else share / weight.mean()


GRADIENT_TARGETS: dict[str, GradientTarget] = {
    "log_odds": log_odds,
    "logit": logit,
    "log_prob": log_prob,
}
# Derivatives with respect to the outputs, where autograd is not needed.
DERIVATIVES: dict[GradientTarget, Callable[[Tensor, Tensor], tuple[Tensor, Hessian | None]]] = {
    log_odds: _log_odds_derivatives,
    logit: _logit_derivatives,
    log_prob: _log_prob_derivatives,
}
CATEGORICAL = Likelihood(
    cross_entropy, log_odds, _probabilities, _most_probable_class, _share_of_uniform_loss
)


# ---- numbers

# Of a target of unit variance.
_SMALLEST_VARIANCE = 1e-6


def gaussian_moments(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance that a regressor's outputs stand for.

    Parameters
    ----------
    outputs : Tensor of shape (..., 2)
        The mean, and what softplus turns into the variance.

    Returns
    -------
    mean, variance : Tensor of shape (...)
        Of the target as the network sees it.
    """
    mean, raw = outputs.unbind(-1)
    return mean, torch.nn.functional.softplus(raw) + _SMALLEST_VARIANCE


def gaussian_nll(outputs: Tensor, y: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Each member's mean Gaussian negative log likelihood over the rows, and its gradient.

    Parameters
    ----------
    outputs : Tensor of shape (M, B, 2)
        See `gaussian_moments`.
    y : Tensor of shape (B,)
        Targets.
    weight : Tensor of shape (B,), optional
        Row weights; the mean divides by B.

    Returns
    -------
    loss : Tensor of shape (M,)
        In nats.
    cotangent : Tensor of shape (M, B, 2)
        Gradient of the sum of losses with respect to the outputs.
    """
    mean, variance = gaussian_moments(outputs)
    residual = mean - y
    loss = 0.5 * (residual.square() / variance + variance.log() + math.log(2 * math.pi))
    grad_variance = 0.5 * (1 - residual.square() / variance) / variance
    cotangent = torch.stack([residual / variance, grad_variance * outputs[..., 1].sigmoid()], -1)
    if weight is not None:
        loss, cotangent = loss * weight, cotangent * weight.unsqueeze(-1)
    return loss.mean(1), cotangent / len(y)


def _predicted_mean(outputs: Tensor, y: Tensor | None = None) -> Tensor:  # noqa: ARG001
    return outputs[..., 0]


def _mean_column(outputs: Tensor) -> Tensor:
    return outputs[..., :1]


def _ensemble_mean(outputs: Tensor) -> Tensor:
    return outputs[..., 0].mean(0)


def _share_of_variance(
    loss: Tensor,  # noqa: ARG001
    outputs: Tensor,
    y: Tensor,
    weight: Tensor | None,
) -> Tensor:
    """Share of a variance of one."""
    sq_error = (outputs[..., 0] - y).square()
    return sq_error.mean(1) if weight is None else sq_error @ weight / weight.sum()


def _mean_derivatives(outputs: Tensor, y: Tensor) -> tuple[Tensor, None]:
    return _logit_derivatives(outputs, torch.zeros_like(y, dtype=torch.int64))


DERIVATIVES[_predicted_mean] = _mean_derivatives
GAUSSIAN = Likelihood(
    gaussian_nll, _predicted_mean, _mean_column, _ensemble_mean, _share_of_variance
)
