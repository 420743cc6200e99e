"""Tensors as numpy arrays, so that a pickle of an ensemble holds no pickle of torch's."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# numpy has no bfloat16: its bits are kept as integers, in a field of this name.
_BFLOAT16 = np.dtype([("bfloat16", np.int16)])


def to_arrays(tree: Any) -> Any:
    """Replace the tensors in nested dicts, lists and tuples by arrays of their values.

    Parameters
    ----------
    tree : Tensor, dict, list, tuple or object

    Returns
    -------
    object
        The same structure. Other leaves are kept.
    """
    if isinstance(tree, Tensor):
        values = tree.detach().cpu()
        if values.dtype == torch.bfloat16:
            return values.view(torch.int16).numpy().copy().view(_BFLOAT16)
        # Products of a matrix in another order of memory are rounded otherwise.
        return values.numpy().copy(order="K")
    return _mapped(to_arrays, tree)


def to_tensors(tree: Any) -> Any:
    """Replace the arrays in nested dicts, lists and tuples by tensors of their values.

    Parameters
    ----------
    tree : ndarray, dict, list, tuple or object
        From `to_arrays`.

    Returns
    -------
    object
        The same structure. Other leaves are kept. Tensors have memory of their own, but those of
        arrays that are mapped from a file are mapped from it too: what is written to them is
        theirs, and never reaches the file.
    """
    if isinstance(tree, np.ndarray):
        is_bfloat16 = tree.dtype == _BFLOAT16
        own = _own_values(tree)
        values = torch.from_numpy(own["bfloat16"] if is_bfloat16 else own)
        return values.view(torch.bfloat16) if is_bfloat16 else values
    return _mapped(to_tensors, tree)


def _own_values(array: NDArray[Any]) -> NDArray[Any]:
    """Return what can be written to without another one noticing."""
    if isinstance(array, np.memmap) and array.filename and isinstance(array.base, mmap.mmap):
        # Torch takes no memory that is read-only. The system copies a page of this one when
        # something is written to it.
        order: Any = "C" if array.flags.c_contiguous else "F"
        if array.flags.forc and array.flags.aligned:
            return np.memmap(array.filename, array.dtype, "c", array.offset, array.shape, order)
    return np.array(array)


def _mapped(function: Any, tree: Any) -> Any:
    if type(tree) is dict:
        return {name: function(value) for name, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(function(value) for value in tree)
    return tree
