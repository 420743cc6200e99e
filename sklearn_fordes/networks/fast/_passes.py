"""The passes of a training step through stacked MLPs.

With layers l = 1…L, preactivations ``a_l = h_{l−1} W_lᵀ + b_l`` and activations ``h_l = σ(a_l)``,
the passes over a batch are::

    forward           h_l,   z = a_L
    input gradient    g_L = ∂t/∂z,   p_l = g_l W_l,   g_{l−1} = σ'(a_{l−1}) ∘ p_l,   G = p_1
    its reverse       p̄_1 = V,   ḡ_l = p̄_l W_lᵀ,   p̄_{l+1} = σ'(a_l) ∘ ḡ_l
    backward          ā_L = ∂loss/∂z + (∂²t/∂z²)ᵀ ḡ_L,
                      W̄_l = ā_lᵀ h_{l−1} + g_lᵀ p̄_l,   b̄_l = Σ_b ā_l,
                      ā_{l−1} = σ'(a_{l−1}) ∘ (ā_l W_l) + σ''(a_{l−1}) ∘ p_l ∘ ḡ_{l−1}

with V the cotangent of G. Forward and backward are those of a deep ensemble; the two in between
run on the compared rows alone, and cost as much for these. Dropout multiplies σ, σ' and σ'' by
its mask. Where columns x are embedded, h_0 = (x, e(x)) and p_1 = (p_x, p_e), so that::

    G = p_x + e'(x) p_e,   p̄_1 = (V, e'(x) V),   ē' = p_e V,   ē = ā_1 W_e

The angles of an embedding are ``α = ω x + φ``, its values ``e = Wᵀ cos α + c`` and its slopes
``e' = −Wᵀ (ω ∘ sin α)``. Their cotangents ē and ē' go back as::

    W̄ = cos α ēᵀ − (ω ∘ sin α) ē'ᵀ,   c̄ = Σ_b ē
    ᾱ = −sin α ∘ (W ē) − ω ∘ cos α ∘ (W ē'),   φ̄ = Σ_b ᾱ
    ω̄ = Σ_b (x ᾱ − sin α ∘ (W ē'))

Rows are the last axis of every product there, so that each column's product has its short side
first: that is up to three times as fast.

Each pass is a function of the results of the passes before it. It takes their memory over where
nothing else reads it (a curvature becomes a product with it, the input of a layer the cotangent of
that input), because memory that is still in the cache is worth 6 % of a step. So each pass of a
batch is called once, in this order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sklearn_fordes.networks._mlp import dropout_mask
from sklearn_fordes.particles import Gradients, Hessian

# Torch computes this many numbers at a time as vectors, and what remains one by one.
_AT_A_TIME = 32
# Torch gives each thread at least this many numbers.
_FEWEST_OF_A_THREAD = 32768


class Derivatives(NamedTuple):
    """Value and slope at every row, curvature at the first rows; None is zero."""

    value: Tensor
    slope: Tensor
    curvature: Tensor | None


class Embedding(NamedTuple):
    """The stacked parameters of M `PeriodicEmbedding`, and the columns they embed."""

    frequency: Tensor  # (M, D, F)
    phase: Tensor  # (M, D, F)
    weight: Tensor  # (M, D, F, K)
    bias: Tensor  # (M, D, K)
    features: Tensor  # (D,)


class EmbeddingForward(NamedTuple):
    """What the way back needs of a pass through embeddings, at B rows, n of them with slopes."""

    parameters: Embedding
    value: Tensor  # e (M, B, D · K)
    slope: Tensor  # e' (M, n, D · K)
    numbers: Tensor  # x (D, 1, B)
    cos: Tensor  # (M, D, F, B)
    sin: Tensor  # (M, D, F, B)
    sloped: Tensor  # −ω sin α (M, D, F, n)


class Layers(NamedTuple):
    """The stacked parameters of M members, and what is done between them."""

    affine: list[tuple[Tensor, Tensor]]  # weight (M, out, in) and bias (M, out) of each layer
    activation: str
    embedding: Embedding | None
    dropout: list[tuple[Tensor, float]]  # draws (M, 2) and rate of each hidden layer, if any drop


class Forward(NamedTuple):
    """What the passes back need of a pass forward."""

    outputs: Tensor  # z (M, B, C)
    inputs: list[Tensor]  # h_{l−1} of each layer; `backward` takes them out
    hidden: list[Derivatives]  # of each hidden layer
    embedding: EmbeddingForward | None


class Tangent(NamedTuple):
    """Input gradients at the first n rows, and what their reverse needs."""

    gradients: Tensor  # G (M, n, n_features)
    layer_gradients: list[Tensor]  # g_l of each layer
    curvatures: list[Tensor | None]  # σ''(a_l) ∘ p_{l+1} of each hidden layer; None is zero
    at_components: Tensor | None  # p_e


class _TangentReverse(NamedTuple):
    p_bars: list[Tensor]  # p̄_l of each layer
    curved: list[Tensor | None]  # σ''(a_l) ∘ p_{l+1} ∘ ḡ_l of each hidden layer; None is zero
    last_g_bar: Tensor  # ḡ_L
    slope_bar: Tensor | None  # ē'


@torch.no_grad()
def forward(layers: Layers, X: Tensor, n_rows: int) -> Forward:
    """Evaluate the members at rows (B, n_features), for input gradients at the first `n_rows`."""
    *hidden_layers, last = layers.affine
    embedded = None
    h = X.expand(len(last[0]), *X.shape)
    if layers.embedding is not None:
        embedded = embed(layers.embedding, X, n_rows)
        h = torch.cat([h, embedded.value], dim=-1)
    inputs, hidden = [h], []
    for index, (weight, bias) in enumerate(hidden_layers):
        derivatives = _DERIVATIVES[layers.activation](_affine(h, weight, bias), n_rows)
        if layers.dropout:
            _drop(derivatives, mask(layers, index, derivatives.value))
        hidden.append(derivatives)
        inputs.append(h := derivatives.value)
    return Forward(_affine(h, *last), inputs, hidden, embedded)


@torch.no_grad()
def input_gradients(layers: Layers, forward: Forward, target_gradient: Tensor) -> Tangent:
    """Return the members' input gradients, given ∂t/∂z (M, n, C) at the first n rows."""
    g = target_gradient
    n_rows = g.shape[1]
    layer_gradients, curvatures = [g], []
    for (weight, _), (_, slope, curvature) in zip(
        layers.affine[:0:-1], forward.hidden[::-1], strict=True
    ):
        p = torch.bmm(g, weight)
        curvatures.append(None if curvature is None else curvature.mul_(p))
        layer_gradients.append(g := p.mul_(slope[:, :n_rows]))
    at_inputs = torch.bmm(g, layers.affine[0][0])
    at_components = None
    if (embedded := forward.embedding) is not None:
        at_inputs, at_components = _split(at_inputs, embedded.parameters)
        features = embedded.parameters.features
        through_components = at_components * embedded.slope
        # Each column is embedded once, so that no index occurs twice.
        at_inputs[..., features] += through_components.unflatten(-1, (len(features), -1)).sum(-1)
    return Tangent(at_inputs, layer_gradients[::-1], curvatures[::-1], at_components)


