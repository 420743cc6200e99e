"""Stacked MLPs with the whole training step written out: the fast path of `Ensemble`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from sklearn_fordes.particles import Ensemble, Evaluation, OutputFunction
from sklearn_fordes.tabular._activations import ACTIVATIONS, Derivatives
from sklearn_fordes.tabular._embedding import Components, components
from sklearn_fordes.tabular._mlp import MLP

Layers = list[tuple[Tensor, Tensor]]  # weight (M, out, in) and bias (M, out) of each


class MLPEnsemble(Ensemble):
    """An `Ensemble` of `MLP` members that needs neither vmap nor autograd to train.

    It computes what `Ensemble` computes. With layers l = 1…L, preactivations
    ``a_l = h_{l−1} W_lᵀ + b_l`` and activations ``h_l = σ(a_l)``, the passes over a batch are::

        forward           h_l,   z = a_L
        input gradient    g_L = ∂t/∂z,   p_l = g_l W_l,   g_{l−1} = σ'(a_{l−1}) ∘ p_l,   G = p_1
        its reverse       p̄_1 = V,   ḡ_l = p̄_l W_lᵀ,   W̄_l = g_lᵀ p̄_l,
                          p̄_{l+1} = σ'(a_l) ∘ ḡ_l,   ā_l = σ''(a_l) ∘ p_{l+1} ∘ ḡ_l
        backward          ā_L = ∂loss/∂z + (∂²t/∂z²)ᵀ ḡ_L,
                          W̄_l += ā_lᵀ h_{l−1},   b̄_l = Σ_b ā_l,
                          ā_{l−1} += σ'(a_{l−1}) ∘ (ā_l W_l)

    with V the cotangent of G. Forward and backward are those of a deep ensemble; the two in between
    run on the rows compared alone, and cost as much for these. Dropout multiplies σ, σ' and σ'' by
    its mask. Where columns x are embedded, h_0 = (x, e(x)) and p_1 = (p_x, p_e), so that::

        G = p_x + e'(x) p_e,   p̄_1 = (V, e'(x) V),   ē' = p_e V,   ē = ā_1 W_e

    From ē and ē' back to the embedding's parameters is autograd's, a small part of the step.

    Parameters
    ----------
    make_member : callable or MLP
        As in `Ensemble`; what it returns must be an `MLP`.
    n_members : int
        M.
    seed : int, default=0
        Member i's initial weights depend on `seed` and i alone.
    """

    def forward(self, X: Tensor, *, shared: bool = True) -> Tensor:
        """Evaluate every member (see `Ensemble.forward`)."""
        template = self._mlp
        activation = ACTIVATIONS[template.activation].layer()
        h = X.expand(self.n_members, *X.shape) if shared else X
        if template.embedding is not None:
            h = torch.cat([h, self._components(X).value.flatten(-2)], dim=-1)
        *hidden, last = self._layers()
        for weight, bias in hidden:
            h = activation(_affine(h, weight, bias))
            h = torch.nn.functional.dropout(h, template.dropout, self.training)
        return _affine(h, *last)

    @torch.no_grad()
    def evaluate(
        self, X: Tensor, n_rows: int = 0, target: OutputFunction | None = None
    ) -> Evaluation:
        """Evaluate every member for training (see `Ensemble.evaluate`)."""
        n_rows = 0 if target is None else n_rows
        layers = self._layers()
        differentiate = ACTIVATIONS[self._mlp.activation].differentiate
        embedded = self._embedded(X, n_rows)
        inputs = [X.expand(self.n_members, *X.shape)]  # h_{l−1}, shared by the first layer
        if embedded is not None:
            inputs = [torch.cat([inputs[0], embedded.value.flatten(-2)], dim=-1)]
        hidden: list[Derivatives] = []
        for weight, bias in layers[:-1]:
            derivatives = differentiate(_affine(inputs[-1], weight, bias), n_rows)
            hidden.append(self._dropped(derivatives, n_rows))
            inputs.append(hidden[-1].value)
        logits = _affine(inputs[-1], *layers[-1])
        backward = partial(_backward, layers, inputs, hidden, embedded)
        if not n_rows or target is None:
            return Evaluation(logits, None, backward)

        compared = logits[:, :n_rows].clone().requires_grad_()
        with torch.enable_grad():
            (target_gradient,) = torch.autograd.grad(
                target(compared).sum(), compared, create_graph=True
            )
        # (g_l, p_l) of each layer, from the last to the first
        gradients: list[tuple[Tensor, Tensor]] = []
        g = target_gradient.detach()
        for index in reversed(range(len(layers))):
            p = g @ layers[index][0]
            gradients.insert(0, (g, p))
            if index:
                g = p * hidden[index - 1].slope[:, :n_rows]
        at_inputs = gradients[0][1]

        @torch.no_grad()
        def pullback(logits_cotangent: Tensor, gradient_cotangent: Tensor) -> None:
            p_bar, slope_bar = gradient_cotangent, None
            if embedded is not None:
                slope_bar = embedded.slope_cotangent(gradient_cotangent, at_inputs)
                p_bar = embedded.through_inputs(gradient_cotangent)
            weight_grads, preactivation_grads = [], []
            for index, (weight, _) in enumerate(layers):
                weight_grads.append(_weight_gradient(gradients[index][0], p_bar))
                g_bar = p_bar @ weight.mT
                if index < len(hidden):
                    _, slope, curvature = hidden[index]
                    p_bar = g_bar * slope[:, :n_rows]
                    if curvature is not None:
                        curvature = curvature * gradients[index + 1][1] * g_bar
                    preactivation_grads.append(curvature)
            if target_gradient.requires_grad:  # not where the target is linear in the logits
                (z_bar,) = torch.autograd.grad(target_gradient, compared, g_bar)
                logits_cotangent = logits_cotangent.clone()
                logits_cotangent[:, :n_rows] += z_bar
            backward(logits_cotangent, weight_grads, preactivation_grads, slope_bar)

        representation = at_inputs if embedded is None else embedded.input_gradients(at_inputs)
        return Evaluation(logits, representation, pullback)

    @property
    def _mlp(self) -> MLP:
        return cast(MLP, self._template)

    def _layers(self) -> Layers:
        """Return weight (M, out, in) and bias (M, out) of each layer."""
        tensors = iter(list(self.stacked.parameters())[len(self._embedding_parameters()) :])
        return list(zip(tensors, tensors, strict=True))

    def _embedding_parameters(self) -> list[nn.Parameter]:
        embedding = self._mlp.embedding
        n_parameters = 0 if embedding is None else len(list(embedding.parameters()))
        return list(self.stacked.parameters())[:n_parameters]

    def _components(self, X: Tensor, n_rows: int = 0) -> Components:
        features = self.stacked.get_buffer("0.features")[0]  # the same for all members
        return components(X[..., features], self._embedding_parameters(), n_rows)

    def _embedded(self, X: Tensor, n_rows: int) -> _Embedded | None:
        if self._mlp.embedding is None:
            return None
        with torch.enable_grad():
            followed = self._components(X, n_rows)
        features = self.stacked.get_buffer("0.features")[0]
        return _Embedded(X.shape[-1], features, followed, self._embedding_parameters())

    def _dropped(self, derivatives: Derivatives, n_rows: int) -> Derivatives:
        p = self._mlp.dropout
        if not (p and self.training):
            return derivatives
        mask = torch.empty_like(derivatives.value).bernoulli_(1 - p).div_(1 - p)
        value, slope, curvature = derivatives
        return Derivatives(
            value * mask,
            slope * mask,
            None if curvature is None else curvature * mask[:, :n_rows],
        )


class _Embedded:
    """The pass through the embedding of D out of n columns, which autograd follows apart."""

    def __init__(
        self, n_columns: int, features: Tensor, followed: Components, parameters: list[nn.Parameter]
    ) -> None:
        self.n_columns = n_columns
        self.features = features
        self.followed = followed
        self.parameters = parameters
        self.value, self.slope = (part.detach() for part in followed)  # (M, B or n_rows, D, K)

    def _split(self, at_inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(M, rows, n + D · K) → (M, rows, n) and (M, rows, D, K)."""
        at_columns, at_components = at_inputs.tensor_split([self.n_columns], dim=-1)
        return at_columns, at_components.unflatten(-1, self.slope.shape[-2:])

    def input_gradients(self, at_inputs: Tensor) -> Tensor:
        """∂t/∂x from ∂t/∂(x, e): (M, n_rows, n + D · K) → (M, n_rows, n)."""
        at_columns, at_components = self._split(at_inputs)
        return at_columns.index_add(-1, self.features, (at_components * self.slope).sum(-1))

    def through_inputs(self, gradient_cotangent: Tensor) -> Tensor:
        """Cotangent of ∂t/∂(x, e) from that of ∂t/∂x."""
        at_components = gradient_cotangent[..., self.features, None] * self.slope
        return torch.cat([gradient_cotangent, at_components.flatten(-2)], dim=-1)

    def slope_cotangent(self, gradient_cotangent: Tensor, at_inputs: Tensor) -> Tensor:
        """Cotangent of e'(x), (M, n_rows, D, K)."""
        return gradient_cotangent[..., self.features, None] * self._split(at_inputs)[1]

    def backward(self, at_inputs: Tensor, slope_cotangent: Tensor | None) -> None:
        """Accumulate the gradients of the embedding's parameters."""
        cotangents = [self._split(at_inputs)[1]]
        cotangents += [] if slope_cotangent is None else [slope_cotangent]
        torch.autograd.backward(
            list(self.followed[: len(cotangents)]), cotangents, inputs=self.parameters
        )


