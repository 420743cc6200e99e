"""How much a model could gain under corrupted input: a deep ensemble that knows what comes.

Run ``python -m benchmarks.headroom``; it goes on where it stopped. The informed deep ensemble is
trained on the rows and on copies of them under each corruption of the test rows. It bounds,
roughly, what is lost with the information and what for want of robustness. It is not a peer: no
user knows the corruptions beforehand.
"""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from benchmarks._harness import make_parser, save_report
from benchmarks.corruptions import corrupted_copies
from benchmarks.datasets import FIRST_REPORTING_SETS
from benchmarks.peers import deep_ensemble, fordes
from benchmarks.scores import Labels
from benchmarks.summaries import conditions_of, log_ratios
from benchmarks.systems import DEEP_ENSEMBLE
from benchmarks.table_scores import run_tables
from sklearn_fordes import FoRDEClassifier

INFORMED = "informed deep ensemble"


class Informed(FoRDEClassifier):
    """Deep ensemble trained on clean and on corrupted rows."""

    def fit(self, X: pd.DataFrame, y: Labels) -> Informed:
        seed = self.random_state
        train, valid = train_test_split(
            np.arange(len(y)), test_size=0.1, stratify=y, random_state=seed
        )
        parts = []
        for rows in (train, valid):
            # The test rows' copies come from the same function, so the seed is another.
            copies = corrupted_copies(X.iloc[rows], X.iloc[train], 1000 + seed)
            parts += [pd.concat([X.iloc[rows], *copies.values()], ignore_index=True)]
            parts += [np.tile(y[rows], 1 + len(copies))]
        X_train, y_train, X_valid, y_valid = parts
        return super().fit(X_train, y_train, X_val=X_valid, y_val=y_valid)


METHODS = {
    "FoRDE": partial(fordes, augmentation=None),
    DEEP_ENSEMBLE: partial(deep_ensemble, augmentation=None),
    INFORMED: lambda seed: Informed(repulsion="none", augmentation=None, random_state=seed),
}


def report(results: pd.DataFrame) -> str:
    """Return NLLs under shift by set, with ratios to the deep ensemble's."""
    parts = {name: part["nll"] for name, part in conditions_of(results).items()}
    log_ratio = log_ratios(parts["shifted"], DEEP_ENSEMBLE)[["FoRDE", INFORMED]]
    log_ratio.loc["mean"] = log_ratio.mean()
    table = np.exp(log_ratio).round(3)
    for condition in ("shifted", "clean"):
        loss = parts[condition].xs(DEEP_ENSEMBLE, level="method").groupby("set").mean()
        table[f"deep ensemble, {condition}"] = loss.round(3)
    return f"NLL under shift relative to the deep ensemble's\n{table.to_string()}"


def main() -> None:
    arguments = make_parser(__doc__, "headroom", seeds=3).parse_args()
    warnings.filterwarnings("ignore")
    path, limits = arguments.output, {"max_train": 2000, "max_test": 3000}
    results = run_tables(
        path.with_suffix(".csv"), FIRST_REPORTING_SETS, METHODS, seeds=arguments.seeds, **limits
    )
    save_report(path.with_suffix(".txt"), report(results))


if __name__ == "__main__":
    main()
