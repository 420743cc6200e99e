"""Stacked MLPs with the whole training step written out."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import cast

from torch import Tensor, nn

from sklearn_fordes.networks._dropout import Dropout
from sklearn_fordes.networks._embedding import PeriodicEmbedding
from sklearn_fordes.networks._mlp import ACTIVATIONS, MLP
from sklearn_fordes.networks.fast import _passes
from sklearn_fordes.networks.fast._embedding import Embedding
from sklearn_fordes.networks.fast._passes import Layers
from sklearn_fordes.particles import (
    Ensemble,
    Evaluation,
    Gradients,
    OutputDerivatives,
    OutputFunction,
    autograd_derivatives,
)


class MLPEnsemble(Ensemble):
    """An `Ensemble` of `MLP` members that needs neither vmap nor autograd to train.

    `stack_members` makes one of an ensemble whose members it `knows`.
    """

    @staticmethod
    def knows(ensemble: Ensemble) -> bool:
        """Whether the passes are written for the members of an ensemble."""
        member = ensemble._template
        return type(member) is MLP and _is_as_built(member)

    @classmethod
    def of(cls, ensemble: Ensemble) -> MLPEnsemble:
        """Return an ensemble of the same members, which are not copied."""
        written_out = cls.__new__(cls)
        written_out.__dict__.update(vars(ensemble))
        return written_out

    def forward(self, X: Tensor, *, shared: bool = True) -> Tensor:
        """Evaluate every member (see `Ensemble.forward`)."""
        rows = X.expand(self.n_members, *X.shape) if shared else X
        return _passes.outputs(self._layers(), rows)

    def evaluate(
        self,
        X: Tensor,
        n_rows: int = 0,
        target: OutputFunction | None = None,
        derivatives: OutputDerivatives | None = None,
    ) -> Evaluation:
        """Evaluate every member for training (see `Ensemble.evaluate`)."""
        layers = self._layers()
        n_rows = 0 if target is None else n_rows
        forward = _passes.forward(layers, X, n_rows)
        tangent = hessian = None
        if n_rows and target is not None:
            differentiate = derivatives or partial(autograd_derivatives, target)
            gradient, hessian = differentiate(forward.outputs[:, :n_rows])
            tangent = _passes.input_gradients(layers, forward, gradient)

        def pullback(
            outputs_cotangent: Tensor, gradients_cotangent: Tensor | None = None
        ) -> Gradients:
            return _passes.backward(
                layers, forward, outputs_cotangent, tangent, gradients_cotangent, hessian
            )

        return Evaluation(forward.outputs, None if tangent is None else tangent.gradients, pullback)

    def rows_at_a_time(self, n_activations: int) -> int:
        """Return the number of rows whose widest layer has `n_activations` numbers in all members.

        With chunks of that many rows a layer is still in the processor's cache when the next one
        reads it.
        """
        layers = self._layers()
        widths = [max(weight.shape[1:]) for weight, _ in layers.affine]
        if layers.embedding is not None:
            widths.append(layers.embedding.frequency[0].numel())
        return max(1, n_activations // (self.n_members * max(widths)))

    def _layers(self) -> Layers:
        member = cast("MLP", self._template)
        layers = Layers([], member.activation, None, [])
        # They come in the order of the parts, and an embedding's in the order of its fields.
        parameters = self.stacked.parameters()
        for name, part in enumerate(member):
            if isinstance(part, nn.Linear):
                layers.affine.append((next(parameters), next(parameters)))
            elif isinstance(part, Dropout) and self.training:
                layers.dropout.append((self.stacked.get_buffer(f"{name}.draws"), part.p))
            elif isinstance(part, PeriodicEmbedding):
                features = self.stacked.get_buffer(f"{name}.features")[0]  # equal for all members
                frequency, phase, weight, bias = islice(parameters, 4)
                embedding = Embedding(frequency, phase, weight, bias, features)
                layers = layers._replace(embedding=embedding)
        return layers


def _is_as_built(member: MLP) -> bool:
    """Whether the parts of a network are those that its constructor made."""
    kinds = [type(part) for part in member]
    activation = ACTIVATIONS[member.activation]
    hidden = [nn.Linear, activation, *[Dropout] * (Dropout in kinds)]
    first = [PeriodicEmbedding] * (PeriodicEmbedding in kinds)
    n_hidden = kinds.count(nn.Linear) - 1
    # Fewer where layers share a weight or have no bias.
    n_parameters = 4 * len(first) + 2 * (n_hidden + 1)
    return (
        kinds == [*first, *hidden * n_hidden, nn.Linear]
        and len(list(member.parameters())) == n_parameters
        # An activation of the same type may compute something else.
        and all(str(part) == str(activation()) for part in member if type(part) is activation)
    )
