"""A fit and predictions of more rows than memory holds: peak memory, and rows per second.

Run ``python -m benchmarks.out_of_core``. Rows of the diamonds (ggplot2), drawn with replacement and
with jitter in their numbers, are written as Parquet to a temporary folder, which is deleted. Each
measurement has a process of its own, whose peak memory the system tells. ``--gigabytes`` says how
large the files are, ``--folder`` where they are written.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks._harness import fixed, make_parser, save_report
from benchmarks._steps import use_threads
from benchmarks.datasets import DEVELOPMENT_SETS

TARGET = "cut"
N_FILES, ROWS_OF_A_GROUP = 16, 131_072
# In turn: the pass and two epochs, and predictions of the first rows in blocks and as one table.
TASKS = ("import", "fit", "stream", "memory")


def write_rows(folder: Path, n_bytes: int) -> int:
    """Write Parquet files of so many bytes, and return the number of their rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = DEVELOPMENT_SETS["diamonds_cut"]()
    frame = data.X.assign(**{TARGET: data.y.to_numpy()})
    rng, n_rows = np.random.default_rng(0), 0
    for number in range(N_FILES):
        path, writer = folder / f"part-{number:02d}.parquet", None
        while writer is None or path.stat().st_size < n_bytes / N_FILES:
            rows = frame.iloc[rng.integers(len(frame), size=ROWS_OF_A_GROUP)]
            jittered = {
                name: column * rng.normal(1.0, 0.01, len(rows))
                for name, column in rows.select_dtypes("number").items()
            }
            table = pa.Table.from_pandas(rows.assign(**jittered), preserve_index=False)
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
            n_rows += len(rows)
        writer.close()
    return n_rows


def peak_megabytes() -> float:
    """Return the largest memory that this process has had, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("expected VmHWM in /proc/self/status")


def run_task(task: str, folder: str, n_rows: int) -> dict[str, Any]:
    """Run one of `TASKS` in this process, and return what was measured."""
    import pyarrow.dataset as ds

    from sklearn_fordes import FoRDEClassifier, load, streaming, training

    model_path = Path(folder) / "model.safetensors"
    start = time.perf_counter()
    found: dict[str, Any] = {}
    if task == "import":
        found["names"] = len([training.train, streaming.opened])
    elif task == "fit":
        model = FoRDEClassifier(
            max_epochs=2, iterator_train__rows_per_epoch=n_rows, random_state=0, verbose=1
        )
        model.fit(ds.dataset(folder, format="parquet", exclude_invalid_files=True), y=TARGET)
        model.save(model_path)
        found["epochs, s"] = sum(epoch["dur"] for epoch in model.history_)
        found["valid_loss"] = model.history_[-1]["valid_loss"]
    else:
        model = load(model_path)
        source = ds.dataset(sorted(Path(folder).glob("*.parquet"))[0])
        names = list(model.feature_names_in_)
        if task == "memory":
            table = source.head(n_rows, columns=names)
            found["rows"] = len(model.predict_proba(table))
        else:
            found["rows"] = 0
            for block in model.predict_proba(source):
                found["rows"] += len(block)
                if found["rows"] >= n_rows:
                    break
    return {**found, "s": time.perf_counter() - start, "peak, MB": peak_megabytes()}


def measured(task: str, folder: Path, n_rows: int, threads: int) -> dict[str, Any]:
    """Run a task in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.out_of_core", "--threads", str(threads)]
    command += ["--task", task, "--folder", str(folder), "--rows", str(n_rows)]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(run.stdout.splitlines()[-1]))


def main() -> None:
    parser = make_parser(__doc__, "out_of_core", gigabytes=8, rows=200_000, threads=1)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--task", choices=TASKS, default=None)
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    if arguments.task is not None:
        print(json.dumps(run_task(arguments.task, str(arguments.folder), arguments.rows)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        start = time.perf_counter()
        n_rows = write_rows(folder, arguments.gigabytes * 10**9)
        size = sum(path.stat().st_size for path in folder.glob("*.parquet")) / 1e9
        print(f"wrote {n_rows} rows in {time.perf_counter() - start:.0f} s", flush=True)
        found = {task: measured(task, folder, arguments.rows, arguments.threads) for task in TASKS}
    fit = found["fit"]
    seconds_of_pass = fit["s"] - fit["epochs, s"]
    rates = {
        "first pass, encoder, save": (n_rows, seconds_of_pass, fit["peak, MB"]),
        "two epochs": (2 * arguments.rows, fit["epochs, s"], fit["peak, MB"]),
        "predict_proba of the source": (
            found["stream"]["rows"],
            found["stream"]["s"],
            found["stream"]["peak, MB"],
        ),
        "predict_proba in memory": (
            found["memory"]["rows"],
            found["memory"]["s"],
            found["memory"]["peak, MB"],
        ),
        "import alone": (0, found["import"]["s"], found["import"]["peak, MB"]),
    }
    table = pd.DataFrame(rates, index=["rows", "s", "peak, MB"]).T
    table.insert(2, "rows per s", table["rows"] / table["s"])
    title = (
        f"{size:.2f} GB of Parquet in {N_FILES} files, {n_rows} rows of {10} columns, row groups "
        f"of {ROWS_OF_A_GROUP} rows; a default classifier, epochs of {arguments.rows} rows"
    )
    loss = f"validation loss after two epochs: {fit['valid_loss']:.4f}"
    save_report(arguments.output, "", fixed(table, 1), "", loss, title=title)


if __name__ == "__main__":
    main()
