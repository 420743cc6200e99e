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

A sum over rows of ``sin α ∘ (W ē)`` is one over components of ``W ∘ (sin α ēᵀ)``, so that all of
them are products of the waves with ē, x ē, ē' and x ē', and nothing as large as the waves is made
on the way back. Rows are the last axis of every product there, so that each column's product has
its short side first: that is up to three times as fast.

A layer that is mixed has its products take and give bfloat16: they add in single precision and
round what they return. Sums of products, activations and the rest are in single precision.

A pass takes over the memory of the passes before it where nothing else reads it (a curvature
becomes a product with it, the input of a layer the cotangent of that input), because memory that
is still in the cache is worth 6 % of a step. So each pass of a batch is made once, in this order.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps

import numpy as np
import torch
from torch import Tensor, nn

from sklearn_fordes.particles import Gradients, Hessian

# Torch computes this many numbers at a time as vectors, and what remains one by one.
_AT_A_TIME = 32
# Torch gives each thread at least this many numbers.
_FEWEST_OF_A_THREAD = 32768

# Value and slope at every row, curvature at the first rows; None is zero.
Derivatives = tuple[Tensor, Tensor, Tensor | None]
_Activation = Callable[..., Derivatives]


@dataclass
class Layer:
    """The stacked parameters of layer l, what its input goes through, and the derivatives there."""

    weight: Tensor  # (M, out, in)
    bias: Tensor  # (M, out)
    activation: type[nn.Module]
    mask: Callable[[Tensor], Tensor] | None  # Makes the dropout of an activation.
    slope: Tensor | None = None  # σ'(a_{l−1}); None for the first layer.
    curvature: Tensor | None = None  # σ''(a_{l−1}), and then its products; None is zero.
    is_mixed: bool = False

    def __post_init__(self) -> None:
        self.factor = self.operand(self.weight)  # As the products take it.

    def operand(self, values: Tensor) -> Tensor:
        """Return values in the type in which this layer's products take them."""
        if not self.is_mixed:
            return values
        if values.dtype != self.weight.dtype:  # As products that are not mixed.
            raise RuntimeError(f"Got {values.dtype}, but expected {self.weight.dtype}.")
        return values.to(torch.bfloat16)

    def affine(self, h: Tensor) -> Tensor:
        """Return h Wᵀ + b for each member, given `operand` of h."""
        if self.is_mixed:
            return self.to_outputs(h).add_(self.bias.unsqueeze(1))
        return torch.baddbmm(self.bias.unsqueeze(1), h, self.weight.mT)

    def to_outputs(self, values: Tensor) -> Tensor:
        """Return values Wᵀ, given `operand` of them."""
        return torch.bmm(values, self.factor.mT).to(self.weight.dtype)

    def to_inputs(self, values: Tensor, out: Tensor | None = None) -> Tensor:
        """Return values W, given `operand` of them, in the memory `out` if it is of their type."""
        if self.is_mixed:
            return torch.bmm(values, self.factor).to(self.weight.dtype)
        return torch.bmm(values, self.weight, out=out)

    def to_last_inputs(self, values: Tensor, n: int) -> Tensor:
        """Return (values W)ᵀ of the last n inputs, given `operand` of the values."""
        return torch.bmm(self.factor[..., -n:].mT, values.mT).to(self.weight.dtype)

    def weight_gradient(self, *pairs: tuple[Tensor, Tensor]) -> Tensor:
        """Return W̄, given `operand` of ā_l and h_{l−1}, and of g_l and p̄_l if there are any."""
        first, *more = (_sum_over_rows(*pair).to(self.weight.dtype) for pair in pairs)
        for other in more:
            first += other
        return first

    def through_activation(self, values: Tensor) -> Tensor:
        """Multiply values at the first rows with the slope, and the curvature with them."""
        if self.curvature is not None:
            self.curvature.mul_(values)
        return values if self.slope is None else values.mul_(self.slope[:, : values.shape[1]])


