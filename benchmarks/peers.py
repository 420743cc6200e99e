"""Classifiers that users would otherwise take, with their defaults, on raw data frames.

Each is a function from a seed to an estimator. What a peer can't read is made readable for it the
usual way: gaps are filled and categories coded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sklearn_fordes import FoRDEClassifier

N_THREADS = int(os.environ.get("PEER_THREADS", "2"))


class Categories(TransformerMixin, BaseEstimator):
    """Strings as pandas categories, those of the training rows; numbers as floats.

    Parameters
    ----------
    fill : bool, default=False
        Whether gaps become the median, or another category.
    as_strings : bool, default=False
        Whether categories stay strings.
    max_levels : int, default=None
        How many levels a category has at most, the most common ones; others are missing.
    """

    def __init__(
        self, *, fill: bool = False, as_strings: bool = False, max_levels: int | None = None
    ) -> None:
        self.fill = fill
        self.as_strings = as_strings
        self.max_levels = max_levels

    def fit(self, X: pd.DataFrame, y: Any = None) -> Categories:
        self.medians_ = X.select_dtypes("number").median()
        self.levels_ = {
            name: sorted(self._strings(X[name]).value_counts().index[: self.max_levels])
            for name in X
            if name not in self.medians_
        }
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        numbers = X[list(self.medians_.index)].astype(float)
        columns = dict(numbers.fillna(self.medians_) if self.fill else numbers)
        for name, levels in self.levels_.items():
            strings = self._strings(X[name])
            if not self.as_strings:
                # Levels that training does not know are missing, which every peer takes.
                strings = strings.where(strings.isin(levels), "missing" if self.fill else None)
                strings = strings.astype(pd.CategoricalDtype(sorted({*levels, "missing"})))
            columns[name] = strings
        return pd.DataFrame(columns, index=X.index)[list(X)]

    def _strings(self, column: pd.Series) -> pd.Series:
        strings = column.astype(object).map(str, na_action="ignore")
        return strings.fillna("missing") if self.fill or self.as_strings else strings

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        return input_features


def one_hot(*, scale: bool) -> Any:
    """Median, indicator of gaps and one-hot columns."""
    numbers = [SimpleImputer(add_indicator=True, keep_empty_features=True)]
    numbers += [StandardScaler()] if scale else []
    categories = OneHotEncoder(handle_unknown="ignore", min_frequency=5, sparse_output=False)
    return make_pipeline(
        Categories(),
        make_column_transformer(
            (make_pipeline(*numbers), make_column_selector(dtype_include="number")),
            (categories, make_column_selector(dtype_exclude="number")),
        ),
    )


def hist_gradient_boosting(seed: int) -> Any:
    return make_pipeline(Categories(), HistGradientBoostingClassifier(random_state=seed))


def random_forest(seed: int) -> Any:
    forest = RandomForestClassifier(500, random_state=seed, n_jobs=N_THREADS)
    return make_pipeline(one_hot(scale=False), forest)


def ten_mlps(seed: int) -> Any:
    seeds = range(100 * seed, 100 * seed + 10)
    mlps = [(f"mlp{s}", MLPClassifier(early_stopping=True, random_state=s)) for s in seeds]
    return make_pipeline(one_hot(scale=True), VotingClassifier(mlps, voting="soft"))


def logistic_regression(seed: int) -> Any:
    return make_pipeline(one_hot(scale=True), LogisticRegression(max_iter=1000, random_state=seed))


def fitted_catboost(name: str, seed: int, X: pd.DataFrame, y: Any, **parameters: Any) -> Any:
    """Fit CatBoost's class of this name; columns that hold no numbers are categories."""
    import catboost

    categories = [column for column in X if not pd.api.types.is_numeric_dtype(X[column])]
    model = getattr(catboost, name)(
        random_seed=seed,
        cat_features=categories,
        thread_count=N_THREADS,
        allow_writing_files=False,
        verbose=False,
        **parameters,
    )
    return model.fit(X, y)


class _CatBoost(BaseEstimator):
    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fit(self, X: pd.DataFrame, y: Any) -> _CatBoost:
        self.model_ = fitted_catboost("CatBoostClassifier", self.seed, X, y)
        self.classes_ = self.model_.classes_
        return self

    def predict_proba(self, X: pd.DataFrame) -> Any:
        return self.model_.predict_proba(X)


def catboost(seed: int) -> Any:
    return make_pipeline(Categories(as_strings=True), _CatBoost(seed))


def xgboost(seed: int) -> Any:
    from xgboost import XGBClassifier

    model = XGBClassifier(enable_categorical=True, random_state=seed, n_jobs=N_THREADS)
    return make_pipeline(Categories(), model)


def from_pytabkit(name: str, seed: int, **parameters: Any) -> Any:
    import pytabkit

    settings = {"n_threads": N_THREADS, "device": "cpu", "verbosity": 0}
    model = getattr(pytabkit, name)(random_state=seed, **(settings | parameters))
    return make_pipeline(Categories(fill=True), model)


def fordes(seed: int, **parameters: Any) -> FoRDEClassifier:
    return FoRDEClassifier(random_state=seed, **parameters)


deep_ensemble = partial(fordes, repulsion="none")
PEERS: dict[str, Callable[[int], Any]] = {
    "FoRDE": fordes,
    "deep ensemble": deep_ensemble,
    "deep ensemble, 30": partial(deep_ensemble, n_members=30),
    "random forest": random_forest,
    "HistGradientBoosting": hist_gradient_boosting,
    "XGBoost": xgboost,
    "ten MLPs": ten_mlps,
    "logistic regression": logistic_regression,
    "CatBoost": catboost,
    "RealMLP-TD": partial(from_pytabkit, "RealMLP_TD_Classifier"),
    "TabM-D": partial(from_pytabkit, "TabM_D_Classifier"),
}
