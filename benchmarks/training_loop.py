"""The estimator's training loop against a plain torch loop, and against nets one by one in skorch.

Ten members of 2 × 128 on 10,000 rows of 10 columns, batches of 128; whole fits of a few epochs.
Run ``make bench``.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import make_classification
from skorch import NeuralNetClassifier

from benchmarks.environment import describe_environment
from benchmarks.timing import interleaved_medians
from sklearn_fordes import FoRDEClassifier
from sklearn_fordes.particles import Ensemble, Repulsion, accumulate_gradients
from sklearn_fordes.tabular import MLP

N_MEMBERS, BATCH_SIZE, LR = 10, 128, 1e-3


def fit_estimator(X: np.ndarray, y: np.ndarray, epochs: int, repulsion: str) -> None:
    FoRDEClassifier(
        N_MEMBERS,
        repulsion=repulsion,
        max_epochs=epochs,
        batch_size=BATCH_SIZE,
        lr=LR,
        early_stopping=False,
        random_state=0,
        device="cpu",
    ).fit(X, y)


def fit_plain_torch(X: np.ndarray, y: np.ndarray, epochs: int, repulsion: str) -> None:
    """Do the same arithmetic with nothing around it."""
    ensemble = Ensemble(partial(MLP, X.shape[1], 2), N_MEMBERS)
    optimizer = torch.optim.AdamW(ensemble.parameters(), lr=LR, fused=True)
    force = None if repulsion == "none" else Repulsion(strength=5.0, fraction=0.25)
    inputs, labels = torch.from_numpy(X), torch.from_numpy(y)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs)).split(BATCH_SIZE):
            optimizer.zero_grad()
            accumulate_gradients(ensemble, inputs[rows], labels[rows], repulsion=force)
            optimizer.step()


def fit_plain_skorch(X: np.ndarray, y: np.ndarray, epochs: int) -> None:
    """Fit ten nets in turn with skorch's defaults, on all rows."""
    for _ in range(N_MEMBERS):
        NeuralNetClassifier(
            partial(MLP, X.shape[1], 2),
            criterion=torch.nn.CrossEntropyLoss,
            optimizer=torch.optim.AdamW,
            lr=LR,
            max_epochs=epochs,
            batch_size=BATCH_SIZE,
            iterator_train__shuffle=True,
            train_split=None,
            verbose=0,
        ).fit(X, y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/training_loop.txt"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    X, y = make_classification(10_000, 10, n_informative=6, random_state=0)
    data = (X.astype(np.float32), y, arguments.epochs)
    seconds = interleaved_medians(
        {
            "estimator, none": lambda: fit_estimator(*data, "none"),
            "plain torch, none": lambda: fit_plain_torch(*data, "none"),
            "estimator, input_gradient": lambda: fit_estimator(*data, "input_gradient"),
            "plain torch, input_gradient": lambda: fit_plain_torch(*data, "input_gradient"),
            "ten nets in plain skorch": lambda: fit_plain_skorch(*data),
        },
        arguments.repeats,
    )
    ratios = {}
    for repulsion in ("none", "input_gradient"):
        ours = seconds[f"estimator, {repulsion}"]
        ratios[f"{repulsion}: estimator / plain torch"] = (
            ours / seconds[f"plain torch, {repulsion}"]
        )
        ratios[f"{repulsion}: estimator / ten nets in skorch"] = (
            ours / seconds["ten nets in plain skorch"]
        )
    report = "\n".join(
        [
            f"{arguments.epochs} epochs, medians of {arguments.repeats} interleaved fits, seed 0",
            describe_environment(),
            "",
            pd.Series(seconds, name="seconds").to_string(float_format="{:.3f}".format),
            "",
            pd.Series(ratios, name="ratio").to_string(float_format="{:.3f}".format),
        ]
    )
    print(report)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(report + "\n")


if __name__ == "__main__":
    main()
