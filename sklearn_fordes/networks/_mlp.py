"""The default member for tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from sklearn_fordes.networks._dropout import Dropout
from sklearn_fordes.networks._embedding import PeriodicEmbedding

ACTIVATIONS: dict[str, type[nn.Module]] = {
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
        generator: torch.Generator | None = None,
    ) -> None:
        _check_settings(n_features, activation, dropout, embedded_features)
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
            n_features += embedding.n_added
        widths = [n_features, *hidden_layer_sizes, n_outputs]
        *hidden, last = [_linear(n, width, generator) for n, width in pairwise(widths)]
        for layer in hidden:
            layers += [layer, ACTIVATIONS[activation]()]
            if dropout:  # its key is drawn after the weights, which do not depend on dropout
                layers.append(Dropout(dropout, generator=generator))
        super().__init__(*layers, last)
        self.activation = activation

    @property
    def embedding(self) -> PeriodicEmbedding | None:
        """The embedding before the first layer."""
        return self[0] if isinstance(self[0], PeriodicEmbedding) else None


def _check_settings(
    n_features: int, activation: str, dropout: float, embedded_features: Sequence[int]
) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"Got activation={activation!r}, but expected one of {sorted(ACTIVATIONS)}."
        )
    if not (isinstance(dropout, int | float | np.number) and 0 <= dropout < 1):
        raise ValueError(f"Got dropout={dropout!r}, but expected a number in [0, 1).")
    columns = {int(feature) % n_features for feature in embedded_features}
    if len(columns) < len(embedded_features):
        raise ValueError(
            f"Got embedded_features={list(embedded_features)} of {n_features} columns, but "
            "expected each of them once."
        )


def _linear(n_inputs: int, n_outputs: int, generator: torch.Generator | None) -> nn.Linear:
    """Make a layer with the weights that torch gives it, drawn by `generator`."""
    # On this device the constructor draws nothing: it knows the global generator only.
    layer = nn.Linear(n_inputs, n_outputs, device="meta")
    weight = torch.empty(n_outputs, n_inputs, dtype=torch.float32, device="cpu")
    layer.weight = nn.Parameter(weight)
    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
    bound = 1 / math.sqrt(n_inputs) if n_inputs else 0
    bias = torch.empty(n_outputs, dtype=torch.float32, device="cpu")
    layer.bias = nn.Parameter(bias.uniform_(-bound, bound, generator=generator))
    return layer
