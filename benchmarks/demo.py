"""A single net, a deep ensemble and FoRDE on credit data, clean and corrupted.

Prints a table and saves a picture. Run ``make demo``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks._harness import describe_environment, fixed
from benchmarks.corruptions import corrupted_copies
from benchmarks.datasets import DEVELOPMENT_SETS, split
from benchmarks.scores import Labels, accuracy, expected_calibration_error, nll, reliability
from sklearn_fordes import FoRDEClassifier
from sklearn_fordes.inspection._diversity import mean_cosine

METHODS: dict[str, dict[str, Any]] = {
    "single net": {"n_members": 1, "augmentation": None},
    "deep ensemble": {"repulsion": "none", "augmentation": None},
    "the same, corrupted rows": {"repulsion": "none"},
    "FoRDE": {},
}
COLORS = dict(zip(METHODS, ("#8c8c8c", "#3b6fb6", "#5aa469", "#d1495b"), strict=True))
SCORES = {"NLL": nll, "accuracy": accuracy, "ECE": expected_calibration_error}


class Fit(NamedTuple):
    """A fitted model, the seconds it took, and its probabilities by kind of test rows."""

    model: FoRDEClassifier
    seconds: float
    probabilities: dict[str, NDArray[np.float64]]

    def scores(self, y: Labels) -> dict[str, float]:
        clean, *corrupted = self.probabilities.values()
        scores = {}
        for name, score in SCORES.items():
            scores[f"{name} clean"] = score(y, clean)
            scores[f"{name} corrupted"] = np.mean([score(y, copy) for copy in corrupted])
        return scores | {"seconds": self.seconds}


def draw_losses(axis: Any, fits: dict[str, Fit], y: Labels) -> None:
    for name, fit in fits.items():
        losses = {kind: nll(y, probabilities) for kind, probabilities in fit.probabilities.items()}
        axis.scatter([*losses.values()], [*losses], color=COLORS[name], label=name, s=60, zorder=2)
    axis.invert_yaxis()
    axis.grid(axis="y", alpha=0.4)
    axis.set(xlabel="NLL (nats), test rows", title="Loss as the input drifts")
    axis.legend(frameon=False)


def draw_reliability(axis: Any, fits: dict[str, Fit], y: Labels) -> None:
    axis.plot([0.5, 1], [0.5, 1], color="black", lw=0.8, ls=":")
    for name, fit in fits.items():
        _, *corrupted = fit.probabilities.values()
        bins = reliability(np.tile(y, len(corrupted)), np.concatenate(corrupted), 20)
        filled = bins.share > 0
        points = bins.confidence[filled], bins.accuracy[filled]
        axis.plot(*points, color=COLORS[name], lw=1.2)
        axis.scatter(*points, s=400 * bins.share[filled], color=COLORS[name], alpha=0.7, lw=0)
    title = "Reliability over all six corruptions\n(area: share of rows)"
    axis.set(xlabel="confidence", ylabel="accuracy", title=title)


def draw_likeness(axis: Any, name: str, cosines: NDArray[np.float64]) -> Any:
    others = cosines[~np.eye(len(cosines), dtype=bool)].mean()
    title = f"{name}: cosine of members'\ninput gradients, mean {others:.2f}"
    ticks = range(0, 10, 3)
    image = axis.imshow(cosines, vmin=0, vmax=1, cmap="magma")
    axis.set(title=title, xlabel="member", xticks=ticks, yticks=ticks)
    return image


def draw(path: Path, fits: dict[str, Fit], X: pd.DataFrame, y: Labels) -> None:
    """Draw loss by corruption, reliability under shift, and how alike the members are."""
    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(17, 4.2), width_ratios=(1.25, 1.1, 1, 1.08))
    draw_losses(axes[0], fits, y)
    draw_reliability(axes[1], fits, y)
    for axis, name in zip(axes[2:], ("deep ensemble", "FoRDE"), strict=True):
        cosines = mean_cosine(fits[name].model.input_gradients(X, y))
        image = draw_likeness(axis, name, cosines)
    figure.colorbar(image, ax=axes[3], fraction=0.046)
    for axis in axes[:2]:
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", type=Path, default=Path("build/demo.png"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    seed = arguments.seed
    credit = DEVELOPMENT_SETS["credit_data"]()
    data = split(credit, seed, max_train=len(credit.y), max_test=len(credit.y))
    X, y = data.X_test, data.y_test
    print(f"credit_data: {len(data.y_train)} training rows, {len(y)} test rows, seed {seed}")
    print(describe_environment())

    copies = {"clean": X, **corrupted_copies(X, data.X_train, seed)}
    fits = {}
    for name, parameters in METHODS.items():
        print(f"\n{name}")
        model = FoRDEClassifier(random_state=seed, verbose=1, **parameters)
        start = time.perf_counter()
        model.fit(data.X_train, data.y_train)
        seconds = time.perf_counter() - start
        probabilities = {kind: model.predict_proba(copy) for kind, copy in copies.items()}
        fits[name] = Fit(model, seconds, probabilities)
    print("\nCorrupted: mean over six corruptions of the test rows.")
    print(fixed(pd.DataFrame({name: fit.scores(y) for name, fit in fits.items()}).T, 3))
    draw(arguments.picture, fits, X, y)
    print(f"\nPicture: {arguments.picture}")


if __name__ == "__main__":
    main()
