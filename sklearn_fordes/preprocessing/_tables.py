"""Tables of any container as frames or arrays."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

# What pyarrow calls the levels of an index that has no name.
_INDEX_OF_PANDAS = re.compile(r"__index_level_\d+__")


def native_table(X: Any) -> Any:
    """Return the frame that narwhals wraps, a table of a pyarrow batch, or X itself.

    Parameters
    ----------
    X : object

    Returns
    -------
    object
        A batch of pyarrow, which narwhals takes for no frame, becomes a table with its names. The
        index of a frame of pandas, which has a name of its own there, is left out.
    """
    X = nw.to_native(X, pass_through=True)
    if hasattr(X, "to_struct_array") and not nw.dependencies.is_into_dataframe(X):
        X = nw.to_native(nw.from_arrow(X, backend="pyarrow"))
    if nw.dependencies.is_pyarrow_table(X):
        index = [name for name in X.column_names if _INDEX_OF_PANDAS.fullmatch(name)]
        X = X.drop_columns(index) if index else X
    return X


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
    if type(X) is np.ndarray:
        return as_rows(X)
    X = native_table(X)
    if nw.dependencies.is_into_dataframe(X):
        if 0 in X.shape:
            raise ValueError(
                f"Got a data frame of shape {X.shape}, but expected at least one row and column."
            )
        return X
    if hasattr(X, "collect"):
        raise TypeError(f"Got a lazy {type(X).__name__}, but expected a frame: call collect().")
    # From a list with numbers and text or durations, numpy would make one type of both.
    if isinstance(X, list | tuple) and _as_array(X).dtype.kind in "USmM":
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
        raise TypeError(
            "Got a sparse X, but expected a dense array: call toarray(). Steps of a pipeline make "
            "one with OneHotEncoder(sparse_output=False) or ColumnTransformer(sparse_threshold=0)."
        )
    if isinstance(X, np.ma.MaskedArray):
        # Whole numbers and text have no value that says missing.
        X = np.ma.filled(X.astype(np.float64 if X.dtype.kind in "biuf" else object), np.nan)
    array = X if issparse(X) else _as_array(X)
    if array.ndim == 0:
        raise ValueError(
            f"Got X of type {type(X).__name__} that is no table, but expected a data frame or an "
            f"array of shape (n_samples, n_features). {_advice_on(X)}".rstrip()
        )
    if array.ndim != n_axes and (n_axes or array.ndim < 2):
        raise ValueError(
            f"Got X of shape {array.shape}, but expected (n_samples, n_features). Reshape your "
            f"data: {_reshaped(X, array)}"
        )
    for axis, name in enumerate(("sample", "feature")):
        if not array.shape[axis]:
            raise ValueError(
                f"Found array with 0 {name}(s) (shape={array.shape}) while a minimum of 1 is "
                "required."
            )
    if array.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: got X of type {array.dtype}.")
    return X.tocsr() if issparse(X) else array  # Rows of this format can be sliced.


def _reshaped(X: Any, array: NDArray[Any]) -> str:
    """Return how to make a table of an array that has too few axes, or too many."""
    if array.ndim > 1:
        return "X.reshape(len(X), -1) makes a column of each number of a row."
    if isinstance(array, np.ndarray) and array.size and isinstance(array[0], Mapping):
        return "pandas.DataFrame(X) makes a row of each dict."
    if nw.dependencies.is_pandas_series(X):
        return "X.to_frame() if it is one feature, X.to_frame().T if it is one sample."
    return "X.reshape(-1, 1) if it is one feature, X.reshape(1, -1) if it is one sample."


def _advice_on(X: Any) -> str:
    """Return what to pass in place of X, which is no table, or nothing."""
    dataset = "pyarrow.dataset.dataset(path), which is read in blocks"
    if isinstance(X, str | bytes | os.PathLike) or hasattr(X, "readline"):
        return f"Read a file by pandas.read_csv or pandas.read_parquet, or pass {dataset}."
    if hasattr(X, "iter_batches"):
        return f"Pass its read(), or {dataset}."
    if hasattr(X, "to_table"):
        return "Pass its to_table(), or the dataset that it scans, which is read in blocks."
    if isinstance(X, Mapping):
        return "Pass pandas.DataFrame(X), if it holds columns."
    if callable(X) or hasattr(X, "__iter__"):
        return (
            "Blocks of rows come from a function that returns a new iterator over pairs (X_block, "
            f"y_block), without y; or with the name of y from {dataset}."
        )
    return ""


def _as_array(X: Any) -> NDArray[Any]:
    try:
        return np.asarray(X)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"Got X of type {type(X).__name__} that is no table ({error}), but expected an array "
            "or rows of one length."
        ) from error
