"""Drift reports of FoRDE and two peers on development sets, which must equal the benchmark.

Run ``python -m benchmarks.drift``. It raises an error unless every digit is equal, and draws the
picture of docs/drift.md. CatBoost comes with the extra ``peers``, and is left out without it.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd

from benchmarks._harness import fixed, make_parser, save_report
from benchmarks.corruptions import name_of_rows
from benchmarks.datasets import DEVELOPMENT_SETS, Split, split
from benchmarks.peers import PEERS
from benchmarks.table_scores import METRICS, measure
from sklearn_fordes.inspection import DriftReport, drift_scores

METHODS = ("FoRDE", "CatBoost", "random forest")
TABLES = ("credit_data", "cells")
DRAWN = TABLES[0]
PICTURE = Path("docs/drift.png")
# Distinct for the colour-blind, too.
COLORS = ("#0072b2", "#d55e00", "#009e73")


def compare(model: Any, data: Split, seed: int) -> pd.DataFrame:
    """Return a report's scores, after checking that the benchmark's are the same."""
    measured = pd.DataFrame(measure(model, data, seed))
    frame = drift_scores(model, data.X_test, data.y_test, X_train=data.X_train, random_state=seed)
    names = [*map(name_of_rows, frame["corruption"], frame["severity"])]
    report = frame[METRICS].assign(rows=names)[["rows", *METRICS]]
    benchmark = measured[measured["rows"] != "natural shift"]
    if not report.equals(benchmark):
        raise ValueError(f"Got scores\n{report}\nbut expected those of the benchmark\n{benchmark}")
    return report.set_index("rows")


def draw(models: dict[str, Any], data: Split, seed: int, path: Path) -> None:
    """Draw the reports of all models, and of the first one how it depends on each column."""
    mpl.use("agg")
    ax = None
    for (name, model), color in zip(models.items(), COLORS, strict=False):
        report = DriftReport.from_estimator(
            model,
            data.X_test,
            data.y_test,
            X_train=data.X_train,
            columns="each" if ax is None else None,
            n_repeats=5,
            random_state=seed,
            max_columns=10,
            ax=ax,
            name=name,
            color=color,
        )
        ax = report.axes_
    report.figure_.savefig(path, dpi=130)


def main() -> None:
    parser = make_parser(__doc__, "drift", seed=0, max_train=3000, max_test=2000)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    names = [name for name in METHODS if name != "CatBoost" or find_spec("catboost")]
    parts = []
    for table in TABLES:
        data = split(
            DEVELOPMENT_SETS[table](),
            arguments.seed,
            max_train=arguments.max_train,
            max_test=arguments.max_test,
        )
        models = {name: PEERS[name](arguments.seed) for name in names}
        for name, model in models.items():
            scores = compare(model, data, arguments.seed)
            parts.append(f"\n{table}, {name}: every digit as in the benchmark\n{fixed(scores, 4)}")
        if table == DRAWN:
            draw(models, data, arguments.seed, arguments.picture)
    save_report(arguments.output, *parts)


if __name__ == "__main__":
    main()
