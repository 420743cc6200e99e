"""Arrays that a library maps from a file instead of reading them, as joblib does if asked to."""

from __future__ import annotations

from typing import Any

import numpy as np


def without_maps(tree: Any, *, copied: bool) -> Any:
    """Replace the arrays in nested dicts, lists and tuples that are mapped from a file.

    Their type, which other libraries and files do not take, goes, and nothing else.

    Parameters
    ----------
    tree : ndarray, dict, list, tuple or object
    copied : bool
        Whether arrays of their own take their place, which can be written to. Else they stay in
        the file, and are only read from it when they are used.

    Returns
    -------
    object
        The same structure. Other leaves are kept.
    """
    if isinstance(tree, np.memmap):
        return np.array(tree, copy=True if copied else None)
    if type(tree) is dict:
        return {name: without_maps(value, copied=copied) for name, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(without_maps(value, copied=copied) for value in tree)
    return tree
