"""What members are compared by: a representation of shape (M, n_rows, K)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sklearn_fordes.particles._ensemble import Ensemble, Evaluation

GradientTarget = Callable[[Tensor, Tensor], Tensor]
Space = Callable[[Ensemble, Tensor, Tensor, int], Evaluation]


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


GRADIENT_TARGETS: dict[str, GradientTarget] = {
    "log_odds": log_odds,
    "logit": logit,
    "log_prob": log_prob,
}


def input_gradients(
    ensemble: Ensemble,
    X: Tensor,
    y: Tensor,
    n_rows: int,
    *,
    target: GradientTarget = log_odds,
) -> Evaluation:
    """Each member's gradient of `target` with respect to its input, at the first rows.

    Parameters
    ----------
    ensemble : Ensemble
    X : Tensor of shape (B, ...)
        Inputs shared by the members; K features when flattened.
    y : Tensor of shape (B,)
        True classes.
    n_rows : int
        How many rows the gradients are taken at, from 1 to B.
    target : callable, default=log_odds
        Maps logits ``(M, B, C)`` and classes ``(B,)`` to what is differentiated, ``(M, B)``.

    Returns
    -------
    Evaluation
        With a representation of shape (M, n_rows, K).
    """
    return ensemble.evaluate(X, n_rows, lambda logits: target(logits, y[:n_rows]))


SPACES = {"input_gradient": input_gradients}
