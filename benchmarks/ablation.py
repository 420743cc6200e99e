"""What each ingredient of the default classifier is worth, on and off: the development sets.

Run ``python -m benchmarks.ablation``; it goes on where it stopped. Ratios are to the default, so
that those above one say what an ingredient gains. No result is reported on these sets.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from benchmarks._harness import fixed, make_parser, save_report
from benchmarks.datasets import DEVELOPMENT_SETS
from benchmarks.peers import fordes
from benchmarks.summaries import FORDE, conditions_of, describe, log_ratios
from benchmarks.systems import NO_REPULSION
from benchmarks.table_scores import run_tables
from sklearn_fordes import CellCorruption
from sklearn_fordes.preprocessing import TabularEncoder

TOLD_NOTHING = {"augmentation": None}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    FORDE: {},
    "no repulsion": NO_REPULSION,
    "no augmentation": TOLD_NOTHING,
    "neither": {**TOLD_NOTHING, **NO_REPULSION},
    "all members exposed": {"augmentation": CellCorruption(exposed=1.0)},
    "no swapped cells": {"augmentation": CellCorruption(swapped=0.0)},
    "no blanked cells": {"augmentation": CellCorruption(blanked=0.0)},
    "no noise": {"augmentation": CellCorruption(noise=0.0)},
    "a tenth held out": {"validation_fraction": 0.1},
    "no ranks": {"encoder": TabularEncoder(gap_indicators="all", rank_share=0.0)},
    "3 × 128, dropout 0.2": {"hidden_layer_sizes": (128, 128, 128), "module__dropout": 0.2},
}


def summarise(scores: pd.DataFrame) -> pd.DataFrame:
    """Return geometric means over sets of ratios to the default; standard errors of logs."""
    ratio = log_ratios(scores["nll"], FORDE).drop(columns=FORDE)
    return pd.DataFrame(
        {
            "ratio": np.exp(ratio.mean()),
            "standard error": ratio.sem(),
            "median": np.exp(ratio.median()),
            "share of sets above 1": (ratio > 0).mean(),
            "sets": ratio.count(),
        }
    )


def main() -> None:
    parser = make_parser(__doc__, "ablation", seeds=3, max_train=3000, max_test=2000)
    parser.add_argument("--only", nargs="+", choices=CONFIGURATIONS, default=[*CONFIGURATIONS])
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    results = run_tables(
        arguments.output.with_suffix(".csv"),
        DEVELOPMENT_SETS,
        {name: partial(fordes, **CONFIGURATIONS[name]) for name in arguments.only},
        seeds=arguments.seeds,
        max_train=arguments.max_train,
        max_test=arguments.max_test,
    )
    parts = [
        f"\nNLL relative to the default's, {condition}\n{fixed(summarise(scores), 3)}"
        for condition, scores in conditions_of(results).items()
    ]
    save_report(arguments.output.with_suffix(".txt"), describe(results), *parts)


if __name__ == "__main__":
    main()
