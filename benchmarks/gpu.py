"""All that a GPU is asked, in ten minutes: its tests, the time of steps and of fits.

Each part runs in a process of its own, which is ended when its time is over, so that the report
has the other parts in any case. Steps are those of the default recipe in a whole fit: an epoch's
time divided by its steps, with batches, corrupted cells and repulsion. The operations of their
products are counted, and compared with what one large product reaches on the same card. Fits, of
10,000 rows × 20 numbers, contain the capture of graphs; a short one before them starts the device.

Run ``python -m benchmarks.gpu``. ``--device cpu --quick --output …`` tries the script itself, on
small sizes and without graphs. Peers come with the extra ``peers``; missing ones are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import make_classification
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._harness import fixed, make_parser, save_report
from benchmarks.scores import nll
from sklearn_fordes import FoRDEClassifier
from sklearn_fordes.training import cuda_graphs, recording_with

SECONDS = 585  # The sum of those of all parts is no more.
OTHERS = ("catboost", "pytabkit")
BATCH, SEED = 128, 0
N_BATCHES = 48  # Of an epoch, a multiple of the default period.
MEMBERS = (10, 100, 1000)

Result = dict[str, Any]


class Part(NamedTuple):
    """A function of the options of a run, and the seconds that it may take."""

    run: Callable[[argparse.Namespace], Result]
    seconds: int
    needs: str | None = None  # A package.


# ---- tests


def run_tests(options: argparse.Namespace) -> Result:
    """Run the tests of the GPU, all of which are skipped where there is none."""
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "tests/test_gpu.py"]
    # This process is ended a little later, and would leave the other one behind.
    seconds = max(1, options.seconds - 5)
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"lines": [f"took more than {seconds} s"]}
    lines = run.stdout.splitlines()
    return {"lines": [*(line for line in lines if line.startswith(("FAILED", "ERROR"))), lines[-1]]}


# ---- products


def measure_products(options: argparse.Namespace) -> Result:
    """Return the 10¹² operations a second of one large product, in both precisions."""
    device, size = options.device, 512 if options.quick else 8192
    square = torch.randn(size, size, device=device)
    found = {}
    for name, precision in (("FP32", "highest"), ("TF32", "high")):
        torch.set_float32_matmul_precision(precision)
        times = []
        for _ in range(6):
            wait_for(device)
            began = time.perf_counter()
            square @ square
            wait_for(device)
            times.append(time.perf_counter() - began)
        found[name] = 2 * size**3 / float(np.median(times[1:])) / 1e12
    return found


def wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


# ---- steps


def ways_of(device: str) -> dict[str, Result]:
    """Return what differs between the fits whose steps are timed."""
    plain = {"not captured": {"is_captured": False}}
    if device == "cpu":
        return plain
    return {
        "captured": {},
        **plain,
        "captured, TF32": {"precision": "high"},
        "captured, no augmentation": {"augmentation": None},
        "captured, no repulsion": {"repulsion": "none"},
    }


def fit_some_epochs(
    n_members: int,
    device: str,
    n_batches: int,
    *,
    n_epochs: int,
    is_captured: bool = True,
    precision: str = "highest",
    **parameters: Any,
) -> FoRDEClassifier:
    X, y = make_classification(n_batches * BATCH, 30, n_informative=12, random_state=SEED)
    torch.set_float32_matmul_precision(precision)
    model = FoRDEClassifier(
        n_members,
        batch_size=BATCH,
        early_stopping=False,
        max_epochs=n_epochs,
        device=device,
        random_state=SEED,
        **parameters,
    )
    with recording_with(cuda_graphs if is_captured else None):
        return model.fit(X, y)


def measure_steps(n_members: int, options: argparse.Namespace) -> Result:
    """Return milliseconds, operations, memory and the share of replayed steps of each way."""
    began, is_on_gpu = time.monotonic(), options.device == "cuda"
    n_batches = 4 if options.quick else N_BATCHES
    fit = partial(fit_some_epochs, n_members, options.device, n_batches)
    ways = ways_of(options.device)
    found: Result = {name: {"ms": []} for name in ways}
    for turn in range(1 if options.quick else 4):
        for name, settings in ways.items():
            # Each way is timed once at least; half of the time is left for the counting.
            if turn and time.monotonic() - began > options.seconds / 2:
                break
            if is_on_gpu:
                torch.cuda.reset_peak_memory_stats()
            model = fit(n_epochs=4, **settings)
            row = found[name]
            # The first epoch starts the device and captures.
            row["ms"] += [1e3 * epoch["dur"] / n_batches for epoch in model.history_[1:]]
            row["replayed, %"] = 100 * model.net_.captured.n_replayed / model.net_.n_steps
            if is_on_gpu:
                row["GB"] = torch.cuda.max_memory_allocated() / 1e9
    counted = {repulsion: count(fit, repulsion) / n_batches for repulsion in ("auto", "none")}
    for name, settings in ways.items():
        found[name]["ms"] = float(np.median(found[name]["ms"]))
        n_operations = counted[settings.get("repulsion", "auto")]
        found[name]["TFLOP/s"] = n_operations / found[name]["ms"] / 1e9
    return found


def count(fit: Callable[..., Any], repulsion: str) -> int:
    """Return the operations in the products of an epoch: a fit has others besides."""
    totals, settings = [], {} if repulsion == "auto" else {"repulsion": repulsion}
    for n_epochs in (1, 2):
        with FlopCounterMode(display=False) as counter:
            fit(n_epochs=n_epochs, is_captured=False, **settings)
        totals.append(counter.get_total_flops())
    return totals[1] - totals[0]


# ---- fits


def fit_fordes(
    on: str, options: argparse.Namespace, seed: int, X: Any, y: Any, *, is_captured: bool = True
) -> Any:
    shorter = {"max_epochs": 3} if options.quick else {}
    model = FoRDEClassifier(device=on, random_state=seed, **shorter)
    with recording_with(cuda_graphs if is_captured else None):
        return model.fit(X, y)


def fit_peer(name: str, _: argparse.Namespace, seed: int, X: Any, y: Any, **parameters: Any) -> Any:
    from benchmarks.peers import PEERS, from_pytabkit

    if parameters:
        return from_pytabkit(name, seed, **parameters).fit(X, y)
    return PEERS[name](seed).fit(X, y)


def measure_fit(fit: Callable[..., Any], options: argparse.Namespace) -> Result:
    """Return the seconds of a fit, and its loss on as many other rows."""
    n_rows = 500 if options.quick else 10_000
    X, y = make_classification(2 * n_rows, 20, n_informative=10, flip_y=0.1, random_state=SEED)
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])
    if options.device == "cuda":  # Starting the device takes seconds.
        fit_some_epochs(3, "cuda", 4, n_epochs=1)
    began = time.perf_counter()
    model = fit(options, SEED, frame[:n_rows], y[:n_rows])
    elapsed = time.perf_counter() - began
    return {"seconds": elapsed, "log loss": nll(y[n_rows:], model.predict_proba(frame[n_rows:]))}


# ---- all parts


def parts_of(device: str, *, is_quick: bool = False) -> dict[str, Part]:
    """Return the parts by their names in the report."""
    parts = {"tests": Part(run_tests, 100), "products": Part(measure_products, 25)}
    for n_members in MEMBERS[:1] if is_quick else MEMBERS:
        parts[f"M {n_members}"] = Part(partial(measure_steps, n_members), 55)
    fits: dict[str, tuple[Callable[..., Any], int, str | None]] = {
        f"FoRDE, {device}": (partial(fit_fordes, device), 40, None),
    }
    if device != "cpu":
        on_gpu = partial(fit_peer, "RealMLP_TD_Classifier", device=device)
        uncaptured = partial(fit_fordes, device, is_captured=False)
        fits |= {
            f"FoRDE, {device}, not captured": (uncaptured, 30, None),
            "FoRDE, cpu": (partial(fit_fordes, "cpu"), 80, None),
            f"RealMLP-TD, {device}": (on_gpu, 40, "pytabkit"),
        }
    fits |= {
        "RealMLP-TD, cpu": (partial(fit_peer, "RealMLP-TD"), 60, "pytabkit"),
        "CatBoost, cpu": (partial(fit_peer, "CatBoost"), 40, "catboost"),
    }
    parts |= {
        name: Part(partial(measure_fit, fit), seconds, needs)
        for name, (fit, seconds, needs) in fits.items()
    }
    return parts


def versions_of_others() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in OTHERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def run_part(name: str, part: Part, options: argparse.Namespace, seconds: float) -> Result:
    """Run a part in another process, and return what it found, or why it found nothing."""
    if part.needs and versions_of_others()[part.needs] is None:
        return {"failed": f"{part.needs} is not installed"}
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", name, "--device", options.device]
    command += ["--quick"] if options.quick else []
    command += ["--seconds", str(max(1, int(seconds)))]
    environment = {**os.environ, "PEER_THREADS": str(os.cpu_count())}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True
    ) as run:
        try:
            output, errors = run.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return {"failed": f"took more than {seconds:.0f} s"}
        finally:
            if run.poll() is None:  # With what it has started, which would go on beside the rest.
                os.killpg(run.pid, signal.SIGKILL)
    if run.returncode:
        return {"failed": (errors.strip().splitlines() or ["without a message"])[-1]}
    found: Result = json.loads(output.splitlines()[-1])
    return found


def steps_table(found: dict[str, Result], products: Result) -> pd.DataFrame:
    """Return a row for each number of members and way, with shares of one large product."""
    rows = {
        (name, way): values
        for name, result in found.items()
        if name.startswith("M ") and "failed" not in result
        for way, values in result.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    for precision in ("FP32", "TF32") if "failed" not in products and len(table) else ():
        table[f"% of {precision}"] = 100 * table["TFLOP/s"] / products[precision]
    return table


def report(found: dict[str, Result], device: str) -> list[str]:
    """Return the report's blocks of lines, with what failed at the end."""
    fits = {
        name: result
        for name, result in found.items()
        if not name.startswith("M ") and "seconds" in result
    }
    products, tests = found.get("products", {"failed": ""}), found.get("tests", {})
    blocks = ["", "tests/test_gpu.py", *tests.get("lines", [])]
    if "failed" not in products:
        blocks += ["", "One large product, 10¹² operations a second", fixed(pd.Series(products), 2)]
    steps = steps_table(found, products)
    if len(steps):
        blocks += ["", f"Steps, batches of {BATCH} rows × 30 numbers", fixed(steps, 3)]
    if fits:
        table = pd.DataFrame(fits).T
        ours = f"FoRDE, {device}"
        if ours in fits:
            table[f"relative to {ours}"] = table["seconds"] / table.loc[ours, "seconds"]
        blocks += ["", "Whole fits", fixed(table, 3)]
    failed = [f"{name}: {result['failed']}" for name, result in found.items() if "failed" in result]
    return [*blocks, *(["", "Without a result", *failed] if failed else [])]


