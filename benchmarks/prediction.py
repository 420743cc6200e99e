"""Time and memory of predict_proba on a million rows, against the bare matrix products.

The products go into memory that is there already, by chunks of the number of rows that is fastest.
Run ``python -m benchmarks.prediction``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.datasets import make_classification

from benchmarks._harness import fixed, interleaved_medians, make_parser, save_report
from benchmarks._steps import use_threads
from sklearn_fordes import FoRDEClassifier

CHUNKS = (256, 512, 1024)
MODELS: dict[str, dict[str, Any]] = {
    "2 × 128, rows as they are": {"encoder": None},
    "3 × 256, rows as they are": {"encoder": None, "hidden_layer_sizes": (256, 256, 256)},
    "default: 2 × 128, encoded and embedded": {},
}


def resident_megabytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def peak_beyond(call: Callable[[], NDArray[Any]]) -> float:
    """Return megabytes that a call takes at most, beyond what it returns."""
    before, peak, is_done = resident_megabytes(), [0.0], threading.Event()

    def watch() -> None:
        while not is_done.wait(0.005):
            peak[0] = max(peak[0], resident_megabytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    result = call()
    is_done.set()
    watcher.join()
    return peak[0] - before - result.nbytes / 1e6


def matrix_products(model: FoRDEClassifier, X: NDArray[Any], n_rows: int) -> None:
    """Multiply as the layers with weights do, `n_rows` at a time, and nothing else."""
    parameters = dict(model.fitted_.members.named_parameters())
    weights = [p.detach() for name, p in parameters.items() if p.ndim == 3 and "weight" in name]
    n_members, _, width = weights[0].shape
    embedding = [p.detach() for p in parameters.values() if p.ndim == 4]
    chunk = torch.randn(n_members, n_rows, width)
    chunk[..., : X.shape[1]] = torch.from_numpy(X[:n_rows])
    memory = [torch.empty(n_members, n_rows, weight.shape[1]) for weight in weights]
    angles = [torch.randn(*p.shape[:2], n_rows, p.shape[2]).mT for p in embedding]
    for _ in range(-(-len(X) // n_rows)):
        for weight, at_angles in zip(embedding, angles, strict=True):
            weight.mT @ at_angles
        h = chunk
        for weight, out in zip(weights, memory, strict=True):
            h = torch.bmm(h, weight.mT, out=out)


def measure(parameters: dict[str, Any], X: NDArray[Any], repeats: int) -> dict[str, float]:
    """Return a model's times and memory; its networks are hardly trained."""
    X_train, y = make_classification(2000, X.shape[1], n_informative=15, random_state=0)
    model = FoRDEClassifier(max_epochs=2, random_state=0, **parameters).fit(X_train, y)
    calls = {
        "predict_proba": partial(model.predict_proba, X),
        **{n: partial(matrix_products, model, X, n) for n in CHUNKS},
        "encoder": partial(model.encoder_.transform, X),
    }
    seconds = interleaved_medians(calls, repeats)
    products = min(seconds[n] for n in CHUNKS)
    return {
        "predict_proba, s": seconds["predict_proba"],
        "matrix products, s": products,
        "ratio": seconds["predict_proba"] / products,
        "encoder, s": seconds["encoder"],
        "rows at a time": model.fitted_.rows_per_chunk,
        "memory beyond input and output, MB": peak_beyond(calls["predict_proba"]),
    }


def main() -> None:
    parser = make_parser(__doc__, "prediction", rows=1_000_000, repeats=3, threads=2)
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    n_rows, repeats = arguments.rows, arguments.repeats
    X = np.random.default_rng(0).normal(size=(n_rows, 30)).astype(np.float32)
    table = {name: measure(parameters, X, repeats) for name, parameters in MODELS.items()}
    title = f"{n_rows} × 30 rows, 10 members, medians of {repeats} interleaved calls"
    save_report(arguments.output, "", fixed(pd.DataFrame(table), 2), title=title)


if __name__ == "__main__":
    main()
