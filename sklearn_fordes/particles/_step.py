"""One step of particle inference on an ensemble: from a batch to the parameters' gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sklearn_fordes.particles._communication import ALONE, Communicator
from sklearn_fordes.particles._evaluation import Gradients
from sklearn_fordes.particles._members import Ensemble
from sklearn_fordes.particles._repulsion import BuiltRepulsion, Repulsion, as_repulsion
from sklearn_fordes.particles._rows import filled_up
from sklearn_fordes.particles._spaces import Representation, Space
from sklearn_fordes.particles.likelihoods import CategoricalLikelihood, Likelihood

# As many numbers as torch computes at once on a CPU.
_NUMBERS_AT_ONCE = 32


class StepResult(NamedTuple):
    """What a step computed.

    Parameters
    ----------
    outputs : Tensor of shape (M, B, C)
    driving_loss : Tensor of shape (M,)
        Each member's mean loss over the rows of this process, in nats where it is a negative log
        likelihood.
    repulsion : Tensor of shape (M,)
        Strength times the potential of each member.
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
    *,
    repulsion: str | Representation | Space | Repulsion | BuiltRepulsion | None = None,
    strength: float | Tensor = 1.0,
    likelihood: Likelihood | None = None,
    extra_inputs: Tensor | None = None,
    communicator: Communicator = ALONE,
    shared: bool = True,
    n_rows: int | None = None,
) -> StepResult:
    """Add one step's direction to the parameters' ``grad``, for any optimizer to descend.

    Member i descends ``loss_i + strength * log Σ_j k(i, stopgrad j)``. The force is known in closed
    form, so one backward pass, with the loss's gradient as cotangent of the outputs and the force
    as that of the representation, gives both terms (Trinh et al. 2024, equation 12).

    Parameters
    ----------
    ensemble : Ensemble
    X : Tensor of shape (B, ...), or (M, B, ...) if not `shared`
        Of the type of the weights, ``ensemble.dtype``, if the module takes numbers.
    y : Tensor of shape (B,)
        Classes, from 0 to C − 1, of type int64, or numbers.
    weight : Tensor of shape (B,) or (M, B), optional
        Row weights of the driving loss, of mean 1; those of each member if there are M.
    repulsion : str, callable, Space, Repulsion or BuiltRepulsion, optional
        As the parameter of an estimator, but `period`, `warmup` and `relative` do not count: your
        loop applies them. A call of `Repulsion.build` before the loop saves one in each step. None
        makes a plain deep ensemble; so does a single member, which nothing repels.
    strength : float or Tensor, default=1.0
        Factor of the potential. The paper has ``1 / B``; a faithful posterior would have one over
        the number of training rows. Use a tensor to capture the step as a graph.
    likelihood : Likelihood, optional
        What the outputs mean. Default: logits of classes.
    extra_inputs : Tensor of shape (n_extra, ...), optional
        Rows without a target, at which members are compared too: the first ones, as many as of the
        batch's rows. Where a target is needed (for the gradient of the true class), the ensemble's
        own guess takes its place.
    communicator : Communicator, default=ALONE
        Reaches other processes that hold members or rows; by default there are none. X has the
        rows ``communicator.rows`` of the batch, and the ensemble the members
        ``communicator.members``.
    shared : bool, default=True
        Whether the members share the rows of X. If not, X holds a version of each row for each
        member. The repulsion compares members at the first rows, which should be the same for all.
    n_rows : int, optional
        Number of rows of the batch in all processes. Default: those of X.

    Returns
    -------
    StepResult
        Outputs at X, driving loss and repulsion.

    Raises
    ------
    ValueError
        If a parameter of the repulsion is not as expected, a process has no row at which members
        are compared, or the module couples rows that are spread over processes.

    Examples
    --------
    >>> import torch
    >>> ensemble = Ensemble(lambda: torch.nn.Linear(4, 3), n_members=5)
    >>> optimizer = torch.optim.AdamW(ensemble.parameters())
    >>> X, y = torch.randn(8, 4), torch.arange(8) % 3
    >>> for _ in range(3):
    ...     optimizer.zero_grad()
    ...     step = accumulate_gradients(
    ...         ensemble, X, y, repulsion=Repulsion.paper(), strength=1 / len(X)
    ...     )
    ...     optimizer.step()
    >>> step.driving_loss.shape
    torch.Size([5])
    """
    if not isinstance(repulsion, BuiltRepulsion | None):
        repulsion = as_repulsion(repulsion)
        likelihood = likelihood or CategoricalLikelihood(target=repulsion.target)
        repulsion = repulsion.build(X)
    likelihood = likelihood or CategoricalLikelihood()
    step, gradients = differentiate(
        ensemble,
        X,
        y,
        weight,
        repulsion,
        strength,
        likelihood,
        extra_inputs,
        communicator,
        shared,
        n_rows,
    )
    communicator.all_reduce(gradients)
    add_gradients(ensemble, gradients)
    return step


