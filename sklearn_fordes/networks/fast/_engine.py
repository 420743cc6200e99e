"""Stacked MLPs with the whole training step written out, and the choice of an engine by type."""

from functools import cache, cached_property, partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from sklearn_fordes.networks._mlp import (
    MLP,
    Dropout,
    PeriodicEmbedding,
    common_masks,
    dropout_mask,
    has_common_draws,
)
from sklearn_fordes.networks.fast._passes import DERIVATIVES, Embedding, Layer, Passes
from sklearn_fordes.particles import (
    ACTIVATIONS_AT_ONCE,
    Ensemble,
    Evaluation,
    Gradients,
    MemberFactory,
    OutputDerivatives,
    OutputFunction,
    autograd_derivatives,
    filled_up,
    n_missing,
)

# They have no parameters, and no state that threads would share.
_ACTIVATIONS = {activation: activation() for activation in DERIVATIVES}
# Of smaller weights, and in batches of few rows, conversions take longer than products gain.
_FEWEST_TO_MIX = 8192
# Where autograd does not need their inputs they take over the memory, if they can.
_IN_PLACE = {**_ACTIVATIONS, nn.ReLU: nn.ReLU(inplace=True), nn.SiLU: nn.SiLU(inplace=True)}


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
    if is_as_built(ensemble._template):
        ensemble.__class__ = MLPEnsemble
        assert isinstance(ensemble, MLPEnsemble)
        ensemble.note_draws()
    return ensemble


