"""One step of particle inference on an ensemble: from a batch to the parameters' gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sklearn_fordes.particles._ensemble import Ensemble, Gradients
from sklearn_fordes.particles._kernel import Kernel
from sklearn_fordes.particles._likelihoods import CATEGORICAL, Likelihood
from sklearn_fordes.particles._spaces import SPACES, Space
from sklearn_fordes.particles._updates import Update, stein, wasserstein

CompiledStep = Callable[..., Any]


@dataclass(frozen=True)
class Repulsion:
    """What pushes the members apart.

    Parameters
    ----------
    space : Space, default=SPACES["input_gradient"]
        What members are compared by.
    kernel : Kernel, default=Kernel()
        How distances in that space are measured.
    update : callable, default=wasserstein
        Maps a representation (M, rows, K) and the kernel to an `Interaction`.
    strength : float, default=1.0
        Factor of the potential; 1 is the paper's. Divided by the batch's rows, see Notes.
    fraction : float, default=1.0
        Share of a batch's rows at which members are compared, in (0, 1].

    Notes
    -----
    A faithful posterior would divide by the rows of the training set, not of the batch: that is
    ``strength = B / N``.
    """

    space: Space = SPACES["input_gradient"]
    kernel: Kernel = field(default_factory=Kernel)
    update: Update = wasserstein
    strength: float = 1.0
    fraction: float = 1.0

    def __post_init__(self) -> None:
        if not self.strength >= 0:
            raise ValueError(f"Got strength={self.strength}, but expected a number >= 0.")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"Got fraction={self.fraction}, but expected a number in (0, 1].")

    @property
    def is_idle(self) -> bool:
        """Whether it does nothing. Stein's update averages the driving force at strength 0 too."""
        return not self.strength and self.update is not stein

    def n_rows(self, batch_size: int) -> int:
        """Return the number of a batch's rows at which members are compared."""
        return max(1, round(self.fraction * batch_size))

    def to(self, like: Tensor) -> Repulsion:
        """Return the repulsion with its metric on the device and in the dtype of `like`."""
        return replace(self, kernel=self.kernel.to(like))


class StepResult(NamedTuple):
    """What a step computed.

    Parameters
    ----------
    outputs : Tensor of shape (M, B, C)
    driving_loss : Tensor of shape (M,)
        Each member's mean negative log likelihood, in nats.
    repulsion : Tensor of shape (M,)
        ``strength / B`` times the potential of each member.
    """

    outputs: Tensor
    driving_loss: Tensor
    repulsion: Tensor

    @property
    def objective(self) -> Tensor:
        """Sum over members of what each descends."""
        return (self.driving_loss + self.repulsion).sum()


def accumulate_gradients(
    ensemble: Ensemble,
    X: Tensor,
    y: Tensor,
    weight: Tensor | None = None,
    repulsion: Repulsion | None = None,
    *,
    likelihood: Likelihood = CATEGORICAL,
    points: Tensor | None = None,
    compiled: CompiledStep | None = None,
) -> StepResult:
    """Add one step's direction to the parameters' ``grad``, for any optimizer to descend.

    Where ``grad`` is None it is set to memory that a later call uses again once it is None again;
    copy what is to be kept.

    Member i descends ``loss_i + strength / B * log Σ_j k(i, stopgrad j)``. The force is known in
    closed form, so one backward pass, with the loss's gradient as cotangent of the outputs and the
    force as that of the representation, gives both terms (Trinh et al. 2024, equation 12).

    Parameters
    ----------
    ensemble : Ensemble
    X : Tensor of shape (B, ...)
    y : Tensor of shape (B,)
        Classes, from 0 to C − 1, or numbers.
    weight : Tensor of shape (B,), optional
        Row weights of the driving loss, of mean 1.
    repulsion : Repulsion, optional
        None makes a plain deep ensemble; so does a single member, which has nothing to repel it.
    likelihood : Likelihood, default=CATEGORICAL
        What the outputs mean.
    points : Tensor of shape (n_points, ...), optional
        Inputs without a target, at which members are compared beside the batch's rows. Where a
        target is needed (for the gradient of the true class), the ensemble's own guess stands in.
    compiled : callable, optional
        What `compile_step` returned, for an ensemble and a space that need no autograd.

    Returns
    -------
    StepResult
        Outputs at X, driving loss and repulsion.
    """
    strength: float | Tensor = 0.0
    if repulsion is None or repulsion.is_idle or ensemble.n_members == 1:
        repulsion = None
    else:
        # Apart: compiled code is made for its constants.
        strength, repulsion = repulsion.strength, replace(repulsion, strength=1.0)
        strength = strength if compiled is None else X.new_tensor(strength)
    step, gradients = (compiled or differentiate)(
        ensemble, X, y, weight, repulsion, strength, likelihood, points
    )
    taken = set()
    for parameter, gradient in zip(ensemble.stacked.parameters(), gradients, strict=True):
        if gradient is None or not parameter.requires_grad:
            continue
        address = gradient.data_ptr()
        if parameter.grad is not None:
            parameter.grad.add_(gradient)
        elif gradient.stride() == parameter.stride() and address not in taken:
            parameter.grad = gradient
            taken.add(address)  # autograd may give one tensor for two parameters
        else:  # optimizers go through both as they lie in memory
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
    return step


def differentiate(
    ensemble: Ensemble,
    X: Tensor,
    y: Tensor,
    weight: Tensor | None,
    repulsion: Repulsion | None,
    strength: float | Tensor,
    likelihood: Likelihood,
    points: Tensor | None,
) -> tuple[StepResult, Gradients]:
    """Return a step and the gradients of its objective (see `accumulate_gradients`)."""
    if repulsion is None:
        outputs, _, pullback = ensemble.evaluate(X)
        driving_loss, cotangent = likelihood.loss(outputs, y, weight)
        step = StepResult(outputs, driving_loss, torch.zeros_like(driving_loss))
        return step, pullback(cotangent)

    n_rows, n_points = repulsion.n_rows(len(X)), 0 if points is None else len(points)
    rows = X if points is None else torch.cat([points, X])
    outputs, representation, pullback = repulsion.space.evaluate(
        ensemble, rows, y, n_points + n_rows, likelihood
    )
    if representation is None:
        raise TypeError("Got no representation from the space, but expected one to compare.")
    driving_loss, cotangent = likelihood.loss(outputs[:, n_points:], y, weight)
    if n_points:  # which no loss is computed at
        cotangent = torch.nn.functional.pad(cotangent, (0, 0, n_points, 0))
    potential, force, mixing = repulsion.update(representation, repulsion.kernel)
    factor = strength / len(X)
    mixed = () if mixing is None else (mixing,)
    step = StepResult(outputs[:, n_points:], driving_loss, factor * potential)
    return step, pullback(cotangent, factor * force, *mixed)


def compile_step(**options: Any) -> CompiledStep:
    """Return what `torch.compile` makes of a step, at its first calls.

    Parameters
    ----------
    **options
        Of `torch.compile`.

    Returns
    -------
    callable
        For `accumulate_gradients`. To be kept for one ensemble, of which it holds code for a few
        batch sizes; without any left it falls back to what is not compiled.
    """
    # Code is kept, and counted, by code object: each ensemble has one of its own.
    own = FunctionType(differentiate.__code__.replace(), differentiate.__globals__)
    compiled: CompiledStep = torch.compile(own, **options)
    return compiled
