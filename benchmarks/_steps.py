"""Training steps outside the estimator: what a member is, and one step of the stacked members."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sklearn_fordes.networks import MLP
from sklearn_fordes.particles import BuiltRepulsion, Ensemble, Repulsion, accumulate_gradients
from sklearn_fordes.training import keep_freed_memory

PERIOD = Repulsion().period
EVERY_ROW = BuiltRepulsion()
A_QUARTER = BuiltRepulsion(fraction=Repulsion().fraction)


def use_threads(n_threads: int) -> None:
    torch.set_num_threads(n_threads)
    keep_freed_memory()


def make_member(n_features: int, n_outputs: int, sizes: Sequence[int], *, is_default: bool) -> MLP:
    """Make a network, with embedded columns and dropout if it is the default one."""
    extra: dict[str, Any] = {}
    if is_default:
        extra = {"embedded_features": range(n_features), "dropout": 0.1}
    return MLP(n_features, n_outputs, hidden_layer_sizes=sizes, **extra)


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
