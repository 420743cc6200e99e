"""Spaces: what members are compared by, a representation of shape (M, n_rows, K)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from sklearn_fordes._signatures import explaining_arguments
from sklearn_fordes.particles._evaluation import Evaluation, Gradients, Hessian
from sklearn_fordes.particles._members import Ensemble, autograd_evaluation
from sklearn_fordes.particles.likelihoods import Likelihood

Representation = Callable[[Ensemble, Tensor, Tensor], Tensor]
# Averages the driving forces of members, (m, ...), over all of them.
Mix = Callable[[Tensor], Tensor]


def _unmixed(driving: Tensor) -> Tensor:
    return driving


class Space(ABC):
    """What members are compared by.

    Attributes
    ----------
    unit_sphere : bool, default=False
        Whether only directions are compared, because lengths mean nothing.
    axes_are_inputs : bool, default=False
        Whether the K axes are those of the (flattened) input, so that a lengthscale can be computed
        from the training inputs.
    depends_on_inputs : bool, default=True
        Whether the representation depends on the rows, so that it matters where they lie.
    joins_rows : bool, default=False
        Whether the rows together make one vector of each member, in which they are neighbours.
    supports_svgd : bool, default=False
        Whether the pullback takes a third argument, a function that mixes the members' driving
        forces in this space, (M, ...).
    """

    unit_sphere = False
    axes_are_inputs = False
    depends_on_inputs = True
    joins_rows = False
    supports_svgd = False

    @abstractmethod
    def evaluate(
        self,
        ensemble: Ensemble,
        X: Tensor,
        y: Tensor,
        n_rows: int,
        likelihood: Likelihood,
        *,
        shared: bool = True,
    ) -> Evaluation:
        """Evaluate an ensemble at a batch.

        Parameters
        ----------
        ensemble : Ensemble
        X : Tensor of shape (B, ...), or (M, B, ...) if not `shared`
            The members' inputs. The first `n_rows` are the same for all of them.
        y : Tensor of shape (B,)
            Targets. If there are fewer, they belong to the last rows (see `Likelihood.completed`).
        n_rows : int
            Members are compared at the first `n_rows` rows, from 1 to B.
        likelihood : Likelihood
        shared : bool, default=True
            Whether the other rows are the same for all members too.

        Returns
        -------
        Evaluation
            With a representation (M, rows, K).
        """


class InputGradientSpace(Space):
    """Each member's gradient of the likelihood's target with respect to its input."""

    unit_sphere = True
    axes_are_inputs = True

    def evaluate(
        self,
        ensemble: Ensemble,
        X: Tensor,
        y: Tensor,
        n_rows: int,
        likelihood: Likelihood,
        *,
        shared: bool = True,
    ) -> Evaluation:
        """Return an evaluation with a representation of shape (M, n_rows, K)."""
        n_extra = X.shape[0 if shared else 1] - len(y)
        known = y[: n_rows - n_extra]

        def target(outputs: Tensor) -> Tensor:
            return likelihood.gradient_target(outputs, likelihood.completed(outputs, known))

        def derivatives(outputs: Tensor) -> tuple[Tensor, Hessian | None]:
            targets = likelihood.completed(outputs, known)
            return likelihood.gradient_target_derivatives(outputs, targets)

        return ensemble.evaluate(X, n_rows, target, derivatives, shared=shared)


class WeightSpace(Space):
    """Each member's trainable parameters, as one long vector."""

    depends_on_inputs = False
    supports_svgd = True

    def evaluate(
        self,
        ensemble: Ensemble,
        X: Tensor,
        y: Tensor,
        n_rows: int,
        likelihood: Likelihood,
        *,
        shared: bool = True,
    ) -> Evaluation:
        """Return an evaluation with a representation of shape (M, 1, P)."""
        outputs, _, pullback = ensemble.evaluate(X, shared=shared)
        trainable = ensemble.trainable
        flat = [parameter.detach().reshape(len(parameter), -1) for parameter in trainable]

        def weights_pullback(cotangent: Tensor, force: Tensor, mix: Mix = _unmixed) -> Gradients:
            forces = force.squeeze(1).split([part.shape[1] for part in flat], dim=1)
            gradients = [f.reshape(p.shape) for f, p in zip(forces, trainable, strict=True)]
            return [
                repelling if driving is None else repelling + mix(driving)
                for repelling, driving in zip(gradients, pullback(cotangent), strict=True)
            ]

        return Evaluation(outputs, torch.cat(flat, dim=1).unsqueeze(1), weights_pullback)


