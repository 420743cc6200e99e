"""What an engine returns for a batch: outputs, representation, and the backward pass of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

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
        shapes, and returns the gradient of the inner products with both: one for each of
        ``ensemble.trainable``, None for a parameter they do not depend on. It may be called once.
    """

    outputs: Tensor
    representation: Tensor | None
    pullback: Callable[..., Gradients]


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
