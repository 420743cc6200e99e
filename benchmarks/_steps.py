"""Training steps outside the estimator: what a member is, and one step of the stacked members."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sklearn_fordes import FoRDEClassifier
from sklearn_fordes.networks import MLP
from sklearn_fordes.particles import BuiltRepulsion, Ensemble, Repulsion, accumulate_gradients
from sklearn_fordes.training import keep_freed_memory

PERIOD = Repulsion().period
EVERY_ROW = BuiltRepulsion()
A_QUARTER = BuiltRepulsion(fraction=Repulsion().fraction)


def use_threads(n_threads: int) -> None:
    torch.set_num_threads(n_threads)
    keep_freed_memory()


class Shape(NamedTuple):
    """What the cost of a step depends on."""

    hidden_layer_sizes: tuple[int, ...]
    n_members: int = 10
    batch_size: int = 256
    n_features: int = 30
    n_outputs: int = 2
    is_default: bool = False  # with embedded columns and dropout, as the classifier's
    mixed_precision: bool | str = False

    def member(self) -> MLP:
        extra: dict[str, Any] = {}
        if self.is_default:
            extra = {"embedded_features": range(self.n_features), **FoRDEClassifier._recipe}
        return MLP(
            self.n_features,
            self.n_outputs,
            hidden_layer_sizes=self.hidden_layer_sizes,
            mixed_precision=self.mixed_precision,
            **extra,
        )


def make_step(
    ensemble: Ensemble,
    optimizer: torch.optim.Optimizer,
    X: Tensor,
    y: Tensor,
    repulsion: BuiltRepulsion | None,
) -> None:
    optimizer.zero_grad()
    accumulate_gradients(ensemble, X, y, repulsion=repulsion, strength=1 / len(X))
    optimizer.step()