class FunctionSpace(Space):
    """Each member's predictions at the first rows, all of them as one vector."""

    joins_rows = True
    supports_svgd = True

    def evaluate(
        self,
        ensemble: Ensemble,
        X: Tensor,
        y: Tensor,
        n_rows: int,
        likelihood: Likelihood,
        *,
        shared: bool = True,
    ) -> Evaluation:
        """Return an evaluation with a representation of shape (M, 1, n_rows · K)."""
        outputs, _, pullback = ensemble.evaluate(X, shared=shared)
        compared = outputs[:, :n_rows].clone().requires_grad_()
        with torch.enable_grad():
            prediction = likelihood.prediction(compared).flatten(1).unsqueeze(1)

        def function_pullback(cotangent: Tensor, force: Tensor, mix: Mix = _unmixed) -> Gradients:
            # In function space the driving force is the loss's gradient at the outputs.
            (at_outputs,) = torch.autograd.grad(prediction, compared, force)
            mixed = mix(cotangent).clone()
            mixed[:, :n_rows] += at_outputs
            return pullback(mixed)

        return Evaluation(outputs, prediction.detach(), function_pullback)


class FeatureSpace(Space):
    """The input of each member's last layer with weights."""

    def evaluate(
        self,
        ensemble: Ensemble,
        X: Tensor,
        y: Tensor,
        n_rows: int,
        likelihood: Likelihood,
        *,
        shared: bool = True,
    ) -> Evaluation:
        """Return an evaluation with a representation of shape (M, n_rows, K)."""
        outputs, features = ensemble.outputs_and_features(X, shared=shared)
        if not features.requires_grad:
            raise ValueError(
                "Got a module without hidden features (the input of its last layer with weights "
                "depends on no parameter), but expected a hidden layer to compare."
            )
        return autograd_evaluation(ensemble, outputs, features[:, :n_rows].flatten(2))


class FunctionOfEnsemble(Space):
    """A representation that the user's function computes; points, not directions, are compared.

    Parameters
    ----------
    function : callable
        Maps ``(ensemble, X, y)``, with the rows compared and their targets, to a tensor
        (M, rows, K) that autograd can follow to the ensemble's parameters. Call ``ensemble(X)`` for
        the members' outputs. The number of rows may differ from that of X. At rows without a target
        y is the ensemble's guess. With batch normalisation all rows of the batch are compared.
    """

    def __init__(self, function: Representation) -> None:
        self.function = function

    def evaluate(
        self,
        ensemble: Ensemble,
        X: Tensor,
        y: Tensor,
        n_rows: int,
        likelihood: Likelihood,
        *,
        shared: bool = True,
    ) -> Evaluation:
        """Return an evaluation with the function's representation."""
        outputs = ensemble(X, shared=shared)
        rows = X if shared else X[0]
        if ensemble.couples_rows:  # A part of the batch alone would give other values.
            n_rows = len(rows)
        targets = likelihood.completed(outputs, y)[:n_rows]
        places = ("ensemble", "X", "y")
        expected = "a function of (ensemble, X, y): members, rows compared, targets"
        with explaining_arguments(self.function, "a function as repulsion", expected, places):
            values: object = self.function(ensemble, rows[:n_rows], targets)
        n_members = ensemble.n_members
        expected = f"a tensor of shape ({n_members}, rows, K) that depends on the parameters"
        if not isinstance(values, Tensor):
            raise TypeError(
                f"Got a {type(values).__name__} from the space, but expected {expected}."
            )
        if values.ndim != 3 or len(values) != n_members or not values.requires_grad:
            detached = "" if values.requires_grad else " that autograd did not follow"
            raise ValueError(
                f"Got a tensor of shape {tuple(values.shape)}{detached} from the space, but "
                f"expected {expected}."
            )
        return autograd_evaluation(ensemble, outputs, values)


SPACES: dict[str, Space] = {
    "input_gradient": InputGradientSpace(),
    "weight": WeightSpace(),
    "function": FunctionSpace(),
    "feature": FeatureSpace(),
}
