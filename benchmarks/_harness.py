"""What the benchmarks share: options, timing, runs that go on where they stopped, and reports."""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

RESULTS = Path("benchmarks/results")
PACKAGES = ("sklearn-fordes", "torch", "skorch", "scikit-learn", "numpy", "pandas")


def make_parser(description: str | None, name: str, **numbers: int) -> argparse.ArgumentParser:
    """Return a parser with an option for each of `numbers`, and ``--output`` for the results."""
    parser = argparse.ArgumentParser(description=description)
    for option, default in numbers.items():
        parser.add_argument(f"--{option.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--output", type=Path, default=RESULTS / f"{name}.txt")
    return parser


def describe_environment() -> str:
    """Return one line with versions, processor and threads."""
    import torch

    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"Python {platform.python_version()}, {versions}; {platform.machine()}, "
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {device}"
    )


def interleaved_medians(
    alternatives: dict[Any, Callable[[], object]], repeats: int
) -> dict[Any, float]:
    """Return the median seconds of each alternative, which take turns."""
    seconds = interleaved_seconds(alternatives, repeats)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def interleaved_seconds(
    alternatives: dict[Any, Callable[[], object]], repeats: int
) -> dict[Any, list[float]]:
    """Return the seconds of each call of each alternative.

    They take turns, so that what else the machine does falls on all of them; a first round warms
    up and is not counted.
    """
    seconds: dict[Any, list[float]] = {name: [] for name in alternatives}
    for repeat in range(repeats + 1):
        for name, run in alternatives.items():
            start = time.perf_counter()
            run()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def run_missing(
    path: Path,
    key: list[str],
    units: Iterable[tuple[Any, ...]],
    run: Callable[..., list[dict[str, Any]]],
    *,
    float_format: str | None = None,
) -> pd.DataFrame:
    """Run the units that a results file (csv) lacks, and return all that it has then.

    A unit is a tuple of values for the columns `key`. `run` takes them, and returns the unit's
    rows without these columns. After changing a setting, delete the file.
    """
    known = read_results(path).reindex(columns=key)
    done = set(known.itertuples(index=False, name=None))
    for unit in units:
        if unit not in done:
            start = time.perf_counter()
            rows = [dict(zip(key, unit, strict=True)) | row for row in run(*unit)]
            append(path, rows, float_format)
            print(*unit, f"{time.perf_counter() - start:.1f} s", flush=True)
    return pd.read_csv(path)


def read_results(path: Path) -> pd.DataFrame:
    """Return the results so far; a file that is missing or empty has no columns."""
    return pd.read_csv(path) if path.exists() and path.stat().st_size else pd.DataFrame()


def append(path: Path, rows: list[dict[str, Any]], float_format: str | None) -> None:
    """Write a unit's rows in one go, so that a run that is stopped leaves whole units."""
    table, known = pd.DataFrame(rows), read_results(path)
    is_new = known.columns.empty
    if not is_new and set(known) != set(table):
        raise ValueError(f"Got columns {[*table]} for {path}, but expected {[*known]}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [*table] if is_new else [*known]
    text = table[columns].to_csv(index=False, header=is_new, float_format=float_format)
    with path.open("ab", buffering=0) as file:
        file.write(text.encode())


def fixed(table: pd.DataFrame | pd.Series, digits: int) -> str:
    """Return a table as text, with `digits` digits after the point."""
    return table.to_string(float_format=f"{{:.{digits}f}}".format)


def save_report(path: Path, *parts: str, title: str | None = None) -> None:
    """Print and write a title, versions and machine, and blocks of lines."""
    first = [] if title is None else [title]
    report = "\n".join([*first, describe_environment(), *parts]).rstrip("\n")
    print(report)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report + "\n")