@torch.no_grad()
def backward(
    layers: Layers,
    forward: Forward,
    outputs_cotangent: Tensor,
    tangent: Tangent | None = None,
    gradients_cotangent: Tensor | None = None,
    hessian: Hessian | None = None,
) -> Gradients:
    """Return the gradient of each parameter.

    Parameters
    ----------
    layers : Layers
    forward : Forward
    outputs_cotangent : Tensor of shape (M, B, C)
    tangent : Tangent, optional
        Given with `gradients_cotangent`.
    gradients_cotangent : Tensor of shape (M, n, n_features), optional
        Of the input gradients.
    hessian : callable, optional
        Maps ḡ_L (M, n, C) to ``(∂²t/∂z²)ᵀ ḡ_L``. None is zero.

    Returns
    -------
    list of Tensor
        In the order of the module's parameters: the embedding's, then weight and bias of each
        layer.

    Raises
    ------
    RuntimeError
        If called again.
    """
    if not forward.inputs:
        raise RuntimeError("Got a second pullback of an evaluation, but expected one.")
    reverse = None
    a_bar = outputs_cotangent
    if tangent is not None and gradients_cotangent is not None:
        reverse = _reverse_tangent(layers, forward, tangent, gradients_cotangent)
        if hessian is not None:
            a_bar = _add_to_first_rows(a_bar.clone(), hessian(reverse.last_g_bar))
    gradients: Gradients = []  # from the last parameter to the first
    for index in reversed(range(len(layers.affine))):
        h = forward.inputs.pop()
        products = [(a_bar, h)]
        if tangent is not None and reverse is not None:
            products.append((tangent.layer_gradients[index], reverse.p_bars[index]))
        gradients += [a_bar.sum(1), _weight_gradient(products)]
        if not index:
            break
        a_bar = torch.bmm(a_bar, layers.affine[index][0], out=h)
        a_bar.mul_(forward.hidden[index - 1].slope)
        if reverse is not None and (curved := reverse.curved[index - 1]) is not None:
            _add_to_first_rows(a_bar, curved)
    if (embedded := forward.embedding) is not None:
        # Nothing needs the cotangent of the raw columns.
        _, of_components = _split(layers.affine[0][0], embedded.parameters)
        slope_bar = None if reverse is None else reverse.slope_bar
        of_embedding = _embedding_gradients(embedded, torch.bmm(a_bar, of_components), slope_bar)
        gradients += reversed(of_embedding)
    return gradients[::-1]


