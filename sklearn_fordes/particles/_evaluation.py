"""What an engine returns for a batch: outputs, representation, and the backward pass of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from sklearn_fordes.particles._members import Ensemble

OutputFunction = Callable[[Tensor], Tensor]
Hessian = Callable[[Tensor], Tensor]
# The gradient with respect to the outputs, and multiplication with the Hessian; None is zero.
OutputDerivatives = Callable[[Tensor], tuple[Tensor, Hessian | None]]
Gradients = list[Tensor | None]


class Evaluation(NamedTuple):
    """An ensemble's outputs at a batch, the members' representation, and the backward pass.

    Parameters
    ----------
    outputs : Tensor of shape (M, B, C)
        Not part of an autograd graph.
    representation : Tensor of shape (M, n_rows, K) or None
        What the members are compared by. Not part of an autograd graph.
    pullback : callable
        Takes cotangents of the outputs and of the representation (if there is one), of their
        shapes, and returns the gradient of the inner products with both: one for each parameter of
        ``ensemble.stacked``, None for a parameter they do not depend on. It may be called once.
    """

    outputs: Tensor
    representation: Tensor | None
    pullback: Callable[..., Gradients]


def autograd_evaluation(
    ensemble: Ensemble, outputs: Tensor, representation: Tensor | None = None
) -> Evaluation:
    """Make an evaluation of tensors that autograd has followed, with one joint backward pass.

    Parameters
    ----------
    ensemble : Ensemble
        The ensemble whose parameters get gradients.
    outputs : Tensor of shape (M, B, C)
        Part of the autograd graph.
    representation : Tensor of shape (M, n_rows, K), optional
        Part of the autograd graph.

    Returns
    -------
    Evaluation
        The same tensors, detached.
    """
    followed = [tensor for tensor in (outputs, representation) if tensor is not None]
    trainable = [p for p in ensemble.stacked.parameters() if p.requires_grad]

    def pullback(*cotangents: Tensor) -> Gradients:
        found = iter(torch.autograd.grad(followed, trainable, cotangents, allow_unused=True))
        return [next(found) if p.requires_grad else None for p in ensemble.stacked.parameters()]

    detached = None if representation is None else representation.detach()
    return Evaluation(outputs.detach(), detached, pullback)


def autograd_derivatives(target: OutputFunction, outputs: Tensor) -> tuple[Tensor, Hessian | None]:
    """Differentiate a function of the outputs twice.

    Parameters
    ----------
    target : callable
        Maps outputs ``(M, n_rows, C)`` to ``(M, n_rows)``.
    outputs : Tensor of shape (M, n_rows, C)

    Returns
    -------
    gradient : Tensor of shape (M, n_rows, C)
        Gradient of each value with respect to its outputs.
    hessian : callable or None
        Multiplies with the second derivative; may be called once. None if that is zero.
    """
    followed = outputs.detach().clone().requires_grad_()
    with torch.enable_grad():
        values = target(followed).sum()
        (gradient,) = torch.autograd.grad(values, followed, create_graph=True)
    if not gradient.requires_grad:
        return gradient, None

    def hessian(vector: Tensor) -> Tensor:
        (product,) = torch.autograd.grad(gradient, followed, vector)
        return product

    return gradient.detach(), hessian
