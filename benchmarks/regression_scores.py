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

from benchmarks.recipes_of_tables import Split
from benchmarks.table_scores import kinds_of_rows

# The midpoints of ten equal parts: the mean over levels of twice the pinball loss is the continuous
# ranked probability score (CRPS) of ten equally likely values at the quantiles.
LEVELS = (np.arange(10) + 0.5) / 10
MISCOVERAGE = 0.1  # of the interval between the outer two
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


def pinball(y: Floats, quantiles: Floats) -> Floats:
    """Return the mean over levels of the pinball loss of each row."""
    above = y[:, None] - quantiles
    return np.maximum(LEVELS * above, (LEVELS - 1) * above).mean(axis=1)


def interval_score(y: Floats, low: Floats, high: Floats) -> Floats:
    """Return the width of each interval, and 2 / `MISCOVERAGE` for each unit outside of it."""
    outside = np.maximum(low - y, 0) + np.maximum(y - high, 0)
    return high - low + 2 / MISCOVERAGE * outside


def nll(y: Floats, means: Floats, deviations: Floats) -> float:
    """Return the mean negative log density of an equal mixture of normal densities."""
    logs = norm.logpdf(y, means, deviations)
    return float(np.mean(np.log(len(means)) - logsumexp(logs, axis=0)))


def score(y: Floats, forecast: Forecast, scale: float) -> dict[str, float]:
    """Return every score of a forecast, with targets divided by `scale`."""
    low, high = forecast.quantiles[:, 0], forecast.quantiles[:, -1]
    is_inside = np.where(np.isnan(high - low), np.nan, (low <= y) & (y <= high))
    density = np.nan if forecast.normals is None else nll(y, *forecast.normals) - np.log(scale)
    return {
        "rmse": np.mean((y - forecast.mean) ** 2) ** 0.5 / scale,
        "crps": 2 * np.mean(pinball(y, forecast.quantiles)) / scale,
        "coverage": np.mean(is_inside),
        "width": np.mean(high - low) / scale,
        "interval": np.mean(interval_score(y, low, high)) / scale,
        "nll": density,
    }


def measure(model: Any, data: Split, seed: int) -> list[dict[str, Any]]:
    """Fit a model to one split and score its forecasts on every kind of test rows."""
    model.fit(data.X_train, data.y_train)
    scale = float(np.std(data.y_train))
    return [
        {"rows": rows, **score(y, model.forecast(X), scale), "deviation": scale}
        for rows, (X, y) in kinds_of_rows(data, seed).items()
    ]