def _reverse_tangent(
    layers: Layers, forward: Forward, tangent: Tangent, gradients_cotangent: Tensor
) -> _TangentReverse:
    """Pull a cotangent V of the input gradients back through the pass that computed them."""
    p_bar, slope_bar = gradients_cotangent, None
    n_rows = p_bar.shape[1]
    if (embedded := forward.embedding) is not None and tangent.at_components is not None:
        at_columns = p_bar[..., embedded.parameters.features]
        n_components = embedded.parameters.bias.shape[-1]
        at_components = at_columns.repeat_interleave(n_components, dim=-1)
        slope_bar = at_components * tangent.at_components
        p_bar = torch.cat([p_bar, at_components * embedded.slope], dim=-1)
    p_bars: list[Tensor] = [p_bar]
    g_bar = torch.bmm(p_bar, layers.affine[0][0].mT)
    for (weight, _), (_, slope, _), curvature in zip(
        layers.affine[1:], forward.hidden, tangent.curvatures, strict=True
    ):
        if curvature is not None:
            curvature.mul_(g_bar)
        p_bars.append(g_bar.mul_(slope[:, :n_rows]))
        g_bar = torch.bmm(p_bars[-1], weight.mT)
    return _TangentReverse(p_bars, tangent.curvatures, g_bar, slope_bar)


