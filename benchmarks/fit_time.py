"""Time of a default fit against peers: ratios of interleaved medians.

Run ``python -m benchmarks.fit_time``. Peers come with the extra ``peers``.
"""

from __future__ import annotations

import warnings
from functools import partial

import pandas as pd
from sklearn.datasets import make_classification

from benchmarks._harness import fixed, interleaved_medians, make_parser, save_report
from benchmarks.peers import N_THREADS, PEERS

METHODS = ("FoRDE", "deep ensemble", "CatBoost", "RealMLP-TD", "HistGradientBoosting")


def main() -> None:
    parser = make_parser(__doc__, "fit_time", rows=10_000, columns=20, classes=2, repeats=3)
    parser.add_argument("--methods", nargs="+", choices=PEERS, default=list(METHODS))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    import torch

    torch.set_num_threads(N_THREADS)
    n_rows, n_columns, repeats = arguments.rows, arguments.columns, arguments.repeats
    X, y = make_classification(
        n_rows,
        n_columns,
        n_informative=n_columns // 2,
        n_classes=arguments.classes,
        flip_y=0.1,
        random_state=0,
    )
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(n_columns)])
    calls = {name: partial(PEERS[name](0).fit, frame, y) for name in arguments.methods}
    seconds = pd.Series(interleaved_medians(calls, repeats), name="seconds")
    table = pd.DataFrame({"seconds": seconds, "relative to FoRDE": seconds / seconds["FoRDE"]})
    save_report(
        arguments.output,
        f"{n_rows} rows x {n_columns} numbers, {arguments.classes} classes, medians of {repeats} "
        "interleaved fits",
        fixed(table, 2),
    )


if __name__ == "__main__":
    main()
