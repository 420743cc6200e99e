"""What members are compared by: a representation of shape (M, n_rows, K)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sklearn_fordes.particles._ensemble import (
    Ensemble,
    Evaluation,
    Gradients,
    Hessian,
    autograd_evaluation,
)
from sklearn_fordes.particles._likelihoods import CATEGORICAL, DERIVATIVES, Likelihood

Evaluate = Callable[[Ensemble, Tensor, Tensor, int, Likelihood], Evaluation]
Representation = Callable[[Ensemble, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Space:
    """What members are compared by.

    Parameters
    ----------
    evaluate : callable
        Maps ``(ensemble, X, y, n_rows, likelihood)`` to an `Evaluation` at the rows X (B, …), with
        a representation (M, rows, K) of the members at the first `n_rows` of them. Targets y are
        of the last rows; those before are points without one (see `Likelihood.completed`).
    directions : bool, default=False
        Whether lengths mean nothing, so that points on the unit sphere are compared.
    of_inputs : bool, default=False
        Whether the K axes are those of the (flattened) input, so that a lengthscale can be read
        off the training rows.
    at_rows : bool, default=True
        Whether the representation depends on the rows, so that it matters where they lie.
    mixes_driving_force : bool, default=False
        Whether the pullback takes a third argument, mixing (M, M): the driving force in this
        space of member i is then the sum of ``mixing[i, j]`` times member j's.
    compiles : bool, default=False
        Whether `compile_step` can make code of it: it needs no autograd of its own.
    """

    evaluate: Evaluate
    directions: bool = False
    of_inputs: bool = False
    at_rows: bool = True
    mixes_driving_force: bool = False
    compiles: bool = False


def input_gradients(
    ensemble: Ensemble,
    X: Tensor,
    y: Tensor,
    n_rows: int,
    likelihood: Likelihood = CATEGORICAL,
) -> Evaluation:
    """Compare each member's gradient of the likelihood's target with respect to its input.

    Parameters
    ----------
    ensemble : Ensemble
    X : Tensor of shape (B, ...)
        Inputs shared by the members; K features when flattened.
    y : Tensor of shape (B,)
        True classes or targets. If there are fewer, they are those of the last rows.
    n_rows : int
        How many rows the gradients are taken at, from 1 to B.
    likelihood : Likelihood, default=CATEGORICAL
        Whose `gradient_target` is differentiated.

    Returns
    -------
    Evaluation
        With a representation of shape (M, n_rows, K).
    """
    known = y[: n_rows - (len(X) - len(y))]
    of_class = likelihood.gradient_target

    def target(outputs: Tensor) -> Tensor:
        return of_class(outputs, likelihood.completed(outputs, known))

    def derivatives(outputs: Tensor) -> tuple[Tensor, Hessian | None]:
        return DERIVATIVES[of_class](outputs, likelihood.completed(outputs, known))

    return ensemble.evaluate(X, n_rows, target, derivatives if of_class in DERIVATIVES else None)


def weights(
    ensemble: Ensemble,
    X: Tensor,
    y: Tensor,  # noqa: ARG001
    n_rows: int,  # noqa: ARG001
    likelihood: Likelihood = CATEGORICAL,  # noqa: ARG001
) -> Evaluation:
    """Compare each member's trainable parameters, as one long vector.

    Parameters
    ----------
    ensemble : Ensemble
    X : Tensor of shape (B, ...)
        Inputs shared by the members.
    y : Tensor of shape (B,)
        Not used, nor are the others: the weights are the same at every row.
    n_rows : int
    likelihood : Likelihood, default=CATEGORICAL

    Returns
    -------
    Evaluation
        With a representation of shape (M, 1, P).
    """
    outputs, _, pullback = ensemble.evaluate(X)
    parameters = [p for p in ensemble.stacked.parameters() if p.requires_grad]
    flat = [p.detach().flatten(1) for p in parameters]

    @torch.no_grad()
    def weights_pullback(
        cotangent: Tensor, force: Tensor, mixing: Tensor | None = None
    ) -> Gradients:
        forces = iter(force.squeeze(1).split([part.shape[1] for part in flat], dim=1))
        gradients: Gradients = []
        for parameter, driving in zip(
            ensemble.stacked.parameters(), pullback(cotangent), strict=True
        ):
            if not parameter.requires_grad:
                gradients.append(None)
                continue
            gradient = next(forces)
            if driving is not None:
                driving = driving.flatten(1)
                gradient = gradient + (driving if mixing is None else mixing @ driving)
            gradients.append(gradient.reshape(parameter.shape))
        return gradients

    return Evaluation(outputs, torch.cat(flat, dim=1).unsqueeze(1), weights_pullback)


def functions(
    ensemble: Ensemble,
    X: Tensor,
    y: Tensor,  # noqa: ARG001
    n_rows: int,
    likelihood: Likelihood = CATEGORICAL,
) -> Evaluation:
    """Compare what each member says at the first rows, all of them as one vector.

    Parameters
    ----------
    ensemble : Ensemble
    X : Tensor of shape (B, ...)
        Inputs shared by the members.
    y : Tensor of shape (B,)
        Not used.
    n_rows : int
        How many rows, from 1 to B.
    likelihood : Likelihood, default=CATEGORICAL
        Whose `prediction` is compared: probabilities of classes, the mean of numbers.

    Returns
    -------
    Evaluation
        With a representation of shape (M, 1, n_rows · K).
    """
    outputs, _, pullback = ensemble.evaluate(X)
    compared = outputs[:, :n_rows].clone().requires_grad_()
    with torch.enable_grad():
        prediction = likelihood.prediction(compared).flatten(1).unsqueeze(1)

    def function_pullback(
        cotangent: Tensor, force: Tensor, mixing: Tensor | None = None
    ) -> Gradients:
        # In function space the driving force is the loss's gradient at the outputs.
        cotangent = cotangent.clone() if mixing is None else torch.tensordot(mixing, cotangent, 1)
        (at_outputs,) = torch.autograd.grad(prediction, compared, force)
        cotangent[:, :n_rows] += at_outputs
        return pullback(cotangent)

    return Evaluation(outputs, prediction.detach(), function_pullback)


def features(
    ensemble: Ensemble,
    X: Tensor,
    y: Tensor,  # noqa: ARG001
    n_rows: int,
    likelihood: Likelihood = CATEGORICAL,  # noqa: ARG001
) -> Evaluation:
    """Compare what enters each member's last layer with weights.

    Parameters
    ----------
    ensemble : Ensemble
    X : Tensor of shape (B, ...)
        Inputs shared by the members.
    y : Tensor of shape (B,)
        Not used.
    n_rows : int
        How many rows, from 1 to B.
    likelihood : Likelihood, default=CATEGORICAL
        Not used.

    Returns
    -------
    Evaluation
        With a representation of shape (M, n_rows, K).
    """
    outputs, entering = ensemble.outputs_and_features(X)
    if not entering.requires_grad:
        raise ValueError(
            "Got a module without hidden features (what enters its last layer with weights depends "
            "on no parameter), but expected a hidden layer to compare."
        )
    return autograd_evaluation(ensemble, outputs, entering[:, :n_rows].flatten(2))


def space_of(representation: Representation) -> Space:
    """Make a space of a function of your own.

    Parameters
    ----------
    representation : callable
        Maps ``(ensemble, X, y)``, where X and y are the rows compared, to a tensor (M, rows, K)
        that autograd can follow to the ensemble's parameters. Call ``ensemble(X)`` for the
        members' outputs. The number of rows need not be that of X. At points without a target
        y is the ensemble's guess. With batch normalisation all rows of the batch are compared.

    Returns
    -------
    Space
        In which points, not directions, are compared.
    """
    return Space(partial(_evaluate_representation, representation))


def _evaluate_representation(
    representation: Representation,
    ensemble: Ensemble,
    X: Tensor,
    y: Tensor,
    n_rows: int,
    likelihood: Likelihood = CATEGORICAL,
) -> Evaluation:
    outputs = ensemble(X)
    if ensemble.couples_rows:  # a part of the batch would not be what it is among the others
        n_rows = len(X)
    targets = likelihood.completed(outputs, y)[:n_rows]
    values = representation(ensemble, X[:n_rows], targets)
    _check_representation(values, ensemble.n_members)
    return autograd_evaluation(ensemble, outputs, values)


def _check_representation(values: object, n_members: int) -> None:
    expected = f"a tensor of shape ({n_members}, rows, K) that depends on the parameters"
    if not isinstance(values, Tensor):
        raise TypeError(f"Got a {type(values).__name__} from the space, but expected {expected}.")
    if values.ndim != 3 or len(values) != n_members or not values.requires_grad:
        detached = "" if values.requires_grad else " that autograd did not follow"
        raise ValueError(
            f"Got a tensor of shape {tuple(values.shape)}{detached} from the space, but expected "
            f"{expected}."
        )


SPACES = {
    "input_gradient": Space(input_gradients, directions=True, of_inputs=True, compiles=True),
    "weight": Space(weights, at_rows=False, mixes_driving_force=True, compiles=True),
    "function": Space(functions, mixes_driving_force=True),
    "feature": Space(features),
}
