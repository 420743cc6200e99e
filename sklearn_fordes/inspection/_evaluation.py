"""Evaluation of estimators: on rows of a table, and on a grid over two of its features."""

from __future__ import annotations

from statistics import mode
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr
from sklearn.pipeline import Pipeline

from sklearn_fordes.inspection._display import Array

MEASURES = ("total", "aleatoric", "epistemic")


def final_step(estimator: Any, X: Any = None) -> tuple[Any, Any]:
    """Return the estimator at the end of a pipeline or of a search, and rows as it gets them."""
    if hasattr(estimator, "best_estimator_"):
        return final_step(estimator.best_estimator_, X)
    if not isinstance(estimator, Pipeline):
        return estimator, X
    # An empty pipeline, which precedes a single step, can't transform.
    if X is not None and len(estimator) > 1:
        X = estimator[:-1].transform(X)
    return final_step(estimator[-1], X)


def name_of(estimator: Any) -> str:
    """Return the class name that a legend shows."""
    return type(final_step(estimator)[0]).__name__


def lacks(estimator: Any, what: str) -> TypeError:
    """Return the error about an estimator that lacks a method, attribute or parameter."""
    return TypeError(
        f"Got {name_of(estimator)}, but expected an estimator with {what}, or a pipeline that "
        "ends in one."
    )


def uncertainty_of(estimator: Any, X: Any, measure: str) -> Array:
    """Return a measure of `predict_uncertainty`, (n_samples,).

    The total of a classifier that has only probabilities is their entropy, in nats.
    """
    model, rows = final_step(estimator, X)
    if hasattr(model, "predict_uncertainty"):
        return np.asarray(getattr(model.predict_uncertainty(rows), measure))
    if not hasattr(model, "predict_proba"):
        raise lacks(estimator, "the method predict_uncertainty")
    if measure != "total":
        raise TypeError(
            f"Got measure={measure!r} and {name_of(estimator)}, which has no predict_uncertainty, "
            "but expected measure='total' for a classifier that only knows probabilities."
        )
    return np.asarray(entr(model.predict_proba(rows)).sum(axis=-1))


def check_measure(measure: str, expected: tuple[str, ...] = MEASURES) -> None:
    """Raise an error if the measure isn't one of those expected."""
    if measure not in expected:
        raise ValueError(f"Got measure={measure!r}, but expected one of {', '.join(expected)}.")


def check_classifier(estimator: Any) -> None:
    """Raise an error unless the fitted estimator is a classifier."""
    if not hasattr(estimator, "classes_"):
        raise ValueError(
            f"Got {name_of(estimator)}, which has no classes_, but expected a fitted classifier."
        )


def class_indices(y: ArrayLike, classes: ArrayLike) -> NDArray[np.int64]:
    """Return the position of each label in the classes, which may have any order."""
    labels, known = np.asarray(y), np.asarray(classes)
    matches = labels[:, None] == known
    unseen = np.unique(labels[~matches.any(axis=1)])
    if unseen.size:
        raise ValueError(
            f"Got labels {unseen.tolist()}, but expected some of the classes {known.tolist()}."
        )
    return np.asarray(matches.argmax(axis=1))


def columns_of(X: Any) -> dict[Any, Any]:
    """Return the columns of a frame by name, or those of an array by position."""
    if hasattr(X, "columns"):
        return {name: X[name] for name in X.columns}
    if np.ndim(X) != 2:
        raise ValueError(f"Got X of shape {np.shape(X)}, but expected (n_samples, n_features).")
    # Each column of an array of objects gets the type of its own values.
    return {j: np.array(list(column)) for j, column in enumerate(np.asarray(X).T)}


def find_feature(columns: dict[Any, Any], feature: Any) -> Any:
    """Return the key of a numeric column, given by its position or its name."""
    names = list(columns)
    by_position = dict(zip(range(-len(names), len(names)), names * 2, strict=True))
    key = by_position.get(feature, feature)
    if key not in columns:
        raise ValueError(
            f"Got feature {feature!r}, but expected an index below {len(names)} or one of the "
            f"columns {names}."
        )
    if not is_numeric(columns[key]):
        raise ValueError(f"Got feature {feature!r}, which isn't numeric, but expected numbers.")
    return key


def is_numeric(column: Any) -> bool:
    """Return whether a column holds numbers; truth values and categories don't count."""
    dtype = column.dtype
    return bool(dtype.is_numeric()) if hasattr(dtype, "is_numeric") else dtype.kind in "iuf"


def numbers(column: Any) -> Array:
    """Return a numeric column as floats, NaN where a cell is missing."""
    # Polars' columns turn missing cells into NaN in numpy, those of pandas in `astype`.
    values = column.astype(np.float64) if hasattr(column, "astype") else column
    return np.asarray(values, dtype=np.float64)


def grid_axis(column: Any, n_points: int, eps: float) -> Array:
    """Return the grid along a feature, `eps` standard deviations wider than its values."""
    if n_points < 2:
        raise ValueError(f"Got grid_resolution={n_points}, but expected an integer >= 2.")
    if not eps >= 0:
        raise ValueError(f"Got eps={eps}, but expected a number >= 0.")
    values = numbers(column)
    margin = eps * np.nanstd(values)
    return np.linspace(np.nanmin(values) - margin, np.nanmax(values) + margin, n_points)


def grid_table(X: Any, columns: dict[Any, Any], grid: dict[Any, Array]) -> Any:
    """Return a table like X with the grid in some columns, and constants in the others."""
    n_rows = len(next(iter(grid.values())))
    filled = {key: grid[key] if key in grid else typical(columns[key], n_rows) for key in columns}
    if hasattr(X, "columns"):
        return type(X)(filled)
    mixed = not all(map(is_numeric, filled.values()))
    return np.array(list(filled.values()), dtype=object if mixed else np.float64).T


def typical(column: Any, n_rows: int) -> Any:
    """Return the median of a column, its most frequent value if it isn't numeric, n_rows times."""
    if is_numeric(column):
        return np.full(n_rows, np.nanmedian(numbers(column)))
    values = list(column)
    # Cells are taken from the column, so that it keeps its type in a frame (categories, say).
    rows = np.full(n_rows, values.index(mode(values)))
    return column.iloc[rows].reset_index(drop=True) if hasattr(column, "iloc") else column[rows]
