"""The default member for tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from sklearn_fordes.tabular._activations import ACTIVATIONS
from sklearn_fordes.tabular._embedding import PeriodicEmbedding


class MLP(nn.Sequential):
    """A multi-layer perceptron.

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
        Columns, each at most once, that stand before the first layer in a `PeriodicEmbedding` too.
    n_frequencies : int, default=16
        Of the embedding.
    n_components : int, default=3
        Of the embedding.
    frequency_scale : float, default=0.3
        Of the embedding.

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
    ) -> None:
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"Got activation={activation!r}, but expected one of {sorted(ACTIVATIONS)}."
            )
        if not (isinstance(dropout, int | float | np.number) and 0 <= dropout < 1):
            raise ValueError(f"Got dropout={dropout!r}, but expected a number in [0, 1).")
        if len({int(feature) % n_features for feature in embedded_features}) < len(
            embedded_features
        ):
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
            )
            layers.append(embedding)
            n_features += embedding.n_added
        for width in hidden_layer_sizes:
            layers += [nn.Linear(n_features, width), ACTIVATIONS[activation].layer()]
            if dropout:
                layers.append(nn.Dropout(dropout))
            n_features = width
        super().__init__(*layers, nn.Linear(n_features, n_outputs))
        self.activation = activation
        self.dropout = float(dropout)

    @property
    def embedding(self) -> PeriodicEmbedding | None:
        """What comes before the first layer."""
        return self[0] if isinstance(self[0], PeriodicEmbedding) else None
