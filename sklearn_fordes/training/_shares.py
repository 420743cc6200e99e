"""The share of a batch that a process computes, where several work together."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sklearn_fordes.particles import Communicator
from sklearn_fordes.training._data import Batch


def n_rows_of(batch: Batch, communicator: Communicator) -> int:
    """Return the number of rows of a whole batch, of which each process may have a share only."""
    inputs, _ = batch
    n_rows: int = inputs["X"].shape[0 if inputs.get("shared", True) else 1]
    return n_rows * communicator.n_row_shares if inputs.get("is_share") else n_rows


def share_of(batch: Batch, communicator: Communicator) -> tuple[dict[str, Any], Any, int]:
    """Return what this process needs of a batch.

    Parameters
    ----------
    batch : Batch
        The same in all processes, if it is no share already.
    communicator : Communicator

    Returns
    -------
    inputs, y : dict and Tensor
        Those of its rows; and of versions and weights, where members have their own, those of its
        members.
    n_rows : int
        Number of rows of the whole batch.
    """
    (inputs, y), members, rows = batch, communicator.members, communicator.rows
    n_rows = n_rows_of(batch, communicator)
    if communicator.n_processes == 1:
        return inputs, y, n_rows
    if inputs.get("is_share"):
        rows = slice(None)
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
    return share, None if y is None else y[rows].contiguous(), n_rows
