"""Time of a training step on one process and on two, and what they say to each other.

Fits take turns, each process has one thread, and a time is that of an epoch divided by its steps:
batches, corrupted cells and repulsion included. "the same work" divides a fit over two processes;
"the same work each" doubles the members, or the rows of a batch, with the processes. Time in
communication includes the wait for the other process. Run ``python -m benchmarks.scaling``; it
starts the second process itself. The lines at the end are computed, not measured: see
`docs/scaling.md`.
"""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.multiprocessing as mp
from sklearn.datasets import make_classification
from torch import distributed

from benchmarks._harness import fixed, make_parser, save_report
from sklearn_fordes import FoRDEClassifier
from sklearn_fordes.particles import _communication

N_ROWS, N_COLUMNS, SEED = 6400, 30, 0
NETS = {"2 × 128": (128, 128), "3 × 256": (256,) * 3, "3 × 512": (512,) * 3}
MEMBERS, BATCH = 10, 128
# Processes, mode, members, rows of a batch.
CASES = {
    "one process": (1, None, MEMBERS, BATCH),
    "members, the same work": (2, "members", MEMBERS, BATCH),
    "members, the same work each": (2, "members", 2 * MEMBERS, BATCH),
    "rows, the same work": (2, "rows", MEMBERS, BATCH),
    "rows, the same work each": (2, "rows", MEMBERS, 2 * BATCH),
}


class Timed:
    """Count the seconds in calls of a function."""

    def __init__(self, function: Any) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return self.function(*arguments, **named)
        finally:
            self.seconds += time.perf_counter() - began


def fit_seconds(
    sizes: tuple[int, ...], mode: str | None, n_members: int, batch_size: int, n_epochs: int
) -> tuple[float, float]:
    """Return the milliseconds of a step, and the share of communication in a whole fit."""
    X, y = make_classification(N_ROWS, N_COLUMNS, n_informative=12, random_state=SEED)
    model = FoRDEClassifier(
        n_members,
        hidden_layer_sizes=sizes,
        batch_size=batch_size,
        early_stopping=False,
        max_epochs=n_epochs,
        distributed=mode,
        random_state=SEED,
    )
    timed = _communication._call = Timed(_communication._call)
    try:
        model.fit(X, y)
    finally:
        _communication._call = timed.function
    seconds = sum(epoch["dur"] for epoch in model.history_)
    n_steps = n_epochs * -(-N_ROWS // batch_size)
    return 1e3 * seconds / n_steps, timed.seconds / seconds


def measure(rank: int, folder: str, n_rounds: int, n_epochs: int) -> None:
    """Fit in turns on one of two processes; the first one writes what it saw."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    rows = []
    for turn in range(n_rounds + 1):
        for net, sizes in NETS.items():
            for case, (n_processes, *settings) in CASES.items():
                distributed.barrier()
                if rank < n_processes:
                    step, share = fit_seconds(sizes, *settings, n_epochs)
                    if turn:  # The first round warms up.
                        rows.append({"net": net, "case": case, "step": step, "share": share})
    if rank == 0:
        pd.DataFrame(rows).to_csv(os.path.join(folder, "seconds.csv"), index=False)
    distributed.barrier()
    distributed.destroy_process_group()


# ---- what can't be run here: arithmetic and messages of a step, counted


def counted(
    n_members: int, n_processes: int, mode: str, n_weights: int, batch: int, n_columns: int
) -> dict[str, float]:
    """Return arithmetic and messages of a step of one process: 10⁹ operations and megabytes."""
    period, compared = 4, batch // 4
    own_members = n_members / n_processes if mode == "members" else n_members
    own_rows = batch / n_processes if mode == "rows" else batch
    own_compared = compared / n_processes if mode == "rows" else compared
    # Forward and backward passes: two operations for a weight in each of three products; at the
    # rows compared twice as many.
    training = 6 * n_weights * own_members * (own_rows + own_compared / period)
    # Distances, and the sum of forces: two products over all pairs.
    comparing = 4 * n_members**2 * own_compared * n_columns / period
    if mode == "members":
        sent = 4 * n_members * (compared * n_columns / period + 3)
    else:
        # A sum over processes moves what it sums twice.
        sent = 2 * 4 * (n_members * n_weights + n_members / period)
    return {
        "training": training / 1e9,
        "comparing": comparing / 1e9,
        "megabytes": sent / 1e6,
    }


def cost_model() -> pd.DataFrame:
    n_weights = sum(n * m + m for n, m in zip((30, 256, 256, 256), (256, 256, 256, 2), strict=True))
    rows = []
    for mode, n_members, n_processes, batch in [
        ("members", 10, 2, 128),
        ("members", 100, 10, 128),
        ("members", 1000, 100, 128),
        ("members", 10_000, 1000, 128),
        ("rows", 10, 2, 128),
        ("rows", 10, 16, 2048),
        ("rows", 10, 128, 16_384),
    ]:
        found = counted(n_members, n_processes, mode, n_weights, batch, 30)
        rows.append(
            {"mode": mode, "members": n_members, "processes": n_processes, "batch": batch, **found}
        )
    return pd.DataFrame(rows)


def main() -> None:
    parser = make_parser(__doc__, "scaling", rounds=5, epochs=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(measure, (folder, options.rounds, options.epochs), nprocs=2)
        found = pd.read_csv(os.path.join(folder, "seconds.csv"))
    torch.set_num_threads(1)
    grouped = found.groupby(["net", "case"], sort=False)
    table = grouped["step"].median().to_frame("step, ms")
    alone = table.xs("one process", level="case")["step, ms"]
    table["of one process"] = (
        table["step, ms"] / alone.reindex(table.index.get_level_values("net")).to_numpy()
    )
    table["communication, %"] = 100 * grouped["share"].median()
    spread = grouped["step"].agg(lambda values: np.ptp(np.quantile(values, [0.25, 0.75])))
    table["quartiles apart"] = spread
    save_report(
        options.output,
        f"{N_ROWS} rows × {N_COLUMNS} columns, M {MEMBERS}, B {BATCH}; "
        f"{options.rounds} rounds of {options.epochs} epochs; gloo on one machine; seed {SEED}",
        "",
        fixed(table, 2),
        "",
        "computed, for a step of one process and 3 × 256 (10⁹ operations, megabytes received):",
        fixed(cost_model(), 3),
        title="a step on one process and on two, medians of interleaved fits",
    )


if __name__ == "__main__":
    main()
