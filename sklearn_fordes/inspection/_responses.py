"""What displays ask of an estimator, or of a pipeline that ends in one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline

MEASURES = ("total", "aleatoric", "epistemic")


def final_step(estimator: Any) -> Any:
    """Return the estimator at the end of a pipeline or of a search, or the estimator itself."""
    if isinstance(estimator, Pipeline):
        return final_step(estimator.steps[-1][1])
    return final_step(estimator.best_estimator_) if _is_searched(estimator) else estimator


def name_of(estimator: Any) -> str:
    """Return the class name that a legend shows."""
    return type(final_step(estimator)).__name__


def respond(estimator: Any, method: str, X: Any, *arguments: Any) -> Any:
    """Call a method; where a pipeline lacks it, that of its last step on transformed rows.

    A search that was fitted stands for its best estimator.
    """
    if hasattr(estimator, method):
        return getattr(estimator, method)(X, *arguments)
    if isinstance(estimator, Pipeline):
        # scikit-learn refuses to transform with the empty pipeline that stands before a lone step.
        rows = estimator[:-1].transform(X) if len(estimator) > 1 else X
        return respond(estimator[-1], method, rows, *arguments)
    if _is_searched(estimator):
        return respond(estimator.best_estimator_, method, X, *arguments)
    raise TypeError(
        f"Got {type(estimator).__name__}, but expected an estimator with the method {method}, or a "
        "pipeline that ends in one."
    )


def _is_searched(estimator: Any) -> bool:
    return isinstance(estimator, BaseSearchCV) and hasattr(estimator, "best_estimator_")


def uncertainty_of(estimator: Any, X: Any, measure: str) -> NDArray[np.float64]:
    """Return a measure of `predict_uncertainty`, (n_samples,).

    The total of a classifier that only knows probabilities is their entropy.
    """
    only_probabilities = not hasattr(final_step(estimator), "predict_uncertainty") and hasattr(
        estimator, "predict_proba"
    )
    if only_probabilities and measure == "total":
        return entropy(estimator.predict_proba(X))
    if only_probabilities:
        raise TypeError(
            f"Got measure={measure!r} and {name_of(estimator)}, which has no predict_uncertainty, "
            "but expected measure='total' for a classifier that only knows probabilities."
        )
    return np.asarray(getattr(respond(estimator, "predict_uncertainty", X), measure))


def entropy(y_proba: ArrayLike) -> NDArray[np.float64]:
    """Return the entropy of each row of probabilities, in nats."""
    return np.asarray(entr(np.asarray(y_proba)).sum(axis=-1))


def check_measure(measure: str, expected: tuple[str, ...] = MEASURES) -> None:
    """Raise an error if the measure isn't one of those expected."""
    if measure not in expected:
        raise ValueError(f"Got measure={measure!r}, but expected one of {', '.join(expected)}.")


def check_classifier(estimator: Any) -> None:
    """Raise an error if the fitted estimator has no classes."""
    if not hasattr(estimator, "classes_"):
        raise ValueError(
            f"Got {name_of(estimator)}, which has no classes_, but expected a fitted classifier."
        )


def class_indices(y: ArrayLike, classes: ArrayLike) -> NDArray[np.int64]:
    """Return the position of each label in `classes`, which needn't be sorted."""
    labels, known = np.asarray(y), np.asarray(classes)
    unseen = np.setdiff1d(labels, known)
    if unseen.size:
        raise ValueError(
            f"Got labels {unseen.tolist()}, but expected some of the classes {known.tolist()}."
        )
    order = np.argsort(known)
    return np.asarray(order[np.searchsorted(known, labels, sorter=order)])
