"""Tensors as numpy arrays, so that a pickle of an ensemble holds no pickle of torch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
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
        The same structure. Other leaves are kept.
    """
    if isinstance(tree, np.ndarray):
        is_bfloat16 = tree.dtype == _BFLOAT16
        values = torch.from_numpy(np.array(tree["bfloat16"] if is_bfloat16 else tree))
        return values.view(torch.bfloat16) if is_bfloat16 else values
    return _mapped(to_tensors, tree)


def _mapped(function: Any, tree: Any) -> Any:
    if type(tree) is dict:
        return {name: function(value) for name, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(function(value) for value in tree)
    return tree
