"""Time of steps and fits, and memory of fits, of this checkout relative to another one.

Run ``python -m benchmarks.against --base PATH_OF_THE_OTHER``. Each checkout has a process of its
own. The two take turns, and a ratio is of neighbours in time. Each round starts both processes
anew, because a heap's layout stays the same in a process and changes its times.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks._harness import fixed, make_parser, save_report
from benchmarks._worker import FITS, NETWORKS, PEAK, REPULSIONS

HERE = Path(__file__).parents[1]
STEPS = [f"{network}, {name}" for network in NETWORKS for name in REPULSIONS]
TIMES = [*STEPS, *(f"fit, {name}" for name in FITS)]
Pairs = dict[str, list[list[float]]]  # by measurement, the base's and this one's


class Worker:
    """A process that measures the package of a checkout."""

    def __init__(self, checkout: Path, threads: int) -> None:
        # Without -P, modules beside the program would hide others of the same name.
        self.process = subprocess.Popen(
            [sys.executable, "-P", HERE / "benchmarks" / "_worker.py", str(threads)],
            env={**os.environ, "PYTHONPATH": str(checkout)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def measure(self, name: str) -> float:
        print(name, file=self.process.stdin)
        return float(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate()


def measure_round(checkouts: list[Path], threads: int, blocks: int, pairs: Pairs) -> None:
    """Add pairs of times, and of the memory of processes that do nothing but fit."""
    workers = [Worker(checkout, threads) for checkout in checkouts]
    for block in range(blocks + 1):  # The first one warms up, and is not counted.
        for name in TIMES:
            order = workers if block % 2 else workers[::-1]
            measured = {worker: worker.measure(name) for worker in order}
            if block:
                pairs[name].append([measured[worker] for worker in workers])
    for worker in workers:
        worker.close()
    for name in FITS:
        pairs[f"fit, {name}, peak"].append([peak_of(c, threads, name) for c in checkouts])


def peak_of(checkout: Path, threads: int, fit: str) -> float:
    worker = Worker(checkout, threads)
    worker.measure(f"fit, {fit}")
    peak = worker.measure(PEAK)
    worker.close()
    return peak


def summarise(pairs: Pairs) -> pd.DataFrame:
    """Return medians, the median ratio, and its interval over resampled pairs."""
    rng, rows = np.random.default_rng(0), {}
    for name, values in pairs.items():
        base, this = np.transpose(values)
        ratios = this / base
        resampled = np.median(rng.choice(ratios, (10_000, len(ratios))), axis=1)
        figures = np.median(base), np.median(this), np.median(ratios)
        rows[name] = *figures, *np.quantile(resampled, [0.025, 0.975]), len(ratios)
    columns = ["base", "this", "this / base", "2.5 %", "97.5 %", "pairs"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def commit_of(checkout: Path) -> str:
    command = ["git", "-C", checkout, "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    parser = make_parser(__doc__, "against", rounds=6, blocks=6, threads=2)
    parser.add_argument("--base", type=Path, required=True, help="path of the other checkout")
    arguments = parser.parse_args()
    checkouts, pairs = [arguments.base.resolve(), HERE], defaultdict(list)
    for _ in range(arguments.rounds):
        measure_round(checkouts, arguments.threads, arguments.blocks, pairs)
    base, this = map(commit_of, checkouts)
    title = (
        f"Commit {this} against {base}, {arguments.threads} threads: milliseconds of a step and of "
        "a fit (10 epochs, 2,000 rows), peak in MB\n"
        f"{arguments.rounds} rounds of new processes, {arguments.blocks} blocks each"
    )
    save_report(arguments.output, "", fixed(summarise(pairs), 3), title=title)


if __name__ == "__main__":
    main()
