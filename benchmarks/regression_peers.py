"""Methods that predict the distribution of a number, with their defaults, on raw data frames.

Each is a function from a seed to a model, which has `fit` and `forecast`. What a method can't read
is made readable as for classifiers, see `benchmarks.peers`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import train_test_split

from benchmarks.peers import N_THREADS, Categories, fitted_catboost, from_pytabkit, one_hot
from benchmarks.regression_scores import (
    LEVELS,
    MISCOVERAGE,
    Floats,
    Forecast,
    normal_forecast,
)
from sklearn_fordes import FoRDERegressor


class Fordes:
    """FoRDE: the members' normal densities, or quantiles if ``noise="quantile"``."""

    def __init__(self, seed: int, **parameters: Any) -> None:
        self.model = FoRDERegressor(random_state=seed, **parameters)

    def fit(self, X: pd.DataFrame, y: Floats) -> None:
        self.model.fit(X, y)
        self.members = [] if self.model.noise == "quantile" else self.model.estimators_

    def forecast(self, X: pd.DataFrame) -> Forecast:
        moments = [member.predict(X, return_std=True) for member in self.members]
        means, deviations = np.moveaxis(moments, 1, 0) if moments else (None, None)
        quantiles = self.model.predict_quantiles(X, LEVELS)
        return Forecast(self.model.predict(X), quantiles, (means, deviations) if moments else None)


class ConformalFordes:
    """Intervals alone: FoRDE's mean ± a multiple of its standard deviation.

    A fifth of the training rows, which FoRDE does not see, says which multiple.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fit(self, X: pd.DataFrame, y: Floats) -> None:
        from mapie.regression import SplitConformalRegressor

        X, X_rest, y, y_rest = train_test_split(X, y, test_size=0.2, random_state=self.seed)
        self.model = SplitConformalRegressor(
            FoRDERegressor(random_state=self.seed).fit(X, y),
            confidence_level=1 - MISCOVERAGE,
            conformity_score="std_normalized",
        ).conformalize(X_rest, y_rest)

    def forecast(self, X: pd.DataFrame) -> Forecast:
        intervals = self.model.predict_interval(X)[1]
        quantiles = np.full((len(X), len(LEVELS)), np.nan)
        quantiles[:, [0, -1]] = intervals[:, :, 0]
        return Forecast(np.full(len(X), np.nan), quantiles)


class CatBoost:
    """A mean alone."""

    parameters: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fit(self, X: pd.DataFrame, y: Floats) -> None:
        self.readable = Categories(as_strings=True).fit(X)
        X = self.readable.transform(X)
        self.model = fitted_catboost("CatBoostRegressor", self.seed, X, y, **self.parameters)

    def forecast(self, X: pd.DataFrame) -> Forecast:
        mean = self.model.predict(self.readable.transform(X))
        return Forecast(mean, np.full((len(X), len(LEVELS)), np.nan))


class CatBoostUncertainty(CatBoost):
    """A normal density: the variance is that of the virtual ensemble's means plus their noise."""

    parameters = {"loss_function": "RMSEWithUncertainty", "posterior_sampling": True}  # noqa: RUF012

    def forecast(self, X: pd.DataFrame) -> Forecast:
        mean, knowledge, noise = self.model.virtual_ensembles_predict(
            self.readable.transform(X), prediction_type="TotalUncertainty", thread_count=N_THREADS
        ).T
        return normal_forecast(mean, np.sqrt(knowledge + noise))


class BoostedQuantiles:
    """Histogram gradient boosting: a model for each level, in order, and one of the mean."""

    def __init__(self, seed: int) -> None:
        losses = [{"loss": "quantile", "quantile": level} for level in LEVELS]
        self.mean, *self.quantiles = (
            HistGradientBoostingRegressor(random_state=seed, **loss) for loss in ({}, *losses)
        )

    def fit(self, X: pd.DataFrame, y: Floats) -> None:
        # It takes no more levels.
        self.readable = Categories(max_levels=250).fit(X)
        X = self.readable.transform(X)
        for model in (self.mean, *self.quantiles):
            model.fit(X, y)

    def forecast(self, X: pd.DataFrame) -> Forecast:
        X = self.readable.transform(X)
        quantiles = np.stack([model.predict(X) for model in self.quantiles], axis=1)
        return Forecast(self.mean.predict(X), np.sort(quantiles, axis=1))


class ForestQuantiles:
    """A quantile regression forest."""

    def __init__(self, seed: int) -> None:
        from quantile_forest import RandomForestQuantileRegressor

        self.readable = one_hot(scale=False)
        self.model = RandomForestQuantileRegressor(500, random_state=seed, n_jobs=N_THREADS)

    def fit(self, X: pd.DataFrame, y: Floats) -> None:
        self.model.fit(self.readable.fit_transform(X), y)

    def forecast(self, X: pd.DataFrame) -> Forecast:
        X = self.readable.transform(X)
        return Forecast(
            self.model.predict(X, quantiles="mean"), self.model.predict(X, quantiles=[*LEVELS])
        )


class RealMLPQuantiles:
    """RealMLP-TD trained on the pinball losses of all levels, and another one of the mean."""

    def __init__(self, seed: int) -> None:
        loss = f"multi_pinball({','.join(f'{level:.2f}' for level in LEVELS)})"
        metrics = {"train_metric_name": loss, "val_metric_name": loss}
        self.mean = from_pytabkit("RealMLP_TD_Regressor", seed)
        self.quantiles = from_pytabkit("RealMLP_TD_Regressor", seed, **metrics)

    def fit(self, X: pd.DataFrame, y: Floats) -> None:
        self.mean.fit(X, y)
        self.quantiles.fit(X, y)

    def forecast(self, X: pd.DataFrame) -> Forecast:
        return Forecast(*(model.predict(X).astype(float) for model in (self.mean, self.quantiles)))


OURS: dict[str, Callable[[int], Any]] = {
    "FoRDE": Fordes,
    "FoRDE, quantile": partial(Fordes, noise="quantile"),
    "deep ensemble": partial(Fordes, repulsion="none"),
    "FoRDE + MAPIE": ConformalFordes,
}
PEERS: dict[str, Callable[[int], Any]] = {
    "CatBoost, uncertainty": CatBoostUncertainty,
    "CatBoost": CatBoost,
    "HGB quantiles": BoostedQuantiles,
    "forest quantiles": ForestQuantiles,
    "RealMLP": RealMLPQuantiles,
}
METHODS = OURS | PEERS
