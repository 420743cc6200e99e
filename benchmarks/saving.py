"""Size of a kept estimator, and the time to keep it and to get it back, each way.

Run ``python -m benchmarks.saving``. A file of `save` is compared with what it can't do without: the
members' weights and buffers, and the arrays and levels of the encoder.
"""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import skops.io

from benchmarks._harness import fixed, interleaved_medians, make_parser, save_report
from benchmarks._steps import use_threads
from sklearn_fordes import FoRDEClassifier, load
from sklearn_fordes.preprocessing import encoder_state

# Rows, columns of numbers, and columns of categories with their levels.
TABLES = {
    "small": (200, 4, 0, 0),
    "default": (1000, 20, 0, 0),
    "wide": (1000, 200, 0, 0),
    "levels": (20_000, 10, 10, 50),
}
# In a process that has imported the package, and loaded nothing before.
LOADING = """
import json, sys, time
import torch
from sklearn_fordes import FoRDEClassifier, load
path, n_threads, repeats = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(n_threads)
seconds = []
for _ in range(repeats + 1):
    start = time.perf_counter(), time.process_time()
    load(path)
    seconds.append([time.perf_counter() - start[0], time.process_time() - start[1]])
print(json.dumps(seconds))
"""


def fitted(n_rows: int, n_numbers: int, n_categories: int, n_levels: int) -> FoRDEClassifier:
    """Return a default classifier of a table; it is hardly trained."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(n_rows, n_numbers))).add_prefix("number ")
    for i in range(n_categories):
        levels = rng.integers(n_levels, size=n_rows)
        X[f"category {i}"] = [f"a level named {level}" for level in levels]
    return FoRDEClassifier(max_epochs=2, random_state=0).fit(X, X["number 0"] > 0)


def needed_bytes(model: FoRDEClassifier) -> tuple[int, int]:
    """Return the bytes of the members, and those of the encoder's arrays and texts."""
    members = model.fitted_.members
    tensors = [*members.parameters(), *members.buffers()]
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return n_bytes, sum(map(_bytes_of, encoder_state(model.encoder_).values()))


def _bytes_of(value: Any) -> int:
    if isinstance(value, np.ndarray) and value.dtype != object:
        return int(value.nbytes)
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, list | tuple | np.ndarray):
        return sum(map(_bytes_of, value))
    return 0


def ways(model: FoRDEClassifier, folder: Path) -> dict[str, tuple[Path, Any, Any]]:
    """Return each way to keep a model: its file, how it is written, and how it is read."""
    paths = {name: folder / name for name in ("save", "pickle", "joblib", "skops")}

    def write_pickle() -> None:
        paths["pickle"].write_bytes(pickle.dumps(model))

    def read_skops() -> Any:
        content = paths["skops"].read_bytes()
        types = skops.io.get_untrusted_types(data=content)
        return skops.io.load(io.BytesIO(content), trusted=types)

    return {
        "save, load": (
            paths["save"],
            partial(model.save, paths["save"]),
            partial(load, paths["save"]),
        ),
        "pickle": (
            paths["pickle"],
            write_pickle,
            lambda: pickle.loads(paths["pickle"].read_bytes()),
        ),
        "joblib": (
            paths["joblib"],
            partial(joblib.dump, model, paths["joblib"]),
            partial(joblib.load, paths["joblib"]),
        ),
        "joblib, mapped": (
            paths["joblib"],
            partial(joblib.dump, model, paths["joblib"]),
            partial(joblib.load, paths["joblib"], mmap_mode="r"),
        ),
        "skops": (paths["skops"], partial(skops.io.dump, model, paths["skops"]), read_skops),
    }


def measure(model: FoRDEClassifier, folder: Path, repeats: int) -> pd.DataFrame:
    """Return times and sizes, by the way to keep a model."""
    known = ways(model, folder)
    calls: dict[Any, Callable[[], object]] = {}
    for name, (_, write, read) in known.items():
        calls |= {(name, "write"): write, (name, "read"): read}
    seconds = interleaved_medians(calls, repeats)
    rows = {
        name: {
            "write, ms": 1000 * seconds[name, "write"],
            "read, ms": 1000 * seconds[name, "read"],
            "size, kB": path.stat().st_size / 1000,
        }
        for name, (path, _, _) in known.items()
    }
    return pd.DataFrame(rows).T


def loading_times(path: Path, n_threads: int, repeats: int) -> dict[str, float]:
    """Return milliseconds of the first `load` of a process, and medians of those after it.

    Those of the processor do not count what else the machine does meanwhile.
    """
    command = [sys.executable, "-c", LOADING, str(path), str(n_threads), str(repeats)]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    first, *others = 1000 * np.array(json.loads(found))
    median, of_processor = np.median(others, axis=0)
    return {"first, ms": first[0], "median, ms": median, "processor, ms": of_processor}


def main() -> None:
    arguments = make_parser(__doc__, "saving", repeats=30, threads=2, tables=4).parse_args()
    use_threads(arguments.threads)
    sizes, parts = {}, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for table, shape in list(TABLES.items())[: arguments.tables]:
            model = fitted(*shape)
            measured = measure(model, folder, arguments.repeats)
            members, encoder = needed_bytes(model)
            file = (folder / "save").stat().st_size
            sizes[table] = {
                "members, kB": members / 1000,
                "encoder, kB": encoder / 1000,
                "save, kB": file / 1000,
                "save / (members + encoder)": file / (members + encoder),
                "pickle / members": (folder / "pickle").stat().st_size / members,
            }
            n_rows, n_numbers, n_categories, _ = shape
            title = f"{table}: {n_rows} rows, {n_numbers} numbers, {n_categories} categories"
            parts += ["", title, fixed(measured, 2)]
            if table == "default" or arguments.tables == 1:
                fresh = {
                    f"{n} threads": loading_times(folder / "save", n, arguments.repeats)
                    for n in (2, 1)
                }
                text = fixed(pd.DataFrame(fresh).T, 2)
                parts += ["", f"{table}: load in a process of its own", text]
    title = f"default classifiers, medians of {arguments.repeats} interleaved calls"
    sizes_text = fixed(pd.DataFrame(sizes).T, 3)
    save_report(arguments.output, "", sizes_text, *parts, title=title)


if __name__ == "__main__":
    main()
