"""The default member for tables, and its parts: plain modules, forward only.

The estimators embed numbers only where there are at most `estimators._parameters.MOST_EMBEDDED` of
them: an embedding widens the first layer by a factor of four, and takes most of the time there.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from numbers import Real

import numpy as np
import torch
from torch import Tensor, nn

# SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014).
# Torch has signed integers only, which multiply and add as unsigned ones do: these constants are
# the published ones less 2**64.
_STEP = -0x61C8864680B583EB
_ROUNDS = [(30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15), (31, 1)]
# Another odd number, so that the words of one call are not those of the next one, moved by one.
_CALL = -0x2ECBDABC217D106B
# A third one, for the sequences of several processes.
_SEQUENCE = 0x369DEA0F31A53F85
# Members begin so many words after each other in one sequence.
_WORDS_APART = 257
# Each word of 64 random bits gives four draws of 16 bits: a rate is a multiple of 1 / 65536.
_DRAWS_A_WORD = 4
_N_DRAWS = 1 << 16

ACTIVATIONS = {
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class MLP(nn.Sequential):
    """A multi-layer perceptron in single precision.

    Parameters
    ----------
    n_features : int
    n_outputs : int
    hidden_layer_sizes : sequence of int, default=(64, 64)
        Widths of the hidden layers; an empty one makes a linear model.
    activation : {"gelu", "relu", "silu", "tanh"}, default="silu"
        A smooth one has input gradients that are continuous in the input.
    dropout : float, default=0.0
        Probability of zeroing a hidden unit in training, in [0, 1).
    embedded_features : sequence of int, default=()
        Columns, each at most once, that a `PeriodicEmbedding` embeds before the first layer.
    n_frequencies : int, default=16
        Of the embedding.
    n_components : int, default=3
        Of the embedding.
    frequency_scale : float, default=0.3
        Of the embedding.
    mixed_precision : bool or "auto", default="auto"
        Whether stacked networks train with products of hidden layers that take and give bfloat16,
        eight bits of each number, where a layer has at least 8,192 weights of single precision.
        Weights, moments, embedding, activations, outputs and losses stay in single precision, and
        so does prediction. "auto" does so if the CPU has instructions for it (AVX512-BF16, AMX),
        and not on other devices. It changes nothing in subclasses, nor where a part was replaced.
    generator : torch.Generator, optional
        Draws the initial weights and the keys of dropout. None is torch's global generator, which
        is not touched otherwise.

    Notes
    -----
    `stack_members` differentiates stacked `MLP` by passes written out by hand. To change the
    network, write a subclass: autograd differentiates it, whatever it does.

    Examples
    --------
    >>> MLP(3, 2, hidden_layer_sizes=(8,))
    MLP(
      (0): Linear(in_features=3, out_features=8, bias=True)
      (1): SiLU()
      (2): Linear(in_features=8, out_features=2, bias=True)
    )
    """

    mixed_precision: bool | str = "auto"  # Of networks that an earlier version has pickled.

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        *,
        hidden_layer_sizes: Sequence[int] = (64, 64),
        activation: str = "silu",
        dropout: float = 0.0,
        embedded_features: Sequence[int] = (),
        n_frequencies: int = 16,
        n_components: int = 3,
        frequency_scale: float = 0.3,
        mixed_precision: bool | str = "auto",
        generator: torch.Generator | None = None,
    ) -> None:
        if not (isinstance(mixed_precision, bool | np.bool_) or mixed_precision == "auto"):
            raise ValueError(
                f"Got mixed_precision={mixed_precision!r}, but expected True, False or 'auto'."
            )
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"Got activation={activation!r}, but expected one of {sorted(ACTIVATIONS)}."
            )
        if not (isinstance(dropout, Real) and 0 <= dropout < 1):
            raise ValueError(f"Got dropout={dropout!r}, but expected a number in [0, 1).")
        columns = {int(feature) % n_features for feature in embedded_features}
        if len(columns) < len(embedded_features):
            raise ValueError(
                f"Got embedded_features={list(embedded_features)} of {n_features} columns, but "
                "expected each of them once."
            )
        layers: list[nn.Module] = []
        if len(embedded_features):
            embedding = PeriodicEmbedding(
                embedded_features,
                n_frequencies=n_frequencies,
                n_components=n_components,
                frequency_scale=frequency_scale,
                generator=generator,
            )
            layers.append(embedding)
            n_features += embedding.bias.numel()
        widths = [n_features, *hidden_layer_sizes, n_outputs]
        *hidden, last = [_linear(n, width, generator) for n, width in pairwise(widths)]
        for layer in hidden:
            layers += [layer, ACTIVATIONS[activation]()]
            if dropout:  # Its key is drawn after the weights, which do not depend on it.
                layers.append(Dropout(dropout, generator=generator))
        super().__init__(*layers, last)
        self.mixed_precision = mixed_precision
        # What differs once a part is replaced or set otherwise, or shares its weights.
        self.as_built: tuple[str, int] = str(self), len(list(self.parameters()))

    @property
    def rows_are_independent(self) -> bool:
        """Whether a row's output depends on no other row: of a subclass nobody knows."""
        return type(self) is MLP

    @staticmethod
    def count_weights(
        n_features: int,
        n_outputs: int,
        *,
        hidden_layer_sizes: Sequence[int] = (64, 64),
        embedded_features: Sequence[int] = (),
        n_frequencies: int = 16,
        n_components: int = 3,
        **_: object,
    ) -> int:
        """Count the weights and biases of a network that is not made.

        Parameters
        ----------
        n_features, n_outputs, hidden_layer_sizes, embedded_features, n_frequencies, n_components
            As in the class. Others change nothing.

        Returns
        -------
        int

        Examples
        --------
        >>> MLP.count_weights(3, 2, hidden_layer_sizes=(10**12,))
        6000000000002
        """
        n_embedded = len(embedded_features)
        widths = [n_features + n_embedded * n_components, *hidden_layer_sizes, n_outputs]
        in_layers = sum((n_inputs + 1) * width for n_inputs, width in pairwise(widths))
        return in_layers + n_embedded * (n_frequencies * (2 + n_components) + n_components)


