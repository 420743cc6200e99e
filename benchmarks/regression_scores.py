"""Scores of predictive distributions of a number, on clean, corrupted and shifted test rows.

Every score but the coverage is of the target in units of its standard deviation in the training
rows, so that tables compare.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.metrics import root_mean_squared_error

from benchmarks.recipes_of_tables import Split
from benchmarks.table_scores import kinds_of_rows
from sklearn_fordes.inspection._scores import CONFIDENCE, LEVELS, crps, interval_scores

MISCOVERAGE = 1 - CONFIDENCE  # of the interval between the outer two levels
SCORES = ["rmse", "crps", "coverage", "width", "interval", "nll"]

Floats = NDArray[np.float64]


class Forecast(NamedTuple):
    """What a method says of test rows; NaN or None where it says nothing.

    Quantiles are of shape (n_rows, n_levels). The density is a mixture of normal ones, with means
    and standard deviations of shape (n_parts, n_rows).
    """

    mean: Floats
    quantiles: Floats
    normals: tuple[Floats, Floats] | None = None


def normal_forecast(mean: Floats, deviation: Floats) -> Forecast:
    """Return a forecast of one normal density for each row."""
    quantiles = mean[:, None] + deviation[:, None] * norm.ppf(LEVELS)
    return Forecast(mean, quantiles, (mean[None], deviation[None]))


def nll(y: Floats, means: Floats, deviations: Floats) -> float:
    """Return the mean negative log density of an equal mixture of normal densities."""
    logs = norm.logpdf(y, means, deviations)
    return float(np.mean(np.log(len(means)) - logsumexp(logs, axis=0)))


def score(y: Floats, forecast: Forecast, scale: float) -> dict[str, float]:
    """Return every score of a forecast, with targets divided by `scale`; NaN for what it lacks."""
    scores = dict.fromkeys(SCORES, np.nan)
    if not np.isnan(forecast.mean).any():
        scores["rmse"] = root_mean_squared_error(y, forecast.mean) / scale
    outer = forecast.quantiles[:, [0, -1]]
    if not np.isnan(outer).any():
        of_intervals = interval_scores(y, outer)
        scores["coverage"] = of_intervals["coverage"]
        scores["width"] = of_intervals["width"] / scale
        scores["interval"] = of_intervals["interval_score"] / scale
    if not np.isnan(forecast.quantiles).any():
        scores["crps"] = crps(y, forecast.quantiles) / scale
    if forecast.normals is not None:
        scores["nll"] = nll(y, *forecast.normals) - np.log(scale)
    return scores


def measure(model: Any, data: Split, seed: int) -> list[dict[str, Any]]:
    """Fit a model to one split and score its forecasts on every kind of test rows."""
    model.fit(data.X_train, data.y_train)
    scale = float(np.std(data.y_train))
    return [
        {"rows": rows, **score(y, model.forecast(X), scale), "deviation": scale}
        for rows, (X, y) in kinds_of_rows(data, seed).items()
    ]
