"""How time and memory of a fit grow with rows, columns, members and classes.

Each fit is a default classifier with two epochs at most, in a process of its own with one thread.
A first fit of a few rows loads all code; then memory is read, the data are made, and a fit is
timed. Memory is the peak of the resident set during that fit, beyond what the process held before
the data were made, in megabytes; "without data" is what it held before the fit subtracted. Times
are those of the parts of a fit, by the clock and of the processor. Machines are noisy, so that
exponents are fitted to processor time.

An exponent is the slope of a line through the logarithms of all points, or of the last half of
them. A step between two neighbouring points is flagged if it is steeper than growth explains: than
the larger of the exponent and 1, and half as much again. Run ``python -m benchmarks.growth``; it
goes on where it stopped. After changing a setting, delete the file of results.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks._harness import fixed, make_parser, run_missing, save_report
from benchmarks._steps import use_threads

# What grows, from where, and what the fits of an axis have in common.
DEFAULTS = {"rows": 3000, "columns": 20, "members": 10, "classes": 2}
FIXED: dict[str, dict[str, int]] = {
    "rows": {},
    "columns": {},
    "members": {"rows": 1000},
    "classes": {"rows": 10_000},
}
SIZES = {
    "rows": (1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000),
    "columns": (5, 10, 20, 50, 100, 200, 500, 1000, 2000),
    "members": (1, 3, 10, 30, 100, 300, 1000),
    "classes": (2, 5, 10, 30, 100, 300, 1000),
}
N_EPOCHS = 2
# Parts of a fit in their order; "rest" is before, between and after the others.
PARTS = ("encoding", "epochs", "validation", "end", "importances", "rest")
# A step may be so much larger than the exponent explains.
TOLERANCE = 1.5
MEASURES = [f"{part}, CPU s" for part in (*PARTS, "fit")] + ["MB", "MB without data"]
# Less than this is no measurement of growth: a tick of the processor's clock, and pages.
LEAST = {"CPU s": 0.02, "MB": 8.0}


class Clock:
    """Add up the time that parts of a fit take, without that of parts within them."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, np.zeros(2))
        self._part, self._since = "rest", self._now()

    @staticmethod
    def _now() -> NDArray[np.float64]:
        return np.array([time.perf_counter(), time.process_time()])

    @contextmanager
    def during(self, part: str) -> Iterator[None]:
        """Count the time of this part, and none for the one around it."""
        around = self._switch(part)
        try:
            yield
        finally:
            self._switch(around)

    def _switch(self, part: str) -> str:
        before, now = self._part, self._now()
        self.seconds[before] = self.seconds[before] + now - self._since
        self._part, self._since = part, now
        return before

    def watch(self, owner: Any, name: str, part: str | Callable[..., str]) -> None:
        """Count all calls of a function as a part, or as what its arguments say."""
        function = getattr(owner, name)

        def timed(*args: Any, **named: Any) -> Any:
            with self.during(part if isinstance(part, str) else part(*args, **named)):
                return function(*args, **named)

        setattr(owner, name, timed)

    def watch_fits(self) -> None:
        """Count the parts of all later fits of this process."""
        from sklearn_fordes.estimators import _base
        from sklearn_fordes.training import ParticleNet

        def part_of_epoch(*_: Any, training: bool, **__: Any) -> str:
            return "epochs" if training else "validation"

        self.watch(_base, "first_encoded", "encoding")
        self.watch(_base, "dataset_of", "encoding")
        self.watch(_base.training, "train", "end")  # But for its epochs.
        self.watch(ParticleNet, "run_single_epoch", part_of_epoch)
        self.watch(_base, "member_importances", "importances")