def _weight_gradient(products: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Sum over products and rows: (M, rows, out), (M, rows, in) → (M, out, in)."""
    (left, right), *more = products
    # A matrix product is up to three times as fast with its short side first.
    if right.shape[-1] < left.shape[-1]:
        transposed = _weight_gradient([(right, left) for left, right in products])
        return transposed.mT.contiguous()
    gradient = torch.bmm(left.mT, right)
    for left, right in more:
        gradient.baddbmm_(left.mT, right)
    return gradient


def _split(values: Tensor, embedding: Embedding) -> tuple[Tensor, Tensor]:
    """Split the inputs of the first layer, on the last axis, into columns and components."""
    n_columns = values.shape[-1] - embedding.bias[0].numel()
    return values[..., :n_columns], values[..., n_columns:]


def _affine(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return h Wᵀ + b for each member."""
    return torch.baddbmm(bias.unsqueeze(1), h, weight.mT)


def _add_to_first_rows(values: Tensor, addition: Tensor) -> Tensor:
    values[:, : addition.shape[1]] += addition
    return values


def mask(layers: Layers, index: int, h: Tensor) -> Tensor:
    """Return the dropout of a hidden layer (M, B, H)."""
    draws, rate = layers.dropout[index]
    return dropout_mask(draws, h.shape[1:], rate, h.dtype)


def _drop(derivatives: Derivatives, mask: Tensor) -> None:
    value, slope, curvature = derivatives
    value.mul_(mask)
    slope.mul_(mask)
    if curvature is not None:
        curvature.mul_(mask[:, : curvature.shape[1]])


def embed(embedding: Embedding, X: Tensor, n_rows: int) -> EmbeddingForward:
    """Embed rows (B, n_features), with slopes at the first `n_rows`."""
    numbers = X[:, embedding.features].T.unsqueeze(1).contiguous()
    frequency = embedding.frequency.unsqueeze(-1)
    angle = torch.addcmul(embedding.phase.unsqueeze(-1), frequency, numbers)
    sin, cos = torch.sin(angle), angle.cos_()
    sloped = -frequency * sin[..., :n_rows]
    weight = embedding.weight.flatten(0, 1)  # (M · D, F, K)
    bias = embedding.bias.flatten(0, 1).unsqueeze(-1)
    value = torch.baddbmm(bias, weight.mT, cos.flatten(0, 1))
    slope = torch.bmm(weight.mT, sloped.flatten(0, 1))
    by_column = cos.shape[:2]
    return EmbeddingForward(
        embedding,
        _rows_first(value, by_column),
        _rows_first(slope, by_column),
        numbers,
        cos,
        sin,
        sloped,
    )


def _embedding_gradients(
    forward: EmbeddingForward, value_cotangent: Tensor, slope_cotangent: Tensor | None
) -> list[Tensor]:
    """Return the gradients of frequency, phase, weight and bias."""
    weight = forward.parameters.weight.flatten(0, 1)
    e_bar = _rows_last(value_cotangent, weight)
    weight_bar = torch.bmm(e_bar, forward.cos.flatten(0, 1).mT)
    angle_bar = torch.bmm(weight, e_bar).view_as(forward.sin).mul_(forward.sin)  # −ᾱ
    through_slopes = None
    if slope_cotangent is not None:
        first = slice(slope_cotangent.shape[1])
        slope_bar = _rows_last(slope_cotangent, weight)
        weight_bar.baddbmm_(slope_bar, forward.sloped.flatten(0, 1).mT)
        at_slopes = torch.bmm(weight, slope_bar).view_as(forward.sloped)
        frequency = forward.parameters.frequency.unsqueeze(-1)
        angle_bar[..., first] += frequency * forward.cos[..., first] * at_slopes
        through_slopes = at_slopes.mul_(forward.sin[..., first]).sum(-1)
    phase_bar = angle_bar.sum(-1).neg_()
    frequency_bar = angle_bar.mul_(forward.numbers).sum(-1).neg_()
    if through_slopes is not None:
        frequency_bar -= through_slopes
    by_column = forward.cos.shape[:2]
    return [
        frequency_bar,
        phase_bar,
        weight_bar.mT.unflatten(0, by_column),
        e_bar.sum(-1).unflatten(0, by_column),
    ]


def _rows_first(values: Tensor, by_column: torch.Size) -> Tensor:
    """(M · D, K, rows) → (M, rows, D · K)."""
    return values.view(*by_column, *values.shape[1:]).flatten(1, 2).mT


def _rows_last(values: Tensor, weight: Tensor) -> Tensor:
    """(M, rows, D · K) → (M · D, K, rows), for a weight (M · D, F, K)."""
    return values.mT.reshape(len(weight), weight.shape[-1], -1)


def _silu(a: Tensor, n_rows: int) -> Derivatives:
    s = _sigmoid(a)
    value = a.mul_(s)
    # lerp(x, y, t) = x + t (y − x), in one pass over memory: s + a s (1 − s).
    slope = torch.lerp(value, s.new_ones(1), s)
    if not n_rows:
        return Derivatives(value, slope, None)
    # The curvature is (1 − s) (2 slope − value).
    curvature = torch.lerp(value[:, :n_rows], slope[:, :n_rows], 2.0)
    return Derivatives(value, slope, curvature.addcmul_(curvature, s[:, :n_rows], value=-1))


def _sigmoid(a: Tensor) -> Tensor:
    """Return the sigmoid of each member's numbers, bit by bit the same for any number of members.

    On a CPU, torch rounds the last numbers of a thread's share in another way than the others.
    """
    n_pieces = max(1, min(torch.get_num_threads(), -(-a.numel() // _FEWEST_OF_A_THREAD)))
    share = -(-a.numel() // n_pieces)
    if a.device.type != "cpu" or not (share % _AT_A_TIME or a[0].numel() % _AT_A_TIME):
        return torch.sigmoid(a)
    s = torch.empty_like(a)
    for of_member, out in zip(a, s, strict=True):
        torch.sigmoid(of_member, out=out)
    return s


def _gelu(a: Tensor, n_rows: int) -> Derivatives:
    cdf = torch.special.ndtr(a)
    pdf = torch.square(a).mul_(-0.5).exp_().div_(math.sqrt(2 * math.pi))
    curvature = None
    if n_rows:
        curvature = torch.square(a[:, :n_rows]).neg_().add_(2).mul_(pdf[:, :n_rows])
    slope = torch.addcmul(cdf, a, pdf)
    return Derivatives(a.mul_(cdf), slope, curvature)


def _tanh(a: Tensor, n_rows: int) -> Derivatives:
    value = a.tanh_()
    slope = torch.square(value).neg_().add_(1)
    curvature = torch.mul(value[:, :n_rows], slope[:, :n_rows]).mul_(-2) if n_rows else None
    return Derivatives(value, slope, curvature)


def _relu(a: Tensor, n_rows: int) -> Derivatives:  # noqa: ARG001 (its curvature is zero)
    slope = (a > 0).to(a.dtype)
    return Derivatives(a.relu_(), slope, None)


# Each takes preactivations (M, B, H), which it overwrites because nothing else needs them, and the
# number of rows that need a curvature.
_DERIVATIVES: dict[str, Callable[[Tensor, int], Derivatives]] = {
    "gelu": _gelu,
    "relu": _relu,
    "silu": _silu,
    "tanh": _tanh,
}
