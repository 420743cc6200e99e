"""The share of a batch that a process computes, where several work together."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sklearn_fordes.particles import Communicator
from sklearn_fordes.training._data import Batch


def share_of(batch: Batch, communicator: Communicator) -> tuple[dict[str, Any], Any]:
    """Return what this process needs of a batch.

    Parameters
    ----------
    batch : Batch
        The same in all processes.
    communicator : Communicator

    Returns
    -------
    tuple
        Inputs and targets of its rows; and of versions and weights, where members have their own,
        those of its members.
    """
    if communicator.n_processes == 1:
        return batch
    (inputs, y), members, rows = batch, communicator.members, communicator.rows
    share: dict[str, Any] = {}
    for name, value in inputs.items():
        if not isinstance(value, Tensor):
            share[name] = value
        elif name == "X" and not inputs.get("shared", True):
            share[name] = value[members, rows].contiguous()
        elif name == "sample_weight" and value.ndim == 2:
            share[name] = value[rows, members].contiguous()
        else:
            share[name] = value[rows].contiguous()
    return share, None if y is None else y[rows].contiguous()
