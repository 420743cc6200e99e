"""Stacked MLPs with the whole training step written out, and the choice of an engine by type."""

from __future__ import annotations

from functools import cached_property, partial

import torch
from torch import Tensor, nn

from sklearn_fordes.networks._mlp import ACTIVATIONS, MLP, Dropout, PeriodicEmbedding
from sklearn_fordes.networks.fast import _passes
from sklearn_fordes.networks.fast._passes import Embedding, Layers, mask
from sklearn_fordes.particles import (
    ACTIVATIONS_AT_ONCE,
    Ensemble,
    Evaluation,
    Gradients,
    MemberFactory,
    OutputDerivatives,
    OutputFunction,
    autograd_derivatives,
)


def stack_members(
    make_member: MemberFactory | nn.Module, n_members: int, seed: int = 0
) -> Ensemble:
    """Draw members and stack them.

    The type of a member decides how it is differentiated: passes written out by hand for an `MLP`
    that is built as its constructor builds it, autograd for everything else, a subclass included.

    Parameters
    ----------
    make_member : callable or nn.Module
    n_members : int
    seed : int, default=0
        As in `Ensemble`.

    Returns
    -------
    Ensemble
        Of the engine that the members' type has chosen.

    Examples
    --------
    >>> from functools import partial
    >>> from sklearn_fordes.networks import MLP
    >>> type(stack_members(partial(MLP, 3, 2), n_members=5)).__name__
    'MLPEnsemble'
    >>> type(stack_members(partial(nn.Linear, 3, 2), n_members=5)).__name__
    'Ensemble'
    """
    ensemble = Ensemble(make_member, n_members, seed)
    return MLPEnsemble.of(ensemble) or ensemble


# The activation; and type, name and dropout rate of each part of a member.
_Parts = tuple[str, list[tuple[type, str, float]]]


class MLPEnsemble(Ensemble):
    """An `Ensemble` of `MLP` members that needs neither vmap nor autograd to train.

    `stack_members` makes one of an ensemble whose members are of the right kind.
    """

    @classmethod
    def of(cls, ensemble: Ensemble) -> MLPEnsemble | None:
        """Return an ensemble of the same members, not copied; None if they are of another kind."""
        member = ensemble._template
        if not (type(member) is MLP and _is_as_built(member)):
            return None
        # The constructor would draw members anew; these have been drawn, with the same seeds.
        written_out = cls.__new__(cls)
        written_out.__dict__.update(vars(ensemble), _parts=_parts_of(member))
        return written_out

    def forward(self, X: Tensor, *, shared: bool = True) -> Tensor:
        """Evaluate every member (see `Ensemble.forward`)."""
        rows = X.expand(self.n_members, *X.shape) if shared else X
        return _outputs(self._layers(), rows)

    def evaluate(
        self,
        X: Tensor,
        n_rows: int = 0,
        target: OutputFunction | None = None,
        derivatives: OutputDerivatives | None = None,
    ) -> Evaluation:
        """Evaluate every member for training (see `Ensemble.evaluate`)."""
        layers = self._layers()
        # Only the first rows are differentiated by inputs: no others need second derivatives.
        forward = _passes.forward(layers, X, n_rows)
        tangent = hessian = None
        if target is not None:
            differentiate = derivatives or partial(autograd_derivatives, target)
            gradient, hessian = differentiate(forward.outputs[:, :n_rows])
            tangent = _passes.input_gradients(layers, forward, gradient)

        def pullback(
            outputs_cotangent: Tensor, gradients_cotangent: Tensor | None = None
        ) -> Gradients:
            gradients = _passes.backward(
                layers, forward, outputs_cotangent, tangent, gradients_cotangent, hessian
            )
            parameters = self.stacked.parameters()
            return [g for g, p in zip(gradients, parameters, strict=True) if p.requires_grad]

        return Evaluation(forward.outputs, None if tangent is None else tangent.gradients, pullback)

    def rows_at_a_time(self) -> int:
        """Return the number of rows to evaluate at once (see `Ensemble.rows_at_a_time`)."""
        layers = self._layers()
        widths = [max(weight.shape[1:]) for weight, _ in layers.affine]
        if layers.embedding is not None:
            widths.append(layers.embedding.frequency[0].numel())
        n_activations = ACTIVATIONS_AT_ONCE[layers.affine[0][0].device.type]
        return max(1, n_activations // (self.n_members * max(widths)))

    # An ensemble read from a pickle has no parts yet: they follow from its template.
    @cached_property
    def _parts(self) -> _Parts:
        return _parts_of(self._template)

    def _layers(self) -> Layers:
        activation, parts = self._parts
        layers = Layers([], activation, None, [])
        for kind, name, rate in parts:
            if kind is nn.Linear:
                weight, bias = self.stacked.get_submodule(name).parameters()
                layers.affine.append((weight, bias))
            elif kind is Dropout and self.training:
                layers.dropout.append((self.stacked.get_buffer(f"{name}.draws"), rate))
            elif kind is PeriodicEmbedding:
                # The parameters of a module come in the order in which it has made them.
                frequency, phase, weight, bias = self.stacked.get_submodule(name).parameters()
                features = self.stacked.get_buffer(f"{name}.features")[0]  # Equal for all members.
                embedding = Embedding(frequency, phase, weight, bias, features)
                layers = layers._replace(embedding=embedding)
        return layers


def _parts_of(member: nn.Module) -> _Parts:
    parts = [(type(part), name, getattr(part, "p", 0.0)) for name, part in member.named_children()]
    return str(member.activation), parts


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
        and not any(_is_watched(part) for part in member.modules())
    )


def _is_watched(part: nn.Module) -> bool:
    """Whether a module calls more than its class says: a hook, or a method of its own."""
    return "forward" in vars(part) or bool(part._forward_hooks or part._forward_pre_hooks)


def _outputs(layers: Layers, X: Tensor) -> Tensor:
    """Return outputs (M, B, C) at rows (M, B, n_features), which autograd can follow."""
    (weight, bias), *rest = layers.affine
    n_added = 0 if layers.embedding is None else layers.embedding.bias[0].numel()
    of_columns, of_components = weight.tensor_split([weight.shape[-1] - n_added], dim=-1)
    h = torch.baddbmm(bias.unsqueeze(1), X, of_columns.mT)
    if layers.embedding is not None:
        # Two products are faster than one of columns and components copied together.
        h = torch.baddbmm(h, _components(layers.embedding, X), of_components.mT)
    activate = ACTIVATIONS[layers.activation]()
    for index, (weight, bias) in enumerate(rest):
        h = activate(h)
        if layers.dropout:
            h = h * mask(layers, index, h)
        h = torch.baddbmm(bias.unsqueeze(1), h, weight.mT)
    return h


def _components(embedding: Embedding, X: Tensor) -> Tensor:
    """Embed numbers of rows (M, B, n_features): (M, B, D · K)."""
    numbers = X[..., embedding.features].mT.unsqueeze(-2)
    angle = torch.addcmul(embedding.phase.unsqueeze(-1), embedding.frequency.unsqueeze(-1), numbers)
    # In prediction the angle is not needed again, and its memory serves the cosine.
    cos = angle.cos() if torch.is_grad_enabled() else angle.cos_()
    value = embedding.weight.mT @ cos + embedding.bias.unsqueeze(-1)  # (M, D, K, B)
    return value.flatten(-3, -2).mT