def memory(field: str) -> float:
    """Return a field of this process's status, such as its resident set, in megabytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def forget_peak() -> None:
    """Have the peak of the resident set begin anew at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def make_table(rows: int, columns: int, classes: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return normal numbers, and classes of equal size by the sum of the first few and noise."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, columns))
    position = X[:, :5].sum(axis=1)
    position += 0.5 * rng.standard_normal(rows)
    rank = np.empty(rows, dtype=np.int64)
    rank[position.argsort()] = np.arange(rows)
    return X, rank * classes // rows


def measure(rows: int, columns: int, members: int, classes: int) -> dict[str, float]:
    """Return times and memory of a fit in this process, which has done nothing else."""
    warnings.simplefilter("ignore")
    use_threads(1)
    from sklearn_fordes import FoRDEClassifier

    settings = {"max_epochs": N_EPOCHS, "random_state": 0}
    FoRDEClassifier(2, **settings).fit(*make_table(700, 5, 2))
    held_before = memory("VmRSS")
    X, y = make_table(rows, columns, classes)
    held = memory("VmRSS")
    forget_peak()
    clock = Clock()
    clock.watch_fits()
    with clock.during("rest"):
        model = FoRDEClassifier(members, **settings).fit(X, y)
    peak = memory("VmHWM")
    assert model.n_iter_ == N_EPOCHS
    found = {"data, MB": (X.nbytes + y.nbytes) / 1e6}
    found |= {"MB": peak - held_before, "MB without data": peak - held}
    found["steps"] = sum(epoch["train_batch_count"] for epoch in model.history_)
    for index, unit in enumerate(("s", "CPU s")):
        parts = {part: seconds[index] for part, seconds in clock.seconds.items()}
        for part, seconds in (*parts.items(), ("fit", sum(parts.values()))):
            found[f"{part}, {unit}"] = seconds
    return found


def run(axis: str, size: int) -> list[dict[str, Any]]:
    """Fit in a process of its own."""
    sizes = DEFAULTS | FIXED[axis] | {axis: size}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        return [alone.submit(partial(measure, **sizes)).result()]


# ---- growth


def exponent(sizes: NDArray[Any], values: NDArray[Any]) -> float:
    """Return the slope of the line through the logarithms, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def growth(sizes: NDArray[Any], values: NDArray[Any], least: float) -> dict[str, Any]:
    """Return exponents of all points and of the last half, and the steps that they don't explain.

    Values below `least` are too small to be measured, and say nothing.
    """
    is_known = values >= least
    sizes, values = sizes[is_known], values[is_known]
    if len(sizes) < 3:
        return {"exponent": np.nan, "of the last half": np.nan, "steep steps": ""}
    whole = exponent(sizes, values)
    half = min(len(sizes) // 2, len(sizes) - 2)
    ratio, times = values[1:] / values[:-1], sizes[1:] / sizes[:-1]
    is_steep = ratio > TOLERANCE * times ** max(whole, 1.0)
    steps = [f"{sizes[i]:,} to {sizes[i + 1]:,}" for i in np.flatnonzero(is_steep)]
    last = exponent(sizes[half:], values[half:])
    return {"exponent": whole, "of the last half": last, "steep steps": "; ".join(steps)}


def describe(table: pd.DataFrame) -> str:
    """Return the growth of each measure along an axis."""
    lines = {}
    for name in MEASURES:
        least = LEAST["MB" if "MB" in name else "CPU s"]
        lines[name] = growth(table["size"].to_numpy(), table[name].to_numpy(), least)
    return fixed(pd.DataFrame(lines).T, 2)


def shown(table: pd.DataFrame) -> str:
    """Return the times and the memory of an axis."""
    names = [f"{part}, CPU s" for part in PARTS] + ["fit, CPU s", "fit, s", "data, MB"]
    chosen = table.set_index("size")[[*names, "MB", "MB without data"]]
    return fixed(chosen.rename(columns=lambda name: name.removesuffix(", CPU s")), 2)


def draw(path: Path, results: pd.DataFrame) -> None:
    """Draw time by part and memory against each of the sizes, all on logarithmic scales."""
    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10, 8), layout="constrained")
    for panel, axis in zip(axes.flat, SIZES, strict=True):
        table = results[results["axis"] == axis].sort_values("size")
        for part, name in {"fit": "whole fit", "encoding": "encoding", "epochs": "epochs"}.items():
            panel.loglog(table["size"], table[f"{part}, CPU s"], marker="o", ms=4, label=name)
        panel.set(xlabel=axis, ylabel="seconds of the processor")
        memory_axis = panel.twinx()
        memory_axis.loglog(table["size"], table["MB"], "k--", marker="s", ms=4, label="memory")
        memory_axis.set_ylabel("peak memory (MB)")
        for one in (panel, memory_axis):
            one.spines["top"].set_visible(False)
        context = DEFAULTS | FIXED[axis]
        others = [f"{n:,} {name}" for name, n in context.items() if name != axis]
        panel.set_title(", ".join(others), fontsize=10)
    handles = [*axes[0, 0].get_lines(), *memory_axis.get_lines()]
    labels = [str(line.get_label()) for line in handles]
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = make_parser(__doc__, "growth")
    parser.add_argument("--axes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--picture", type=Path, default=Path("docs/growth.png"))
    arguments = parser.parse_args()
    use_threads(1)
    units = [(axis, size) for axis in arguments.axes for size in SIZES[axis]]
    path = arguments.output.with_suffix(".csv")
    results = run_missing(path, ["axis", "size"], units, run, float_format="%.4g")
    parts = []
    for axis, table in results.groupby("axis", sort=False):
        ordered = table.sort_values("size")
        others = (DEFAULTS | FIXED[str(axis)]).items()
        fit = ", ".join(f"{n:,} {name}" for name, n in others if name != axis)
        parts += [f"\n{axis} ({fit})", shown(ordered), "", describe(ordered)]
    save_report(
        arguments.output,
        f"{N_EPOCHS} epochs, early stopping, a process and one thread for each fit",
        *parts,
        title="how a default fit grows: seconds of the processor, and megabytes",
    )
    draw(arguments.picture, results)


if __name__ == "__main__":
    main()
