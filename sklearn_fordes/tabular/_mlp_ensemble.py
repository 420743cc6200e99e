"""Stacked MLPs with the whole training step written out: the fast path of `Ensemble`."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from sklearn_fordes.particles import (
    Ensemble,
    Evaluation,
    Gradients,
    Hessian,
    MemberFactory,
    OutputDerivatives,
    OutputFunction,
    autograd_derivatives,
)
from sklearn_fordes.tabular._activations import ACTIVATIONS, Derivatives
from sklearn_fordes.tabular._embedding import EmbeddingPass, components
from sklearn_fordes.tabular._mlp import MLP
from sklearn_fordes.tabular._workspace import Workspace

# Of a layer that is still in the cache when the next one is computed: 4 MB in single precision.
_CACHED_ACTIVATIONS = 1 << 20
# With fewer rows at a time, reading the weights takes longer than what the cache saves.
_FEWEST_ROWS = 128
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

    Parameters
    ----------
    make_member : callable or MLP
        As in `Ensemble`; what it returns must be an `MLP`.
    n_members : int
        M.
    seed : int, default=0
        Member i's initial weights depend on `seed` and i alone.
    """

    compiles = True

    def __init__(
        self, make_member: MemberFactory | nn.Module, n_members: int, seed: int = 0
    ) -> None:
        super().__init__(make_member, n_members, seed)
        self._workspace = Workspace()

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        del state["_workspace"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._workspace = Workspace()

    def forward(self, X: Tensor, *, shared: bool = True) -> Tensor:
        """Evaluate every member (see `Ensemble.forward`)."""
        n_rows = max(_FEWEST_ROWS, self.rows_at_a_time(_CACHED_ACTIVATIONS))
        is_small = X.ndim < 2 or X.shape[-2] <= n_rows
        if is_small or self._drops or torch.is_grad_enabled() or X.device.type != "cpu":
            return self._outputs(X, shared=shared)
        parts = X.split(n_rows, dim=-2)
        return torch.cat([self._outputs(part, shared=shared) for part in parts], dim=1)

    def _outputs(self, X: Tensor, *, shared: bool) -> Tensor:
        activate = ACTIVATIONS[self._mlp.activation].function
        embedding, ((weight, bias), *layers) = self._parts()
        n_added = 0 if self._mlp.embedding is None else self._mlp.embedding.n_added
        of_columns, of_added = weight.tensor_split([weight.shape[-1] - n_added], dim=-1)
        h = _affine(X.expand(self.n_members, *X.shape) if shared else X, of_columns, bias)
        if embedding:
            added = components(X[..., self._embedded_features], embedding)
            h = torch.baddbmm(h, added, of_added.mT)
        for weight, bias in layers:
            h = activate(h)
            if self._drops:
                h = h * _dropout_mask(torch.empty_like(h), self._mlp.dropout)
            h = _affine(h, weight, bias)
        return h

    def evaluate(
        self,
        X: Tensor,
        n_rows: int = 0,
        target: OutputFunction | None = None,
        derivatives: OutputDerivatives | None = None,
    ) -> Evaluation:
        """Evaluate every member for training (see `Ensemble.evaluate`)."""
        n_rows = 0 if target is None else n_rows
        with torch.no_grad():
            one_pass = _Pass(self, X, n_rows)
        gradients = hessian = None
        if n_rows and target is not None:
            compared = one_pass.outputs[:, :n_rows]
            differentiate = derivatives or partial(autograd_derivatives, target)
            gradient, hessian = differentiate(compared)
            with torch.no_grad():
                gradients = one_pass.input_gradients(gradient)

        def pullback(
            outputs_cotangent: Tensor, gradients_cotangent: Tensor | None = None
        ) -> Gradients:
            with torch.no_grad():
                return one_pass.pull_back(outputs_cotangent, gradients_cotangent, hessian)

        return Evaluation(one_pass.outputs, gradients, pullback)

    def free_memory(self) -> None:
        """Give back what a step of training keeps for the next one."""
        self._workspace.clear()

    def rows_at_a_time(self, n_activations: int) -> int:
        """Return for how many rows the widest layer of all members has so many numbers."""
        embedding = self._mlp.embedding
        widths = [max(weight.shape[1:]) for weight, _ in self._parts()[1]]
        widths += [] if embedding is None else [embedding.frequency.numel()]
        return max(1, n_activations // (self.n_members * max(widths)))

    @property
    def _mlp(self) -> MLP:
        return cast(MLP, self._template)

    @property
    def _drops(self) -> bool:
        return self.training and self._mlp.dropout > 0

    def _parts(self) -> tuple[list[nn.Parameter], Layers]:
        """Return the embedding's parameters, and weight and bias (M, out, …) of each layer."""
        embedding = self._mlp.embedding
        n_embedding = 0 if embedding is None else len(list(embedding.parameters()))
        parameters = list(self.stacked.parameters())
        of_layers = iter(parameters[n_embedding:])
        return parameters[:n_embedding], list(zip(of_layers, of_layers, strict=True))

    @property
    def _embedded_features(self) -> Tensor:
        return self.stacked.get_buffer("0.features")[0]  # the same for all members


class _Pass:
    """One pass of a batch through the members, and the ways back from it.

    Parameters
    ----------
    ensemble : MLPEnsemble
    X : Tensor of shape (B, n_features)
    n_rows : int
        At how many of the rows input gradients may be taken.

    Attributes
    ----------
    outputs : Tensor of shape (M, B, C)
    """

    def __init__(self, ensemble: MLPEnsemble, X: Tensor, n_rows: int) -> None:
        self._ensemble = ensemble
        self._n_rows = n_rows
        self._is_spent = False
        self._n_features = X.shape[1]
        self._memory = memory = ensemble._workspace.lease(X)
        embedding, self._layers = ensemble._parts()
        differentiate = ACTIVATIONS[ensemble._mlp.activation].differentiate
        h = X.expand(ensemble.n_members, *X.shape)
        self._embedding = None
        if embedding:
            self._features = ensemble._embedded_features
            self._embedding = EmbeddingPass(X[:, self._features], embedding, n_rows, memory)
            h = torch.cat([h, self._embedding.value], dim=-1)
        self._inputs = [h]  # h_{l−1} of each layer
        self._hidden: list[Derivatives] = []
        for weight, bias in self._layers[:-1]:
            a = memory.empty(*h.shape[:2], weight.shape[1])
            torch.baddbmm(bias.unsqueeze(1), h, weight.mT, out=a)
            derivatives = self._dropped(differentiate(a, n_rows, memory))
            self._hidden.append(derivatives)
            self._inputs.append(h := derivatives.value)
        self.outputs = _affine(h, *self._layers[-1])

    def input_gradients(self, target_gradient: Tensor) -> Tensor:
        """Return G (M, n_rows, n_features), given ∂t/∂z (M, n_rows, C)."""
        g = target_gradient
        self._g = [g]  # g_l of each layer
        self._curvatures: list[Tensor | None] = []  # σ''(a_l) ∘ p_{l+1} of each hidden layer
        for (weight, _), (_, slope, curvature) in zip(
            self._layers[:0:-1], self._hidden[::-1], strict=True
        ):
            p = torch.bmm(g, weight, out=self._memory.empty(*g.shape[:2], weight.shape[2]))
            self._curvatures.insert(0, None if curvature is None else curvature.mul_(p))
            g = p.mul_(slope[:, : self._n_rows])
            self._g.insert(0, g)
        at_inputs = g @ self._layers[0][0]
        if self._embedding is None:
            return at_inputs
        at_columns, self._at_components = at_inputs.tensor_split([self._n_features], dim=-1)
        through_components = self._summed(self._at_components * self._embedding.slope)
        # A gather, for torch 2.13 compiles index_add to writes beyond the tensor's end. It takes
        # columns that are embedded once, as `MLP` sees to.
        padded = nn.functional.pad(through_components, (0, 1))
        position = self._features.new_full((self._n_features,), len(self._features))
        position[self._features] = torch.arange(len(self._features), device=position.device)
        return at_columns + padded[..., position]

    def pull_back(
        self,
        outputs_cotangent: Tensor,
        gradients_cotangent: Tensor | None = None,
        hessian: Hessian | None = None,
    ) -> Gradients:
        """Return the gradient of each parameter; may be called once.

        Parameters
        ----------
        outputs_cotangent : Tensor of shape (M, B, C)
        gradients_cotangent : Tensor of shape (M, n_rows, n_features), optional
            Of what `input_gradients` returned.
        hessian : callable, optional
            Maps ḡ_L (M, n_rows, C) to ``(∂²t/∂z²)ᵀ ḡ_L``. None is zero.

        Raises
        ------
        RuntimeError
            If called again: intermediate results are overwritten on the way.
        """
        if self._is_spent:
            raise RuntimeError("Got a second pullback of an evaluation, but expected one.")
        self._is_spent = True
        slope_bar, p_bars = None, []
        if gradients_cotangent is not None:
            p_bar = gradients_cotangent
            if self._embedding is not None:
                of_components = self._repeated(gradients_cotangent[..., self._features])
                slope_bar = of_components * self._at_components
                p_bar = torch.cat([p_bar, of_components * self._embedding.slope], dim=-1)
            for index, (weight, _) in enumerate(self._layers):
                p_bars.append(p_bar)
                g_bar = self._memory.empty(*p_bar.shape[:2], weight.shape[1])
                torch.bmm(p_bar, weight.mT, out=g_bar)
                if index < len(self._hidden):
                    if (curvature := self._curvatures[index]) is not None:
                        curvature.mul_(g_bar)
                    p_bar = g_bar.mul_(self._hidden[index].slope[:, : self._n_rows])
            if hessian is not None:
                outputs_cotangent = outputs_cotangent.clone()
                outputs_cotangent[:, : self._n_rows] += hessian(g_bar)
        a_bar, embedding = outputs_cotangent, self._embedding
        gradients: Gradients = []  # from the last parameter to the first
        for index in reversed(range(len(self._layers))):
            weight, _ = self._layers[index]
            products = [(a_bar, self._inputs[index])]
            if p_bars:
                products.append((self._g[index], p_bars[index]))
            gradients += [a_bar.sum(1), self._weight_gradient(weight, products)]
            if not index and embedding is None:
                break
            if not index:
                a_bar = a_bar @ weight
            else:
                # What entered this layer has done its work: its memory is at hand and in the cache.
                a_bar = torch.bmm(a_bar, weight, out=self._inputs[index])
                a_bar.mul_(self._hidden[index - 1].slope)
                if p_bars and (curvature := self._curvatures[index - 1]) is not None:
                    a_bar[:, : self._n_rows] += curvature
        if embedding is not None:
            gradients += embedding.gradients(a_bar[..., self._n_features :], slope_bar)[::-1]
        return gradients[::-1]

    def _dropped(self, derivatives: Derivatives) -> Derivatives:
        if not self._ensemble._drops:
            return derivatives
        value, slope, curvature = derivatives
        mask = _dropout_mask(self._memory.scratch_like(value), self._ensemble._mlp.dropout)
        value.mul_(mask)
        slope.mul_(mask)
        if curvature is not None:
            curvature.mul_(mask[:, : self._n_rows])
        return derivatives

    def _summed(self, values: Tensor) -> Tensor:
        """(M, n_rows, D · K) → (M, n_rows, D)."""
        by_column: Tensor = values.unflatten(-1, (len(self._features), -1))
        return by_column.sum(-1)

    def _repeated(self, values: Tensor) -> Tensor:
        """(M, n_rows, D) → (M, n_rows, D · K)."""
        return values.repeat_interleave(self._at_components.shape[-1] // values.shape[-1], dim=-1)

    def _weight_gradient(self, weight: Tensor, products: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Sum over products and rows: (M, rows, out), (M, rows, in) → (M, out, in)."""
        n_members, n_out, n_in = weight.shape
        # Not memory that holds an earlier step's gradient, which is to be added to.
        gradient = (
            self._memory.empty_like(weight)
            if weight.grad is not None
            else self._ensemble._workspace.gradient(weight)
        )
        found = gradient
        # A matrix product is up to three times as fast with its short side first.
        is_transposed = n_in < n_out
        if is_transposed:
            products = [(layer_input, output_grad) for output_grad, layer_input in products]
            found = self._memory.empty(n_members, n_in, n_out)
        (left, right), *more = products
        torch.bmm(left.mT, right, out=found)
        for left, right in more:
            found.baddbmm_(left.mT, right)
        return gradient.copy_(found.mT) if is_transposed else found


def _affine(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.baddbmm(bias.unsqueeze(1), h, weight.mT)


def _dropout_mask(memory: Tensor, p: float) -> Tensor:
    """Fill memory with zeros at a rate of p, and elsewhere with what makes the mean one."""
    if torch.compiler.is_compiling():  # which fuses the draws with what they are for
        return (torch.rand_like(memory) >= p) / (1 - p)
    # Four draws from each word of random bits: seven times as fast as one at a time. So the rate is
    # a multiple of 1 / 65536.
    n_zeros = min(round(p * 65536), 65535)
    words = torch.empty(-(-memory.numel() // 4), dtype=torch.int64, device=memory.device)
    draws = words.random_(-(2**63), None).view(torch.int16)[: memory.numel()].view_as(memory)
    return torch.ge(draws, n_zeros - 32768, out=memory).mul_(65536 / (65536 - n_zeros))
