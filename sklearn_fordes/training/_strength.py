"""How strongly members repel each other in a step, and at which rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sklearn_fordes.particles import BuiltRepulsion
from sklearn_fordes.training._data import Batch
from sklearn_fordes.training._shares import n_rows_of


def unit_of_strength(
    repulsion: BuiltRepulsion, epoch: int, n_rows: int, relative_loss: float | Tensor
) -> float | Tensor:
    """Return the factor of the potential for a strength of 1, in a step in which it acts.

    Parameters
    ----------
    repulsion : BuiltRepulsion
        It acts every `period` steps, `period` times as strongly, and rises during `warmup` epochs.
    epoch : int
        Counted from zero.
    n_rows : int
        Number of rows in the batch.
    relative_loss : float or Tensor
        Running mean of the members' relative loss. A tensor makes a tensor: what the strength
        depends on stays on the device.

    Returns
    -------
    float or Tensor
    """
    ramp = min(1.0, (epoch + 1) / (repulsion.warmup + 1))
    return repulsion.period * ramp * (relative_loss if repulsion.relative else 1 / n_rows)


def strength_of_step(net: Any, batch: Batch) -> float | Tensor:
    """Return how strongly members of a net repel each other in its next step: 0 if they do not.

    Processes that train together do this together.
    """
    repulsion = net.repulsion
    if not (repulsion and net.strength) or net.n_steps % repulsion.period:
        return 0.0
    net.figures.exchange()
    n_rows = n_rows_of(batch, net.communicator)
    unit = unit_of_strength(repulsion, len(net.history) - 1, n_rows, net.relative_loss)
    strength: float | Tensor = net.strength * unit
    return strength


def with_rows_compared(
    versions: Tensor, rows: Tensor, repulsion: BuiltRepulsion, n_compared: int
) -> Tensor:
    """Return versions (M, B, ...) of rows, whose first ones are as they are where it matters.

    Members that see other versions of a row differ there, however alike they are.
    """
    if not repulsion.space.depends_on_inputs:
        return versions
    same = rows[:n_compared]
    return torch.cat([same.expand(len(versions), *same.shape), versions[:, len(same) :]], dim=1)