@dataclass
class Embedding:
    """The stacked parameters of M `PeriodicEmbedding`, the columns they embed, and their passes."""

    features: Tensor  # (D,)
    frequency: Tensor  # (M, D, F)
    phase: Tensor  # (M, D, F)
    weight: Tensor  # (M, D, F, K)
    bias: Tensor  # (M, D, K)
    slope_bar: Tensor | None = None  # ē', if it is not zero

    def _angles(self, X: Tensor) -> Tensor:
        """Return α (M, D, F, B) at rows (..., B, n_features), and keep x (..., D, 1, B)."""
        self.numbers = X[..., self.features].mT.unsqueeze(-2).contiguous()
        angle = self.frequency.unsqueeze(-1) * self.numbers
        angle += self.phase.unsqueeze(-1)
        return angle

    def components(self, X: Tensor) -> Tensor:
        """Return e (M, B, D · K) at rows (..., B, n_features), which autograd can follow."""
        angle = self._angles(X)
        # In prediction the angle is not needed again, and its memory serves the cosine.
        cos = angle.cos() if torch.is_grad_enabled() else _waves(angle, np.cos, out=angle)
        return self._values(cos).mT

    def forward(self, X: Tensor, n_rows: int) -> Tensor:
        """Return e (M, D · K, B) at rows (..., B, n_features), for slopes at the first n rows."""
        angle = self._angles(X)
        n_waves = angle.shape[2]
        self.waves = angle.new_empty(*angle.shape[:2], 2 * n_waves, X.shape[-2])
        cos, sin = self.waves[:, :, :n_waves], self.waves[:, :, n_waves:]
        _waves(angle, np.cos, out=cos)
        _waves(angle, np.sin, out=sin)
        weight = (self.weight * self.frequency.unsqueeze(-1)).mT
        self.slope = (weight @ sin[..., :n_rows]).neg_().flatten(1, 2).mT  # e' (M, n, D · K)
        return self._values(cos)

    def _values(self, cos: Tensor) -> Tensor:
        """Return e (M, D · K, B), given cos α."""
        values = torch.bmm(self.weight.mT.flatten(0, 1), cos.flatten(0, 1))
        # Added within the product, MKL would round it in another way for 16 rows than for more.
        values += self.bias.flatten(0, 1).unsqueeze(-1)
        return values.view(len(cos), -1, cos.shape[-1])

    def input_gradients(self, p: Tensor) -> Tensor:
        """Return G, given p_1."""
        G, self.at_components = p.tensor_split([-self.slope.shape[-1]], dim=-1)
        through_components = (self.at_components * self.slope).unflatten(-1, self.bias.shape[1:])
        # Each column is embedded once, so that no index occurs twice.
        G[..., self.features] += through_components.sum(-1)
        return G

    def reverse(self, V: Tensor) -> Tensor:
        """Return p̄_1."""
        at_columns = V[..., self.features].repeat_interleave(self.bias.shape[-1], dim=-1)
        # A copy for a single member too, so that its sums are in the order of any other's.
        self.slope_bar = (at_columns * self.at_components).mT.contiguous()
        return torch.cat([V, at_columns * self.slope], dim=-1)

    def gradients(self, value_bar: Tensor) -> list[Tensor]:
        """Return the gradients of bias, weight, phase and frequency, given ē (M, D · K, B)."""
        weight = self.weight.mT.unsqueeze(2)  # (M, D, 1, K, F)
        cos_e, sin_e = self._moments(value_bar)
        weight_bar = cos_e[:, :, 0]
        angle_bar = (weight * sin_e).sum(-2).neg_()  # Σ_b ᾱ and Σ_b x ᾱ
        if self.slope_bar is not None:
            cos_e, sin_e = self._moments(self.slope_bar)
            weight_bar = weight_bar - self.frequency.unsqueeze(-2) * sin_e[:, :, 0]
            angle_bar -= self.frequency.unsqueeze(-2) * (weight * cos_e).sum(-2)
            angle_bar[:, :, 1] -= (weight[:, :, 0] * sin_e[:, :, 0]).sum(-2)
        phase_bar, frequency_bar = angle_bar.unbind(2)
        bias_bar = value_bar.view(*self.bias.shape, -1).sum(-1)
        return [bias_bar, weight_bar.mT, phase_bar, frequency_bar]

    def _moments(self, bar: Tensor) -> tuple[Tensor, Tensor]:
        """Return Σ_b of ē and x ē with cos α and with sin α: twice (M, D, 2, K, F).

        The gradients need no more of the waves, which are read once.
        """
        n_rows, (n_components, n_waves) = bar.shape[-1], self.weight.mT.shape[2:]
        e_bar = bar.view(*self.bias.shape, n_rows)
        both = torch.cat([e_bar, e_bar * self.numbers[..., :n_rows]], dim=2)
        moments = torch.bmm(both.flatten(0, 1), self.waves[..., :n_rows].flatten(0, 1).mT)
        moments = moments.view(*self.bias.shape[:2], 2, n_components, 2 * n_waves)
        return moments[..., :n_waves], moments[..., n_waves:]


