"""Predictions for tables of Dask's: partition by partition, lazily, by one copy of the model."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted, validate_data

try:
    import dask.array as da
    import dask.dataframe as dd
    from dask.delayed import delayed
except ImportError as error:
    raise ImportError(
        f"Got no Dask with arrays and data frames ({error}), but expected it to be installed: pip "
        "install 'dask[dataframe]', or this package with its extra 'dask'."
    ) from error

__all__ = ["predict", "predict_interval", "predict_proba"]


def predict(model: Any, frame: Any) -> Any:
    """Predict the class, or the mean of the target, of each row.

    Parameters
    ----------
    model : FoRDEClassifier or FoRDERegressor
        Fitted. A fitted pipeline or search that ends in one will do.
    frame : dask.dataframe.DataFrame or dask.array.Array of shape (n_samples, n_features)
        Each partition is a table that the model takes. Chunks of columns are put together.

    Returns
    -------
    dask.dataframe.Series or dask.array.Array of shape (n_samples,)
        What `model.predict` returns for each partition; not computed yet. For a frame it has the
        frame's index and divisions, and the name "prediction".

    Raises
    ------
    NotFittedError
        If the model is not fitted.
    TypeError
        If `frame` is neither a frame nor an array of Dask's.
    ValueError
        If its columns are not those of the training table.

    See Also
    --------
    predict_proba : Class probabilities.
    predict_interval : Intervals of a regressor.
    """
    check_is_fitted(model)
    classes = getattr(model, "classes_", np.empty(0))
    return _mapped(model, "predict", frame, classes[:0])


def predict_proba(model: Any, frame: Any) -> Any:
    """Predict class probabilities of each row.

    Parameters
    ----------
    model : FoRDEClassifier
        Fitted. A fitted pipeline or search that ends in one will do.
    frame : dask.dataframe.DataFrame or dask.array.Array of shape (n_samples, n_features)
        Each partition is a table that the model takes. Chunks of columns are put together.

    Returns
    -------
    dask.dataframe.DataFrame or dask.array.Array of shape (n_samples, n_classes)
        What `model.predict_proba` returns for each partition; not computed yet. For a frame it has
        the frame's index and divisions, and the columns are the classes.

    Raises
    ------
    NotFittedError
        If the model is not fitted.
    TypeError
        If the model is no classifier, or `frame` neither a frame nor an array of Dask's.
    ValueError
        If its columns are not those of the training table.

    See Also
    --------
    predict : The most probable class.

    Examples
    --------
    >>> import dask.array as da
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_fordes import FoRDEClassifier
    >>> from sklearn_fordes.dask import predict_proba
    >>> X, y = load_iris(return_X_y=True)
    >>> model = FoRDEClassifier(n_members=3, max_epochs=5, random_state=0).fit(X, y)
    >>> probabilities = predict_proba(model, da.from_array(X, chunks=(50, 4)))
    >>> probabilities.chunks
    ((50, 50, 50), (3,))
    """
    check_is_fitted(model)
    _expect_method(model, "predict_proba", "a classifier")
    return _mapped(
        model, "predict_proba", frame, np.empty((0, len(model.classes_))), model.classes_
    )


def predict_interval(model: Any, frame: Any, confidence: float = 0.9) -> Any:
    """Predict central intervals of the target of each row.

    Parameters
    ----------
    model : FoRDERegressor
        Fitted.
    frame : dask.dataframe.DataFrame or dask.array.Array of shape (n_samples, n_features)
        Each partition is a table that the model takes. Chunks of columns are put together.
    confidence : float, default=0.9
        Probability of the interval, in (0, 1).

    Returns
    -------
    dask.dataframe.DataFrame or dask.array.Array of shape (n_samples, 2)
        What `model.predict_interval` returns for each partition; not computed yet. For a frame it
        has the frame's index and divisions, and the columns "lower" and "upper".

    Raises
    ------
    NotFittedError
        If the model is not fitted.
    TypeError
        If the model is no `FoRDERegressor`, or `frame` neither a frame nor an array of Dask's.
    ValueError
        If `confidence` is not in (0, 1), or the columns are not those of the training table.

    See Also
    --------
    predict : The mean of the target.
    """
    check_is_fitted(model)
    _expect_method(model, "predict_interval", "a FoRDERegressor")
    is_number = np.ndim(confidence) == 0 and np.asarray(confidence).dtype.kind in "fiu"
    if not (is_number and 0 < confidence < 1):
        raise ValueError(
            f"Got confidence={confidence!r}, but expected a number in (0, 1): one a call."
        )
    names = np.array(["lower", "upper"])
    return _mapped(model, "predict_interval", frame, np.empty((0, 2)), names, confidence=confidence)


def _expect_method(model: Any, method: str, kind: str) -> None:
    if not hasattr(model, method):
        name = type(model).__name__
        raise TypeError(f"Got a {name}, which has no {method}, but expected {kind}.")


def _mapped(
    model: Any,
    method: str,
    table: Any,
    nothing: NDArray[Any],
    names: ArrayLike | None = None,
    **arguments: Any,
) -> Any:
    """Return what a method of the model makes of each partition of a table.

    Parameters
    ----------
    model : estimator
        Fitted.
    method : str
    table : dask.dataframe.DataFrame or dask.array.Array
    nothing : ndarray of shape (0, ...)
        What the method would make of no rows, which it refuses.
    names : array-like of shape (n_columns,), optional
        Names of columns, if the method makes some.
    **arguments
        Of the method.
    """
    is_frame = isinstance(table, dd.DataFrame)
    if not is_frame and not isinstance(table, da.Array):
        raise TypeError(
            f"Got a table of type {type(table)}, but expected a Dask DataFrame or a Dask Array."
        )
    # Other columns are an error here, and not later in each partition.
    first = table._meta if is_frame else np.empty((0, *table.shape[1:]))
    validate_data(model, first, reset=False, skip_check_array=True)
    # A task of its own, on which those of the partitions depend, so that each worker gets one. A
    # copy, which a later fit does not change.
    settings: dict[str, Any] = {"method": method, "nothing": nothing, "arguments": arguments}
    sent = delayed(deepcopy(model), pure=True, traverse=False)
    if is_frame:
        settings["names"] = names
        meta = _of_frame(first, model, **settings)
        return table.map_partitions(_of_frame, sent, **settings, meta=meta)
    inner = range(1, table.ndim)
    return da.map_blocks(
        _of_rows,
        table.rechunk(dict.fromkeys(inner, -1)),
        sent,
        **settings,
        drop_axis=[*inner],
        new_axis=[*range(1, nothing.ndim)],
        chunks=(table.chunks[0], *((n,) for n in nothing.shape[1:])),
        dtype=nothing.dtype,
        meta=nothing,
    )


def _of_rows(
    rows: Any, model: Any, method: str, nothing: NDArray[Any], arguments: dict[str, Any]
) -> NDArray[Any]:
    """Return what a method makes of one partition, which may have no rows."""
    return np.asarray(getattr(model, method)(rows, **arguments)) if len(rows) else nothing


def _of_frame(
    rows: pd.DataFrame, model: Any, names: ArrayLike | None, **settings: Any
) -> pd.DataFrame | pd.Series:
    """Return what a method makes of one partition, with its index."""
    found = _of_rows(rows, model, **settings)
    if names is None:
        # The labels of a partition alone, of which there may be none, may look like another type.
        dtype = pd.Series(getattr(model, "classes_", found)).dtype
        return pd.Series(found, index=rows.index, name="prediction", dtype=dtype)
    return pd.DataFrame(found, index=rows.index, columns=names)
