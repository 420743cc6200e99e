"""Time of a default fit against the peers that are networks too: ratios of interleaved medians.

Run ``python -m benchmarks.fit_time``. Peers come with the extra ``peers``.
"""

from __future__ import annotations

import argparse
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import make_classification

from benchmarks.environment import describe_environment
from benchmarks.peers import N_THREADS, PEERS
from benchmarks.timing import interleaved_medians

METHODS = ("FoRDE", "deep ensemble", "RealMLP-TD", "TabM-D", "HistGradientBoosting")


def fit(name: str, X: pd.DataFrame, y: np.ndarray) -> None:
    PEERS[name](0).fit(X, y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", nargs="+", choices=PEERS, default=list(METHODS))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/fit_time.txt"))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    import torch

    torch.set_num_threads(N_THREADS)
    X, y = make_classification(
        arguments.rows,
        arguments.columns,
        n_informative=arguments.columns // 2,
        flip_y=0.1,
        random_state=0,
    )
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(arguments.columns)])
    calls = {name: partial(fit, name, frame, y) for name in arguments.methods}
    seconds = pd.Series(interleaved_medians(calls, arguments.repeats), name="seconds")
    table = pd.DataFrame({"seconds": seconds, "relative to FoRDE": seconds / seconds["FoRDE"]})
    text = (
        f"{describe_environment()}\n{arguments.rows} rows x {arguments.columns} numbers, "
        f"medians of {arguments.repeats} interleaved fits\n{table.round(2).to_string()}\n"
    )
    print(text)
    arguments.output.write_text(text)


if __name__ == "__main__":
    main()
