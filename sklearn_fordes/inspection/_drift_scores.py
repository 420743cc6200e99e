"""Scores of an estimator as the cells of a table go wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils import check_scalar
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
)

from sklearn_fordes._warnings import warn
from sklearn_fordes.inspection._corruptions import (
    changes_of,
    generator_of,
    read_tables,
    seed_of,
    severities_of,
)
from sklearn_fordes.inspection._display import find_position
from sklearn_fordes.inspection._scores import Scores, make_scorer

CLEAN = "clean"


def drift_scores(
    estimator: Any,
    X: Any,
    y: ArrayLike,
    *,
    X_train: Any = None,
    corruptions: Mapping[str, ArrayLike] | None = None,
    columns: str | Sequence[Any] | None = None,
    n_repeats: int = 1,
    random_state: Any = 0,
    sample_weight: ArrayLike | None = None,
    error_score: float | str = np.nan,
) -> pd.DataFrame:
    """Score an estimator on a table, clean and under noise, swapped and missing cells.

    Parameters
    ----------
    estimator : estimator
        Any fitted classifier or regressor, or a pipeline or search that ends in one.
    X : data frame, array or list of lists of shape (n_samples, n_features)
        Raw rows that it wasn't trained on. The estimator gets the copies in the same container.
    y : array-like of shape (n_samples,)
        Their labels or targets.
    X_train : like X, of shape (n_train, n_features), default=None
        Rows that give standard deviations and the values that are swapped in. None is X.
    corruptions : dict of str to float or sequence of float, default=None
        Severities of each kind, as in `corrupted_copies`.
    columns : "each" or list of str or int, default=None
        Columns, by name or position, of which each is also corrupted alone, at the largest severity
        of each kind. The same cells go wrong in it as when all columns are corrupted.
    n_repeats : int, default=1
        Number of draws of each corruption.
    random_state : int, RandomState instance or None, default=0
        Seed of the draws.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows in all scores.
    error_score : "raise" or float, default=np.nan
        What becomes of an error that the estimator raises on corrupted rows. With "raise" it is
        raised. With a number the scores are this number, the column "error" says why, and a warning
        names the corruption. Errors on clean rows are always raised.

    Returns
    -------
    frame : pandas DataFrame
        A row for the clean table, one for each corruption and repeat, and then one for each column
        alone.

        - ``corruption``, ``severity``: "clean" with 0, or a kind with one of its severities.
        - ``column``: the only column that is corrupted; None if all are.
        - ``repeat``: number of the draw, from 0.
        - Of a classifier ``nll`` (log loss in nats), ``accuracy``, ``ece`` (expected calibration
          error of the predicted class, over 15 bins) and ``brier``, a sum over classes; the
          accuracy alone if it has no `predict_proba`.
        - Of a regressor ``rmse``, ``mae`` and ``r2``; for `predict_interval` with a `confidence`
          also ``coverage``, mean ``width`` and ``interval_score`` of 90 % intervals; for
          `predict_quantiles` also ``crps``, twice the mean pinball loss over the levels 0.05, 0.15,
          …, 0.95.
        - ``error``: what the estimator raised, or None.

    See Also
    --------
    DriftReport : The picture.
    corrupted_copies : The tables themselves.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_fordes.inspection import drift_scores
    >>> X, y = load_iris(return_X_y=True)
    >>> model = LogisticRegression(max_iter=500).fit(X[::2], y[::2])
    >>> frame = drift_scores(model, X[1::2], y[1::2], corruptions={"noise": [0.5, 1]})
    >>> frame[["corruption", "severity", "accuracy"]].round(2)
      corruption  severity  accuracy
    0      clean       0.0      0.96
    1      noise       0.5      0.84
    2      noise       1.0      0.69
    """
    check_is_fitted(estimator)
    check_scalar(n_repeats, "n_repeats", Integral, min_val=1)
    if not (error_score == "raise" or isinstance(error_score, Real)):
        raise ValueError(f"Got error_score={error_score!r}, but expected 'raise' or a number.")
    table, train = read_tables(X, X_train)
    check_consistent_length(table, y, sample_weight)
    weights = None
    if sample_weight is not None:
        weights = _check_sample_weight(
            sample_weight, np.empty(len(table)), dtype=np.float64, ensure_non_negative=True
        )
    places = places_of(columns, table.names)
    pairs, seed = severities_of(corruptions), seed_of(random_state)
    largest = dict(pairs)
    score = make_scorer(estimator, y, weights)
    # Errors on clean rows are the user's to see.
    clean = score(X)
    score = score if error_score == "raise" else guarded(score, clean, float(error_score))
    whole, by_column = [{**key_of(CLEAN), **clean, "error": None}], []
    for (index, (kind, severity)), repeat in product(enumerate(pairs), range(n_repeats)):
        rng = generator_of(seed, index, repeat)
        changes = changes_of(table, train, kind, severity, rng)
        key = key_of(kind, severity, repeat=repeat)
        whole.append({**key, **score(table.with_changes(changes))})
        for place in places if severity == largest[kind] else ():
            rows = table.with_changes({place: changes[place]})
            by_column.append({**key, "column": table.names[place], **score(rows)})
    frame = pd.DataFrame([*whole, *by_column])
    for name in ("column", "error"):
        # None stays None, whatever pandas thinks of text with gaps.
        values = [row.get(name) for row in (*whole, *by_column)]
        frame[name] = pd.Series(values, dtype=object)
    if errors := errors_of(frame):
        lines = "".join(f"\n- {name}: {error}" for name, error in errors.items())
        warn(f"The estimator refuses corrupted rows, and has no scores there:{lines}")
    return frame


def key_of(kind: str, severity: float = 0.0, column: Any = None, repeat: int = 0) -> dict[str, Any]:
    """Return the first columns of a row of `drift_scores`."""
    return {"corruption": kind, "severity": severity, "column": column, "repeat": repeat}


def guarded(
    score: Callable[[Any], Scores], clean: Scores, value: float
) -> Callable[[Any], dict[str, Any]]:
    """Return the scorer with an entry for what the estimator raises, of scores that are `value`."""

    def score_or_say_why(X: Any) -> dict[str, Any]:
        try:
            return {**score(X), "error": None}
        except Exception as error:  # Estimators raise what they like.
            return {**dict.fromkeys(clean, value), "error": f"{type(error).__name__}: {error}"}

    return score_or_say_why


def errors_of(frame: pd.DataFrame) -> dict[str, str]:
    """Return the first error of each corruption that has one."""
    errors: dict[str, str] = {}
    columns = (frame[name] for name in ("corruption", "severity", "error"))
    for kind, severity, error in zip(*columns, strict=True):
        if pd.notna(error):
            errors.setdefault(f"{kind} {severity:g}", error)
    return errors


def places_of(columns: str | Sequence[Any] | None, names: list[Any]) -> list[int]:
    """Return the positions of columns that are given by name or position."""
    if columns is None:
        return []
    if isinstance(columns, str):
        if columns != "each":
            raise ValueError(f"Got columns={columns!r}, but expected None, 'each' or a list.")
        return list(range(len(names)))
    if not isinstance(columns, Iterable):
        raise ValueError(f"Got columns={columns!r}, but expected None, 'each' or a list.")
    return [find_position(names, column) for column in columns]
