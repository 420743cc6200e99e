"""Fit, break off, go on, predict, save and load for an hour: does anything grow, or change?

``python tests/soak.py --minutes 60`` writes a curve (csv) and prints a table. It exits with 1 if
memory, descriptors, threads or temporary files grow, or if a fit that was broken off ends with
other weights than the first one of its kind. Linux only: it reads /proc.
"""

import argparse
import ctypes
import gc
import io
import os
import pickle
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
from skorch.callbacks import Callback

import sklearn_fordes
from frames import as_pandas, plain_columns
from sklearn_fordes import FoRDEClassifier, FoRDERegressor, Repulsion
from sklearn_fordes.networks import MLP
from sklearn_fordes.persistence import _checkpoint
from sklearn_fordes.preprocessing import TabularEncoder

SECONDS_BETWEEN_SAMPLES = 10.0
# What may grow in an hour, by a straight line through the last three quarters of the curve.
ALLOWED_PER_HOUR = {"memory, MB": 10.0, "descriptors": 0.5, "threads": 0.5, "temporary files": 0.5}


class Own(MLP):
    """A module of the user's own."""


KINDS = {
    "classifier": (FoRDEClassifier, {}),
    "regressor": (FoRDERegressor, {}),
    "quantiles": (FoRDERegressor, {"noise": "quantile"}),
    "folds": (FoRDEClassifier, {"n_members": 4, "validation_fraction": "auto"}),
    "own module": (FoRDEClassifier, {"module": Own, "encoder": TabularEncoder()}),
    "weight": (FoRDERegressor, {"repulsion": Repulsion("weight"), "noise": "homoscedastic"}),
}


class Fault(Exception):
    """Breaks a fit off."""


class BreakOff(Callback):
    """Raises at the end of an epoch."""

    epoch = None

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == BreakOff.epoch:
            raise Fault


def resources(folder):
    """What the process holds now."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    n_files = sum(len(files) for _, _, files in os.walk(folder))
    return {
        "memory, MB": int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "temporary files": n_files,
    }


def round_of(name, expected, rng):
    """Go through the life of a model of a kind, and compare it with the first one."""
    kind, settings = KINDS[name]
    X = as_pandas(plain_columns())
    y = np.where(X["size"] > 0, "up", "down") if kind is FoRDEClassifier else X["size"].to_numpy()
    module = settings.get("module")
    with tempfile.TemporaryDirectory() as folder:
        model = kind(
            **{"n_members": 3, "hidden_layer_sizes": (16,), "max_epochs": 6, "random_state": 0}
            | settings
            | {"callbacks": [BreakOff()], "checkpoint_dir": folder}
        )
        BreakOff.epoch = int(rng.integers(1, 7))
        try:
            model.fit(X, y)
        except Fault:
            BreakOff.epoch = None
            model.fit(X, y)
        BreakOff.epoch = None
        method = "predict_proba" if kind is FoRDEClassifier else "predict_interval"
        with ThreadPoolExecutor(2) as pool:
            parts = [*pool.map(getattr(model, method), [X, X])]
        path = f"{folder}/model"
        model.set_params(callbacks=None).save(path, include_training_state=True)
        loaded = sklearn_fordes.load(path, module=module)
        again = pickle.load(io.BytesIO(pickle.dumps(loaded)))
        again.partial_fit(X, y)
        model.partial_fit(X, y)
        predictions = [*parts, getattr(loaded, method)(X)]
        goes_on = [getattr(one, method)(X) for one in (model, again)]
    first = expected.setdefault(name, (predictions[0], goes_on[0]))
    if not all(np.array_equal(p, first[0]) for p in predictions):
        raise AssertionError(f"{name}: other predictions than in the first round")
    if not all(np.array_equal(p, first[1]) for p in goes_on):
        raise AssertionError(f"{name}: partial_fit goes on otherwise than in the first round")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/soak.csv"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    _checkpoint._SECONDS_BETWEEN = 0.0
    rng, expected, curve, n_rounds = np.random.default_rng(0), {}, [], 0
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        begin = last = time.monotonic()
        while time.monotonic() - begin < 60 * arguments.minutes:
            for name in KINDS:
                round_of(name, expected, rng)
            n_rounds += 1
            if time.monotonic() - last >= SECONDS_BETWEEN_SAMPLES or n_rounds == 1:
                last = time.monotonic()
                curve.append(
                    {"minutes": (last - begin) / 60, "rounds": n_rounds, **resources(folder)}
                )
    table = pd.DataFrame(curve)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    table.round(3).to_csv(arguments.output, index=False)
    late = table[table["minutes"] >= table["minutes"].iloc[-1] / 4]
    rows, fails = [], []
    for name, allowed in ALLOWED_PER_HOUR.items():
        slope = (
            float(np.polyfit(late["minutes"] / 60, late[name], 1)[0]) if len(late) > 2 else np.nan
        )
        rows.append([name, table[name].iloc[0], late[name].min(), late[name].max(), slope, allowed])
        if not slope <= allowed:
            fails.append(name)
    columns = ["", "first", "lowest", "highest", "growth per hour", "allowed"]
    report = pd.DataFrame(rows, columns=columns).set_index("").round(2).to_string()
    sys.path.insert(0, ".")
    from benchmarks._harness import describe_environment

    text = (
        f"{n_rounds} rounds of {len(KINDS)} models in {arguments.minutes:g} minutes\n"
        f"{describe_environment()}\n{report}\n"
    )
    print(text)
    arguments.output.with_suffix(".txt").write_text(text)
    sys.exit(bool(fails))


if __name__ == "__main__":
    main()
