"""Where the defaults come from, and what each part of the recipe is worth.

Run ``python -m benchmarks.recipe``; it goes on where it stopped. The tables are the first eight
development sets. Scores are relative to the plain deep ensemble of the same nets and recipe. No
result is reported on these sets.
"""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks._harness import make_parser, save_report
from benchmarks.datasets import FIRST_DEVELOPMENT_SETS
from benchmarks.peers import fordes
from benchmarks.summaries import describe, ratio_table, report, write_generated
from benchmarks.systems import NO_REPULSION, repelling
from benchmarks.table_scores import run_tables

PAGE = Path("docs/defaults.md")
# No member trains on corrupted rows, so that shifted losses show what the other parts are worth.
BEFORE = {"augmentation": None}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "deep ensemble": NO_REPULSION,
    "FoRDE": {},
    "strength .1": {"repulsion_strength": 0.1},
    "strength 1": {"repulsion_strength": 1.0},
    "constant strength 20": {"repulsion_strength": 20.0, **repelling(relative=False)},
    "every row": repelling(fraction=1.0),
    "every step": repelling(period=1),
    "pca": {"lengthscale": "pca"},
    "logit": repelling(target="logit"),
}
PARTS: dict[str, dict[str, Any]] = {
    "no embedding": {"module__embedded_features": ()},
    "no averaging": {"ema_decay": 0.0},
    "no dropout": {"module__dropout": 0.0},
    "2 × 64": {"hidden_layer_sizes": (64, 64)},
    "2 × 256": {"hidden_layer_sizes": (256, 256)},
}
for _name, _part in PARTS.items():
    CONFIGURATIONS |= {_name: _part, f"{_name}, none": {**_part, **NO_REPULSION}}


def main() -> None:
    parser = make_parser(__doc__, "recipe", seeds=3)
    parser.add_argument("--page", action="store_true", help="write docs/defaults.md's table")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    results = run_tables(
        arguments.output.with_suffix(".csv"),
        FIRST_DEVELOPMENT_SETS,
        {name: partial(fordes, **{**BEFORE, **added}) for name, added in CONFIGURATIONS.items()},
        seeds=arguments.seeds,
        max_train=1500,
        max_test=1500,
    )
    save_report(arguments.output.with_suffix(".txt"), report(results))
    if arguments.page:
        write_generated(PAGE, "recipe", f"{describe(results)}\n\n{ratio_table(results)}")


if __name__ == "__main__":
    main()
