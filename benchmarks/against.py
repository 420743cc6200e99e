"""Time of steps and fits, and memory of fits, of this checkout relative to another one.

Run ``python -m benchmarks.against --base PATH_OF_THE_OTHER``. Each has a process of its own; the
two take turns, and a ratio is of neighbours in time. The processes are new in each round and for
each measurement: what else lies on a heap decides whether a step gets the memory that the last one
freed, and can double its time.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from itertools import product
from pathlib import Path
from subprocess import PIPE, Popen, check_output
from typing import Any

import numpy as np
import pandas as pd

from benchmarks._harness import fixed, make_parser, save_report
from benchmarks._steps import use_threads
from benchmarks._worker import NETWORKS, STEPS

HERE = Path(__file__).parents[1]
NAMES = [*(f"{network}, {name}" for network in NETWORKS for name in STEPS), "fit"]


def start(checkout: Path, threads: int) -> Popen[str]:
    # Without -P, modules in the worker's directory would hide others of the same name.
    command = [sys.executable, "-P", HERE / "benchmarks" / "_worker.py", str(threads)]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    return Popen(command, env=environment, stdin=PIPE, stdout=PIPE, text=True, bufsize=1)


def ask(worker: Popen[str], name: str) -> float:
    print(name, file=worker.stdin)
    return float(worker.stdout.readline())


def measure(
    name: str, checkouts: list[Path], threads: int, blocks: int, pairs: dict[str, Any]
) -> None:
    """Add times of both checkouts, and of a fit the memory that the first one takes."""
    with start(checkouts[0], threads) as base, start(checkouts[1], threads) as this:
        for block in range(blocks + 1):  # The first one warms up, and is not counted.
            order = (base, this) if block % 2 else (this, base)
            measured = {worker: ask(worker, name) for worker in order}
            if block:
                pairs[name].append([measured[base], measured[this]])
            elif name == "fit":
                pairs["fit, peak"].append([ask(worker, "peak") for worker in (base, this)])


def summarise(values: list[list[float]]) -> dict[str, float]:
    """Return medians, the median ratio, and its interval over resampled pairs."""
    base, this = np.transpose(values)
    ratios, rng = this / base, np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (10_000, len(ratios))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    figures = {"base": np.median(base), "this": np.median(this), "this / base": np.median(ratios)}
    return figures | {"2.5 %": low, "97.5 %": high}


def main() -> None:
    parser = make_parser(__doc__, "against", rounds=6, blocks=6, threads=2)
    parser.add_argument("--base", type=Path, required=True, help="path of the other checkout")
    parser.add_argument("--only", default="", help="how names of what to measure begin")
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    checkouts, pairs = [arguments.base.resolve(), HERE], defaultdict(list)
    names = [name for name in NAMES if name.startswith(arguments.only)]
    for _, name in product(range(arguments.rounds), names):
        measure(name, checkouts, arguments.threads, arguments.blocks, pairs)
    command = ["git", "describe", "--always", "--dirty"]
    base, this = (check_output(command, cwd=path, text=True).strip() for path in checkouts)
    title = (
        f"{this} against {base}, {arguments.rounds} rounds of {arguments.blocks} blocks: "
        "milliseconds of a step and of a fit (10 epochs, 2,000 × 20), peak in MB"
    )
    table = pd.DataFrame({name: summarise(values) for name, values in pairs.items()}).T
    save_report(arguments.output, "", fixed(table, 3), title=title)


if __name__ == "__main__":
    main()