def _waves(angle: Tensor, function: np.ufunc, out: Tensor) -> Tensor:
    """Write the cosines or sines of angles to `out`, and return it.

    In single precision numpy's take a fifth to a half of the time of torch's on a CPU.
    """
    if type(angle) is Tensor and angle.is_cpu and angle.dtype == torch.float32:
        with np.errstate(invalid="ignore"):  # As torch: the loss of a net that diverges tells.
            function(angle.numpy(), out=out.numpy())
        return out
    return out.copy_(getattr(torch, function.__name__)(angle))


class Passes:
    """The passes over a batch: forward when built, then the methods in their order, each once.

    Parameters
    ----------
    layers : list of Layer
        New ones: they belong to this batch.
    embedding : Embedding or None
    X : Tensor of shape (B, n_features) or (M, B, n_features)
        The same rows for all members, or rows of each member's own.
    n_rows : int
        Input gradients are taken at the first n rows.

    Attributes
    ----------
    outputs : Tensor of shape (M, B, C)
    """

    @torch.no_grad()
    def __init__(
        self, layers: list[Layer], embedding: Embedding | None, X: Tensor, n_rows: int
    ) -> None:
        self.layers = layers
        self.n_rows = n_rows
        self.embedding = embedding
        h = X.expand(len(layers[0].bias), *X.shape[-2:])
        if embedding is not None:
            # Rows are the last axis in memory, as of the embedding's products.
            h = torch.cat([h.mT, embedding.forward(X, n_rows)], dim=1).mT
        # h_{l−1} of each layer, as its products take it; `backward` takes them out.
        self.inputs = [layers[0].operand(h)]
        self.layer_gradients: list[Tensor] = []  # g_l, from the last layer to the first
        self.outputs = layers[0].affine(self.inputs[0])
        for layer in layers[1:]:
            mask = None if layer.mask is None else layer.mask(self.outputs)
            h, slope, curvature = DERIVATIVES[layer.activation](self.outputs, n_rows, mask)
            layer.slope, layer.curvature = slope, curvature
            self.inputs.append(layer.operand(h))
            self.outputs = layer.affine(self.inputs[-1])

    @torch.no_grad()
    def input_gradients(self, g: Tensor) -> Tensor:
        """Return G (M, n, n_features), given g_L = ∂t/∂z (M, n, C)."""
        for layer in reversed(self.layers):
            self.layer_gradients.append(layer.operand(g))
            g = layer.through_activation(layer.to_inputs(self.layer_gradients[-1]))
        return g if self.embedding is None else self.embedding.input_gradients(g)

    @torch.no_grad()
    def backward(
        self,
        hessian: Hessian | None,
        outputs_cotangent: Tensor,
        gradients_cotangent: Tensor | None = None,
    ) -> Gradients:
        """Return the gradient of each parameter, in the order of the module's parameters.

        Parameters
        ----------
        hessian : callable or None
            Maps ḡ_L (M, n, C) to ``(∂²t/∂z²)ᵀ ḡ_L``. None is zero.
        outputs_cotangent : Tensor of shape (M, B, C)
        gradients_cotangent : Tensor of shape (M, n, n_features), optional
            Of the input gradients, if they have been taken.

        Returns
        -------
        list of Tensor

        Raises
        ------
        RuntimeError
            If called again.
        """
        if not self.inputs:
            raise RuntimeError("Got a second pullback of an evaluation, but expected one.")
        a_bar = outputs_cotangent
        p_bars: list[Tensor] = []  # p̄_l of each layer, if the input gradients have a cotangent
        if gradients_cotangent is not None:
            bar = gradients_cotangent
            if self.embedding is not None:
                bar = self.embedding.reverse(bar)
            for layer in self.layers:
                p_bars.append(layer.operand(layer.through_activation(bar)))
                bar = layer.to_outputs(p_bars[-1])  # ḡ_l
            if hessian is not None:
                a_bar = a_bar.clone()
                a_bar[:, : self.n_rows] += hessian(bar)
        gradients: Gradients = []  # from the last parameter to the first
        for layer in reversed(self.layers):
            h = self.inputs.pop()
            operand = layer.operand(a_bar)
            pairs = [(operand, h)]
            if p_bars:
                pairs.append((self.layer_gradients.pop(0), p_bars.pop()))
            gradients += [a_bar.sum(1), layer.weight_gradient(*pairs)]
            if layer.slope is not None:
                a_bar = layer.to_inputs(operand, out=h).mul_(layer.slope)
            if layer.curvature is not None and p_bars:
                a_bar[:, : self.n_rows] += layer.curvature
        if self.embedding is not None:
            # Nothing needs the cotangent of the raw columns.
            n_components = self.embedding.slope.shape[-1]
            value_bar = self.layers[0].to_last_inputs(operand, n_components)
            gradients += self.embedding.gradients(value_bar)
        return gradients[::-1]