def _affine(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.baddbmm(bias.unsqueeze(1), h, weight.mT)


@torch.no_grad()
def _backward(
    layers: Layers,
    inputs: list[Tensor],
    hidden: list[Derivatives],
    embedded: _Embedded | None,
    logits_cotangent: Tensor,
    weight_grads: Sequence[Tensor] = (),
    preactivation_grads: Sequence[Tensor | None] = (),
    slope_cotangent: Tensor | None = None,
) -> None:
    """Back-propagate to every parameter's ``grad``, adding to what the second pass found."""
    a_bar = logits_cotangent
    for index in reversed(range(len(layers))):
        weight, bias = layers[index]
        grad = _weight_gradient(a_bar, inputs[index])
        _accumulate(weight, grad.add_(weight_grads[index]) if weight_grads else grad)
        _accumulate(bias, a_bar.sum(1))
        if index:
            a_bar = (a_bar @ weight).mul_(hidden[index - 1].slope)
            if preactivation_grads and (found := preactivation_grads[index - 1]) is not None:
                a_bar[:, : found.shape[1]] += found
        elif embedded is not None:
            embedded.backward(a_bar @ weight, slope_cotangent)


def _weight_gradient(output_grad: Tensor, layer_input: Tensor) -> Tensor:
    """Sum of outer products over rows: (M, B, out), (M, B, in) → (M, out, in)."""
    if layer_input.shape[-1] < output_grad.shape[-1]:
        # The matrix product is up to three times as fast with its short side first.
        return (layer_input.mT @ output_grad).mT.contiguous()
    return output_grad.mT @ layer_input


def _accumulate(parameter: Tensor, grad: Tensor) -> None:
    parameter.grad = grad if parameter.grad is None else parameter.grad + grad