def _linear(n_inputs: int, n_outputs: int, generator: torch.Generator | None) -> nn.Linear:
    """Make a layer with the weights that torch gives it, drawn by `generator`."""
    # On this device the constructor draws nothing: it knows the global generator only. Replacing
    # its parameters takes half the time of torch.nn.utils.skip_init.
    layer = nn.Linear(n_inputs, n_outputs, device="meta")
    layer.weight = nn.Parameter(torch.empty(n_outputs, n_inputs, dtype=torch.float32, device="cpu"))
    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
    bound = 1 / math.sqrt(n_inputs) if n_inputs else 0
    bias = torch.empty(n_outputs, dtype=torch.float32, device="cpu")
    layer.bias = nn.Parameter(bias.uniform_(-bound, bound, generator=generator))
    return layer


class PeriodicEmbedding(nn.Module):
    """Append to a row K learnt periodic components of each of some columns.

    A number x becomes ``W cos(2π (f x + φ)) + c`` with F frequencies f and phases φ of its own
    (Gorishniy, Rubachev, Babenko: On embeddings for numerical features in tabular deep learning,
    NeurIPS 2022; with phases and few components as in RealMLP, Holzmüller et al. 2024).

    Parameters
    ----------
    features : sequence of int
        Which columns are embedded, D of them.
    n_frequencies : int, default=16
        F.
    n_components : int, default=3
        K.
    frequency_scale : float, default=0.3
        Standard deviation of the initial frequencies, in periods per unit of the input.
    generator : torch.Generator, optional
        Draws the initial weights. None is torch's global generator.

    Examples
    --------
    >>> embedding = PeriodicEmbedding([0, 2], n_components=3)
    >>> embedding(torch.ones(5, 4)).shape
    torch.Size([5, 10])
    """

    features: Tensor

    def __init__(
        self,
        features: Sequence[int],
        *,
        n_frequencies: int = 16,
        n_components: int = 3,
        frequency_scale: float = 0.3,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        shape = (len(features), n_frequencies)
        # Type and device are explicit, for scripts change torch's defaults.
        normal = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")

        def uniform(bound: float, *shape: int) -> nn.Parameter:
            draws = torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu")
            return nn.Parameter(bound * (2 * draws - 1))

        self.frequency = nn.Parameter(2 * math.pi * frequency_scale * normal)
        self.phase = uniform(math.pi, *shape)
        bound = n_frequencies**-0.5  # as in nn.Linear
        self.weight = uniform(bound, *shape, n_components)
        self.bias = uniform(bound, len(features), n_components)
        self.register_buffer("features", torch.as_tensor(features, dtype=torch.int64, device="cpu"))

    def forward(self, X: Tensor) -> Tensor:
        """Return (B, n_features + D · K)."""
        numbers = X[:, self.features]
        # Rows are the last axis: one product for each column, whose short side comes first.
        angle = self.frequency.unsqueeze(-1) * numbers.T.unsqueeze(1) + self.phase.unsqueeze(-1)
        value = self.weight.mT @ angle.cos() + self.bias.unsqueeze(-1)  # (D, K, B)
        return torch.cat([X, value.flatten(0, 1).T], dim=1)


class Dropout(nn.Module):
    """Dropout by a counter-based generator of its own.

    A mask depends on the layer's key, on the number of calls so far and on the position in the
    batch, and on nothing else. So masks do not depend on the global generators, on the number of
    members or on the device, and a saved member goes on where it was. The members of an ensemble
    draw from one sequence, each a little later than the one before, so that its words are made
    once for all. What two of them draw alike meets other units, which have nothing in common.

    Parameters
    ----------
    p : float
        Probability of zeroing an entry in training, in (0, 1). It is rounded to a multiple of
        1 / 65536.
    generator : torch.Generator, optional
        Draws the key. None is torch's global generator.

    Attributes
    ----------
    draws : Tensor of shape (2,)
        Key and number of calls, int64.
    mask_sequence : int, default=0
        Which of several sequences of masks with this key is drawn.

    Examples
    --------
    >>> dropout = Dropout(0.5, generator=torch.Generator().manual_seed(0))
    >>> dropout(torch.ones(2, 4)).unique()
    tensor([0., 2.])
    """

    draws: Tensor

    def __init__(self, p: float, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.p = float(p)
        self.mask_sequence = 0
        self.register_buffer("draws", torch.zeros(2, dtype=torch.int64, device="cpu"))
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw another key, and count calls from zero."""
        self.draws.zero_()[0].random_(-(1 << 63), None, generator=generator)

    @staticmethod
    def share_draws(draws: Tensor) -> None:
        """Give members (M, 2) keys with which they draw parts of the sequence of the first one."""
        draws[:, 0] = _successive_keys(draws)

    def forward(self, X: Tensor) -> Tensor:
        """Return X, in training with some entries zero and the others divided by 1 − p."""
        if not self.training:
            return X
        return X * dropout_mask(self.draws, X, self.p, self.mask_sequence)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def _successive_keys(draws: Tensor) -> Tensor:
    later = torch.arange(len(draws), device=draws.device).mul_(_WORDS_APART).mul_(_STEP)
    return draws[0, 0] + later


def has_common_draws(draws: Tensor) -> bool:
    """Return whether members (M, 2) draw parts of one sequence (see `Dropout.share_draws`)."""
    return torch.equal(draws[:, 0], _successive_keys(draws))


@torch.no_grad()
def common_masks(draws: Tensor, like: Tensor, p: float, sequence: int = 0) -> Tensor:
    """Make the masks that `dropout_mask` makes, for members who draw parts of one sequence.

    Parameters
    ----------
    draws : Tensor of shape (M, 2)
        For which `has_common_draws` is true.
    like : Tensor of shape (M, ...)
    p : float
    sequence : int, default=0
        As in `dropout_mask`.

    Returns
    -------
    Tensor of shape (M, ...)
        To be read only: members share its memory.
    """
    apart = _WORDS_APART * _DRAWS_A_WORD
    size = like[0].numel() + (len(draws) - 1) * apart
    whole = dropout_mask(draws[0], like.new_empty(size), p, sequence)
    draws[1:, 1].add_(1)
    # Rows of a member lie one after the other.
    strides = [math.prod(like.shape[axis + 1 :]) for axis in range(1, like.ndim)]
    return whole.as_strided(like.shape, (apart, *strides))


@torch.no_grad()
def dropout_mask(draws: Tensor, like: Tensor, p: float, sequence: int = 0) -> Tensor:
    """Make the masks of the next call, and count it.

    Parameters
    ----------
    draws : Tensor of shape (2,) or (M, 2)
        Key and number of calls, of one layer or of M members' layers. The number is increased in
        place.
    like : Tensor of shape (...) or (M, ...)
        The masks have its shape and type.
    p : float
    sequence : int, default=0
        Which of several sequences of masks is drawn.

    Returns
    -------
    Tensor
        Zeros at a rate of p, and elsewhere the number that makes the mean one.
    """
    n_zeros = min(max(round(p * _N_DRAWS), 1), _N_DRAWS - 1)
    size = math.prod(like.shape[draws.ndim - 1 :])
    position = torch.arange(-(-size // _DRAWS_A_WORD), device=draws.device).mul_(_STEP)
    key, n_calls = draws.chunk(2, dim=-1)
    words = position + (key + n_calls * _CALL + sequence * _SEQUENCE)
    for shift, factor in _ROUNDS:
        # Torch's own shift repeats the sign, but these are unsigned numbers.
        words.bitwise_xor_((words >> shift).bitwise_and_((1 << (64 - shift)) - 1))
        if factor != 1:
            words.mul_(factor)
    n_calls.add_(1)
    # Sixteen bits are a signed number here. What is below the limit becomes zero, the rest one:
    # that is five times as fast as a comparison, and vmap knows it.
    below = n_zeros - 1 - _N_DRAWS // 2
    kept = words.view(torch.int16)[..., :size].clamp(below, below + 1).sub_(below)
    return kept.to(like.dtype).mul_(_N_DRAWS / (_N_DRAWS - n_zeros)).view_as(like)