def _sum_over_rows(left: Tensor, right: Tensor) -> Tensor:
    """Sum over rows: (M, rows, out), (M, rows, in) → (M, out, in)."""
    # A matrix product is up to three times as fast with its short side first.
    if right.shape[-1] < left.shape[-1]:
        return torch.bmm(right.mT, left).mT.contiguous()
    return torch.bmm(left.mT, right)


def _silu(a: Tensor, n_rows: int, mask: Tensor | None = None) -> Derivatives:
    s = _sigmoid(a)
    value = a.mul_(s)
    if mask is not None:
        value.mul_(mask)
    # lerp(x, y, t) = x + t (y − x), in one pass over memory: (s + a s (1 − s)) times the mask.
    slope = torch.lerp(value, s.new_ones(1) if mask is None else mask, s)
    if not n_rows:
        return value, slope, None
    # The curvature is (1 − s) (2 slope − value).
    curvature = torch.lerp(value[:, :n_rows], slope[:, :n_rows], 2.0)
    return value, slope, curvature.addcmul_(curvature, s[:, :n_rows], value=-1)


def _sigmoid(a: Tensor) -> Tensor:
    """Return the sigmoid of each member's numbers, bit by bit the same for any number of members.

    On a CPU, torch rounds the last numbers of a thread's share in another way than the others.
    """
    n_pieces = max(1, min(torch.get_num_threads(), -(-a.numel() // _FEWEST_OF_A_THREAD)))
    share = -(-a.numel() // n_pieces)
    if a.is_cpu and (share % _AT_A_TIME or a[0].numel() % _AT_A_TIME):
        s = torch.empty_like(a)
        for of_member, out in zip(a, s, strict=True):
            torch.sigmoid(of_member, out=out)
        return s
    return torch.sigmoid(a)


def _masked(derivatives: Callable[[Tensor, int], Derivatives]) -> _Activation:
    """Multiply derivatives with a mask, if there is one."""

    @wraps(derivatives)
    def masked(a: Tensor, n_rows: int, mask: Tensor | None = None) -> Derivatives:
        value, slope, curvature = derivatives(a, n_rows)
        if mask is not None:
            value.mul_(mask)
            slope.mul_(mask)
            if curvature is not None:
                curvature.mul_(mask[:, :n_rows])
        return value, slope, curvature

    return masked


@_masked
def _gelu(a: Tensor, n_rows: int) -> Derivatives:
    cdf = torch.special.ndtr(a)
    pdf = torch.square(a).mul_(-0.5).exp_().div_(math.sqrt(2 * math.pi))
    curvature = None
    if n_rows:
        curvature = torch.square(a[:, :n_rows]).neg_().add_(2).mul_(pdf[:, :n_rows])
    slope = torch.addcmul(cdf, a, pdf)
    return a.mul_(cdf), slope, curvature


@_masked
def _tanh(a: Tensor, n_rows: int) -> Derivatives:
    value = a.tanh_()
    slope = torch.square(value).neg_().add_(1)
    curvature = torch.mul(value[:, :n_rows], slope[:, :n_rows]).mul_(-2) if n_rows else None
    return value, slope, curvature


@_masked
def _relu(a: Tensor, n_rows: int) -> Derivatives:  # noqa: ARG001 (its curvature is zero)
    slope = (a > 0).to(a.dtype)
    return a.relu_(), slope, None


# Each takes preactivations (M, B, H), which it overwrites because nothing else needs them, the
# number of rows that need a curvature, and the members' masks of dropout (M, B, H).
DERIVATIVES = {
    nn.GELU: _gelu,
    nn.ReLU: _relu,
    nn.SiLU: _silu,
    nn.Tanh: _tanh,
}