def describe_card(device: str) -> str:
    others = ", ".join(
        f"{name} {number or 'missing'}" for name, number in versions_of_others().items()
    )
    if device == "cpu":
        return f"{others}; on the CPU"
    card = torch.cuda.get_device_properties(0)
    return (
        f"{others}; CUDA {torch.version.cuda}, {card.name}, {card.total_memory / 1e9:.0f} GB, "
        f"{card.multi_processor_count} multiprocessors"
    )


def main() -> None:
    parser = make_parser(__doc__, "gpu", seconds=SECONDS)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--part", help="run this part alone, and print what it found as JSON")
    options = parser.parse_args()
    parts = parts_of(options.device, is_quick=options.quick)
    if options.part is not None:
        warnings.filterwarnings("ignore")
        run = parts[options.part].run
        print(json.dumps(run(options)))
        return
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("Got --device cuda, but torch finds none; expected --device cpu.")
    began, found = time.monotonic(), {}
    try:
        for name, part in parts.items():
            left = options.seconds - (time.monotonic() - began)
            seconds = max(1.0, min(part.seconds, left))
            found[name] = run_part(name, part, options, seconds)
            print(f"{name}: {time.monotonic() - began:.0f} s so far", flush=True)
    finally:
        title = "What a GPU does in ten minutes" + (", quick" if options.quick else "")
        blocks = report(found, options.device)
        save_report(options.output, describe_card(options.device), *blocks, title=title)


if __name__ == "__main__":
    main()
