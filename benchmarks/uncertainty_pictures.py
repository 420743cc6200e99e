"""Draw the pictures of docs/uncertainty.md: intervals beyond the range, and cells of later rows.

Run ``python -m benchmarks.uncertainty_pictures``; it fits two regressors with their defaults, in
about two minutes on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np

from benchmarks._harness import describe_environment
from benchmarks.regression_tables import USED_SETS, split
from sklearn_fordes import FoRDERegressor
from sklearn_fordes.inspection import IntervalDisplay, SupportDisplay

# Columns of the concrete table, their units, and how far to look, in standard deviations.
COLUMNS = {"cement": ("cement (kg/m³)", 5.0), "water": ("water (kg/m³)", 5.0)}


def draw_intervals(path: Path, seed: int) -> None:
    """Draw the strength of concrete as one ingredient leaves its range, and where it is missing."""
    import matplotlib.pyplot as plt

    concrete = USED_SETS["concrete"]()
    model = FoRDERegressor(random_state=seed).fit(concrete.X, concrete.y)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    for axis, (feature, (label, eps)) in zip(axes, COLUMNS.items(), strict=True):
        options = {"feature": feature, "confidence": (0.5, 0.9), "eps": eps}
        display = IntervalDisplay.from_estimator(model, concrete.X, ax=axis, **options)
        widths = display.intervals[0, :, 1] - display.intervals[0, :, 0]
        low, high = display.training_range or (-np.inf, np.inf)
        is_inside = (low <= display.x) & (display.x <= high)
        print(
            f"{feature}: the 90 % interval is {np.median(widths[is_inside]):.0f} MPa wide in the "
            f"training range (median), {widths[0]:.0f} and {widths[-2]:.0f} at the two ends, and "
            f"{widths[-1]:.0f} where it is missing"
        )
        axis.set(xlabel=label, ylabel="compressive strength (MPa)")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(loc="upper left", frameon=False)
    axes[1].get_legend().remove()
    axes[1].set_ylabel("")
    figure.savefig(path / "intervals.png", dpi=130)


def draw_support(path: Path, seed: int) -> None:
    """Draw the cells of later bookings that earlier ones say nothing of."""
    import matplotlib.pyplot as plt

    data = split(USED_SETS["hotel_rates"](), seed, max_train=3000, max_test=3000)
    model = FoRDERegressor(random_state=seed).fit(data.X_train, data.y_train)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for axis, measure in zip(axes, ("share", "surprise"), strict=True):
        display = SupportDisplay.from_estimator(model, data.X_shifted, measure=measure, ax=axis)
        axis.spines[["top", "right"]].set_visible(False)
        axis.get_legend().set_frame_on(False)
    axes[0].get_legend().remove()
    print("\n", display.columns, display.lengths.round(3))
    figure.savefig(path / "support.png", dpi=130)
    for kind, rows in {"test": data.X_test, "later": data.X_shifted}.items():
        parts, score = model.predict_uncertainty(rows), model.ood_score(rows)
        means = {name: float(part.mean().round(1)) for name, part in parts._asdict().items()}
        print(f"{kind} rows: {means}, ood_score {score.mean():.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("docs"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    mpl.use("agg")
    print(describe_environment())
    arguments.folder.mkdir(parents=True, exist_ok=True)
    draw_intervals(arguments.folder, arguments.seed)
    draw_support(arguments.folder, arguments.seed)


if __name__ == "__main__":
    main()
