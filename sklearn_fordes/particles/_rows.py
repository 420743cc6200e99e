"""Numbers of rows with which a member's results do not depend on where its arrays begin."""

from __future__ import annotations

import torch
from torch import Tensor

# A vector of a CPU holds as many numbers of single precision.
_ROWS_ALIGNED = 16


def n_missing(n_rows: int, device: torch.device, multiple: int = _ROWS_ALIGNED) -> int:
    """Return how many rows are missing to a multiple on a CPU (see `filled_up`).

    Parameters
    ----------
    n_rows : int
    device : torch.device
    multiple : int, default=16

    Returns
    -------
    int
        Zero on other devices.
    """
    return -n_rows % multiple if device.type == "cpu" else 0


def filled_up(X: Tensor, multiple: int = _ROWS_ALIGNED, *, shared: bool = True) -> Tensor:
    """Repeat the last row of a batch, so that each member's part of an array is aligned alike.

    On a CPU, a matrix product rounds in another way where its arrays begin elsewhere in a vector of
    the processor, and functions of numbers round the last ones of an array in another way. With so
    many rows a member's results do not depend on how many there are before it, and so not on the
    process that holds it, if layers have multiples of 16 units.

    Parameters
    ----------
    X : Tensor of shape (B, ...), or (M, B, ...) if not `shared`
    multiple : int, default=16
    shared : bool, default=True

    Returns
    -------
    Tensor
        With such a multiple of rows on a CPU.
    """
    axis = 0 if shared else 1
    n_more = n_missing(X.shape[axis], X.device, multiple)
    if not n_more:
        return X
    last = X.narrow(axis, X.shape[axis] - 1, 1)
    return torch.cat([X, last.expand(*X.shape[:axis], n_more, *X.shape[axis + 1 :])], dim=axis)
