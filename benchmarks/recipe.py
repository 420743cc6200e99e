"""Where the defaults come from, and what each part of the recipe is worth: the development sets.

Run ``python -m benchmarks.recipe``; it goes on where it stopped. Scores are relative to the plain
deep ensemble of the same nets and recipe. No result is reported on these sets.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.datasets import DEVELOPMENT_SETS
from benchmarks.environment import describe_environment
from benchmarks.summaries import describe, ratio_table, report, write_generated
from benchmarks.tables import RESULTS, run
from sklearn_fordes import FoRDEClassifier

PAGE = Path("docs/method.md")
NO_REPULSION = {"repulsion": "none"}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "deep ensemble": NO_REPULSION,
    "FoRDE": {},
    "strength .1": {"repulsion_strength": 0.1},
    "strength 1": {"repulsion_strength": 1.0},
    "constant strength 20": {"repulsion_strength": 20.0, "relative_strength": False},
    "every row": {"repulsion_fraction": 1.0},
    "every step": {"repulsion_period": 1},
    "pca": {"lengthscale": "pca"},
    "logit": {"gradient_target": "logit"},
    "no embedding": {"module__embedded_features": ()},
    "no embedding, none": {"module__embedded_features": (), **NO_REPULSION},
    "no averaging": {"ema_decay": 0.0},
    "no averaging, none": {"ema_decay": 0.0, **NO_REPULSION},
    "no dropout": {"module__dropout": 0.0},
    "no dropout, none": {"module__dropout": 0.0, **NO_REPULSION},
    "2 × 64": {"hidden_layer_sizes": (64, 64)},
    "2 × 64, none": {"hidden_layer_sizes": (64, 64), **NO_REPULSION},
    "2 × 256": {"hidden_layer_sizes": (256, 256)},
    "2 × 256, none": {"hidden_layer_sizes": (256, 256), **NO_REPULSION},
}


def make_model(seed: int, **parameters: Any) -> FoRDEClassifier:
    return FoRDEClassifier(random_state=seed, **parameters)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS / "recipe")
    parser.add_argument("--page", action="store_true", help="write docs/method.md's table")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    methods: dict[str, Callable[[int], Any]] = {
        name: partial(make_model, **parameters) for name, parameters in CONFIGURATIONS.items()
    }
    path = arguments.output.with_suffix(".csv")
    sets = DEVELOPMENT_SETS
    run(path, sets, methods, seeds=arguments.seeds, max_train=1500, max_test=1500)
    results = pd.read_csv(path)
    text = f"{describe_environment()}\n{report(results)}"
    print(text)
    arguments.output.with_suffix(".txt").write_text(text)
    if arguments.page:
        write_generated(PAGE, "recipe", f"{describe(results)}\n\n{ratio_table(results)}")


if __name__ == "__main__":
    main()
