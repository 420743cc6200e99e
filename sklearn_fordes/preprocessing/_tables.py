"""Tables of any container as frames or arrays."""

from __future__ import annotations

from typing import Any

import narwhals as nw
import numpy as np
from scipy.sparse import issparse


def as_table(X: Any, *, accept_sparse: bool = False) -> Any:
    """Return a data frame unchanged and anything else as an array.

    Parameters
    ----------
    X : data frame, array-like or sparse array of shape (n_samples, n_features)
    accept_sparse : bool, default=False
        Whether sparse arrays are taken.

    Returns
    -------
    data frame, ndarray or sparse array in CSR format, of shape (n_samples, n_features)
        Of any type. Values may be missing.

    Raises
    ------
    TypeError
        If the frame is lazy, or X is sparse without `accept_sparse`.
    ValueError
        If X does not have two axes, or has no rows or no columns.
    """
    X = nw.to_native(X, pass_through=True)
    if nw.dependencies.is_into_dataframe(X):
        if 0 in X.shape:
            raise ValueError(
                f"Got a data frame of shape {X.shape}, but expected at least one row and column."
            )
        return X
    if hasattr(X, "collect"):
        raise TypeError(f"Got a lazy {type(X).__name__}, but expected a frame: call collect().")
    # From a list with numbers and strings, numpy would make strings of the numbers.
    if isinstance(X, list | tuple) and np.asarray(X).dtype.kind in "US":
        X = np.array(X, dtype=object)
    return as_rows(X, accept_sparse=accept_sparse)


def as_rows(X: Any, n_axes: int | None = 2, *, accept_sparse: bool = False) -> Any:
    """Return an array of rows.

    scikit-learn's `check_array` is not used, because it changes the warning filters of all threads.

    Parameters
    ----------
    X : array-like of shape (n_samples, ...)
    n_axes : int, optional
        Number of axes that X must have. None is two or more.
    accept_sparse : bool, default=False
        Whether sparse arrays are taken.

    Returns
    -------
    ndarray, or sparse array in CSR format
        Not a copy, if X is such an array.

    Raises
    ------
    TypeError
        If X is sparse without `accept_sparse`.
    ValueError
        If X has another number of axes, no rows or no columns, or complex numbers.
    """
    if issparse(X) and not accept_sparse:
        raise TypeError("Got a sparse X, but expected a dense array: call toarray().")
    if isinstance(X, np.ma.MaskedArray):
        # Whole numbers and text have no value that says missing.
        X = np.ma.filled(X.astype(np.float64 if X.dtype.kind in "biuf" else object), np.nan)
    array = X.tocsr() if issparse(X) else np.asarray(X)  # Rows of this format can be sliced.
    if array.ndim != n_axes and (n_axes or array.ndim < 2):
        raise ValueError(
            f"Got X of shape {array.shape}, but expected (n_samples, n_features). Reshape your "
            "data: X.reshape(-1, 1) if it is one feature, X.reshape(1, -1) if it is one sample."
        )
    for axis, name in enumerate(("sample", "feature")):
        if not array.shape[axis]:
            raise ValueError(
                f"Found array with 0 {name}(s) (shape={array.shape}) while a minimum of 1 is "
                "required."
            )
    if array.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: got X of type {array.dtype}.")
    return array