def mean_loss(
    likelihood: Likelihood, outputs: Tensor, y: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return each member's mean loss over the rows, and the gradient of their sum.

    Parameters
    ----------
    likelihood : Likelihood
    outputs : Tensor of shape (M, B, C)
    y : Tensor of shape (B,)
    weight : Tensor of shape (B,) or (M, B), optional
        Row weights; the mean divides by B, not by their sum, so that a batch keeps its weight.

    Returns
    -------
    loss : Tensor of shape (M,)
        In the unit of `row_losses`.
    gradient : Tensor of shape (M, B, C)
        With respect to the outputs.
    """
    n_rows = len(y)
    filled = filled_up(outputs, _NUMBERS_AT_ONCE, shared=False), filled_up(y, _NUMBERS_AT_ONCE)
    losses, gradient = (values[:, :n_rows] for values in likelihood.row_losses(*filled))
    if weight is not None:
        losses, gradient = losses * weight, gradient * weight.unsqueeze(-1)
    return losses.mean(1), gradient / n_rows


def add_gradients(ensemble: Ensemble, gradients: Gradients) -> None:
    """Add gradients to the ``grad`` of the ensemble's trainable parameters, in their order."""
    taken = set()
    for parameter, gradient in zip(ensemble.trainable, gradients, strict=True):
        if gradient is None:
            continue
        if parameter.grad is not None:
            parameter.grad.add_(gradient)
        elif gradient.stride() == parameter.stride() and gradient.data_ptr() not in taken:
            parameter.grad = gradient
            taken.add(gradient.data_ptr())  # Autograd may return one tensor for two parameters.
        else:  # Optimizers read both in the order of memory.
            parameter.grad = torch.empty_like(parameter).copy_(gradient)


def differentiate(
    ensemble: Ensemble,
    X: Tensor,
    y: Tensor,
    weight: Tensor | None,
    repulsion: BuiltRepulsion | None,
    strength: float | Tensor,
    likelihood: Likelihood,
    extra_inputs: Tensor | None = None,
    communicator: Communicator = ALONE,
    shared: bool = True,
    n_rows: int | None = None,
) -> tuple[StepResult, Gradients]:
    """Return a step and the gradients of its objective, of which this process has a summand.

    Parameters
    ----------
    ensemble : Ensemble
    X : Tensor of shape (B, ...), or (M, B, ...) if not `shared`
    y : Tensor of shape (B,)
    weight : Tensor of shape (B,), (M, B) or None
    repulsion : BuiltRepulsion or None
    strength : float or Tensor
    likelihood : Likelihood
    extra_inputs : Tensor of shape (n_extra, ...), optional
    communicator : Communicator, default=ALONE
    shared : bool, default=True
    n_rows : int, optional
        As in `accumulate_gradients`.

    Returns
    -------
    step : StepResult
        Outputs at X, driving loss and repulsion.
    gradients : list of Tensor or None
        One for each of ``ensemble.trainable``, None where the objective does not depend on it.
    """
    share = 1.0
    if communicator.n_row_shares > 1:
        share = _checked_share(ensemble, y, n_rows, communicator)
    if repulsion is None:
        outputs, _, pullback = ensemble.evaluate(X, shared=shared)
        driving_loss, cotangent = mean_loss(likelihood, outputs, y, weight)
        step = StepResult(outputs, driving_loss, torch.zeros_like(driving_loss))
        return step, pullback(cotangent if share == 1 else share * cotangent)

    n_compared, n_extra = repulsion.n_compared(n_rows or len(y), communicator), 0
    if extra_inputs is not None:  # As many as of the batch's rows, and before these.
        extra = extra_inputs[:n_compared]
        n_extra = len(extra)
        if not shared:
            extra = extra.expand(len(X), *extra.shape)
        X = torch.cat([extra, X], dim=0 if shared else 1)
        if communicator.n_processes > 1:
            likelihood = likelihood.spread_over(communicator)
    outputs, representation, pullback = repulsion.space.evaluate(
        ensemble, X, y, n_extra + n_compared, likelihood, shared=shared
    )
    driving_loss, cotangent = mean_loss(likelihood, outputs[:, n_extra:], y, weight)
    cotangent = cotangent if share == 1 else share * cotangent
    if n_extra:  # The loss does not depend on outputs at rows without a target.
        cotangent = torch.nn.functional.pad(cotangent, (0, 0, n_extra, 0))
    assert representation is not None  # A space gives one.
    potential, force, *mix = _forces_on_own(representation, repulsion, communicator)
    step = StepResult(outputs[:, n_extra:], driving_loss, strength * potential)
    return step, pullback(cotangent, strength * force, *mix)


def _forces_on_own(
    representation: Tensor, repulsion: BuiltRepulsion, communicator: Communicator
) -> tuple[Any, ...]:
    """Return potential and force of the members of this process, and what mixes driving forces.

    Each process compares all members and keeps its own: products over fewer members would round in
    another way, so that the result would depend on the number of processes.
    """
    everyone, columns = communicator.gather(representation).contiguous(), slice(None)
    others_with_rows = communicator
    if repulsion.space.joins_rows:
        (everyone, columns), others_with_rows = communicator.joined(everyone), ALONE
    forces = repulsion.update(everyone, repulsion.kernel, others_with_rows)
    own = communicator.members
    force = forces.force[own, :, columns]
    if forces.mixing is None:
        return forces.potential[own], force

    def mix(driving: Tensor) -> Tensor:
        mixed: Tensor = torch.tensordot(forces.mixing, communicator.gather(driving), 1)
        return mixed[own]

    return forces.potential[own], force, mix


def _checked_share(
    ensemble: Ensemble, y: Tensor, n_rows: int | None, communicator: Communicator
) -> float:
    """Return the share of a batch's rows that this process has."""
    if n_rows is None or len(y) != communicator.n_own_rows(n_rows) or not len(y):
        raise ValueError(
            f"Got {len(y)} of {n_rows} rows of a batch in one of {communicator.n_row_shares} "
            "processes, but expected its rows, one at least: raise batch_size."
        )
    if ensemble.couples_rows:
        raise ValueError(
            "Got a module whose rows depend on each other in training, such as one with batch "
            "normalisation, with rows that are spread over processes, but expected another module, "
            "or members spread over processes."
        )
    return len(y) / n_rows