class MLPEnsemble(Ensemble):
    """An `Ensemble` of `MLP` members that needs neither vmap nor autograd to train.

    `stack_members` makes one of an ensemble whose members are of the right kind.
    """

    has_common_draws = False
    # Matrix products sum in another order where rows do not fill up a block of a processor.
    row_multiple = 16

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.note_draws()

    def load_state_dict(self, *arguments: Any, **named: Any) -> Any:
        """Load weights and buffers (see `torch.nn.Module.load_state_dict`)."""
        found = super().load_state_dict(*arguments, **named)
        self.note_draws()
        return found

    def note_draws(self) -> None:
        """Note whether the members draw their masks from one sequence, as they do at first."""
        named = self.stacked.named_buffers()
        draws = [buffer for name, buffer in named if name.endswith("draws")]
        self.has_common_draws = all(map(has_common_draws, draws))

    def forward(self, X: Tensor, *, shared: bool = True) -> Tensor:
        """Evaluate every member (see `Ensemble.forward`)."""
        (first, *rest), embedding = self._layers()
        rows = X.expand(self.n_members, *X.shape) if shared else X
        activations = _ACTIVATIONS if torch.is_grad_enabled() else _IN_PLACE
        if embedding is None:
            h = first.affine(rows)
        else:
            # Two products are faster than one of columns and components copied together.
            of_columns, of_components = first.weight.tensor_split([X.shape[-1]], dim=-1)
            h = torch.baddbmm(first.bias.unsqueeze(1), rows, of_columns.mT)
            components = embedding.components(X)
            # Autocast makes products of another type, which it does not write into others.
            is_kept = torch.is_grad_enabled() or h.dtype != of_components.dtype
            h = (h.baddbmm if is_kept else h.baddbmm_)(components, of_components.mT)
        for layer in rest:
            h = activations[layer.activation](h)
            if layer.mask is not None:
                h = h * layer.mask(h)
            h = layer.affine(h)
        return h

    def evaluate(
        self,
        X: Tensor,
        n_rows: int = 0,
        target: OutputFunction | None = None,
        derivatives: OutputDerivatives | None = None,
        *,
        shared: bool = True,
    ) -> Evaluation:
        """Evaluate every member for training (see `Ensemble.evaluate`)."""
        # Only the first rows are differentiated by inputs: no others need second derivatives.
        n_given, n_more = X.shape[0 if shared else 1], n_missing(n_rows, X.device)
        layers, embedding = self._layers(for_training=self.training)
        passes = Passes(layers, embedding, filled_up(X, shared=shared), n_rows + n_more)
        gradients = hessian = None
        if target is not None:
            differentiate = derivatives or partial(autograd_derivatives, target)
            at_outputs, known = differentiate(passes.outputs[:, :n_rows])
            hessian = known and (lambda bar: _with_zeros(known(bar[:, :n_rows]), n_more))
            gradients = passes.input_gradients(_with_zeros(at_outputs, n_more))[:, :n_rows]

        def pullback(
            outputs_cotangent: Tensor, gradients_cotangent: Tensor | None = None
        ) -> Gradients:
            n_filled = passes.outputs.shape[1] - n_given
            if gradients_cotangent is not None:
                gradients_cotangent = _with_zeros(gradients_cotangent, n_more)
            found = passes.backward(
                hessian, _with_zeros(outputs_cotangent, n_filled), gradients_cotangent
            )
            parameters = self.stacked.parameters()
            return [g for g, p in zip(found, parameters, strict=True) if p.requires_grad]

        return Evaluation(passes.outputs[:, :n_given], gradients, pullback)

    @cached_property
    def activations_of_a_row(self) -> float:
        """Numbers of a row in the widest layer, over all members."""
        layers, embedding = self._layers()
        widths = [max(layer.weight.shape[1:]) for layer in layers]
        if embedding is not None:
            widths.append(embedding.frequency[0].numel())
        return self.n_members * max(widths)

    def rows_at_a_time(self) -> int:
        """Return the number of rows to evaluate at once (see `Ensemble.rows_at_a_time`).

        Fewer than `row_multiple` are filled up, and all weights are read for each chunk. Input
        gradients take a quarter of the rows at once, which still is a whole multiple.
        """
        device = next(self.stacked.parameters()).device
        n_rows = int(ACTIVATIONS_AT_ONCE[device.type] // self.activations_of_a_row)
        return max(n_rows, 4 * self.row_multiple)

    def _layers(self, *, for_training: bool = False) -> tuple[list[Layer], Embedding | None]:
        layers: list[Layer] = []
        assert isinstance(self._template, MLP)
        last, mixed_precision = self._template[-1], self._template.mixed_precision
        embedding = mask = None
        activation: type[nn.Module] = nn.Identity
        # Tensors come in the order of the parts, and in each in the order in which it made them.
        parameters, buffers = self.stacked.parameters(), self.stacked.buffers()
        for part in self._template.children():
            if isinstance(part, nn.Linear):
                weight, bias = next(parameters), next(parameters)
                # The outputs, and all that the likelihood makes of them, have full precision.
                may_mix = for_training and part is not last
                is_mixed = may_mix and _mixes_precision(mixed_precision, weight)
                layers.append(Layer(weight, bias, activation, mask, is_mixed=is_mixed))
            elif isinstance(part, PeriodicEmbedding):
                # Columns are equal for all members.
                embedding = Embedding(next(buffers)[0], *islice(parameters, 4))
            elif not isinstance(part, Dropout):
                activation = type(part)
            elif self.training:
                make = common_masks if self.has_common_draws else dropout_mask
                mask = partial(make, next(buffers), p=part.p, sequence=part.mask_sequence)
        return layers, embedding


def _mixes_precision(mixed_precision: bool | str, weight: Tensor) -> bool:
    """Return whether products with a hidden layer's weight take bfloat16 in training."""
    if weight.dtype != torch.float32 or weight[0].numel() < _FEWEST_TO_MIX:
        return False
    if mixed_precision == "auto":
        # Without oneDNN torch multiplies bfloat16 far more slowly than single precision.
        has_library = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
        return weight.is_cpu and bool(has_library) and _multiplies_bfloat16()
    return bool(mixed_precision)


@cache
def _multiplies_bfloat16() -> bool:
    """Return whether the processor has instructions that multiply bfloat16."""
    # Nothing public says so in all versions that the package takes.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


def _with_zeros(values: Tensor, n_rows: int) -> Tensor:
    """Append rows of zeros: (M, B, ...) → (M, B + n_rows, ...)."""
    return nn.functional.pad(values, (0, 0, 0, n_rows)) if n_rows else values


def is_as_built(member: nn.Module) -> bool:
    """Return whether a network is an `MLP` as its constructor made it, of parts that are known.

    Parameters
    ----------
    member : nn.Module

    Returns
    -------
    bool
        False for a subclass, and where a part was replaced or has a hook.
    """
    return (
        type(member) is MLP
        and (str(member), len(list(member.parameters()))) == member.as_built
        and {type(part) for part in member} <= {nn.Linear, Dropout, PeriodicEmbedding, *DERIVATIVES}
        # A hook, or a method of the part's own, does more than the class says.
        and not any(
            "forward" in vars(part) or part._forward_hooks or part._forward_pre_hooks
            for part in member.modules()
        )
    )
