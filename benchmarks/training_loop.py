"""The estimator's training loop against a plain torch loop, and against nets one by one in skorch.

Ten members on 10,000 rows of 10 columns; whole fits of a few epochs. Against torch without
validation; against skorch with its defaults: a fifth of the rows held out, loss and accuracy on
them after each epoch.
Run ``make bench``.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
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
from sklearn_fordes.particles import Repulsion, accumulate_gradients
from sklearn_fordes.tabular import MLP, MLPEnsemble

N_MEMBERS, LR = 10, 1e-3
SHAPES = [  # hidden layer sizes, batch size
    ((64, 64), 128),
    ((32,), 128),
    ((128, 128), 32),
    ((128, 128), 128),
]


@dataclass
class Task:
    """Data and the settings that all contestants share."""

    X: np.ndarray
    y: np.ndarray
    hidden_layer_sizes: tuple[int, ...]
    batch_size: int
    epochs: int

    def member(self) -> MLP:
        return MLP(self.X.shape[1], 2, hidden_layer_sizes=self.hidden_layer_sizes)


def fit_estimator(task: Task, repulsion: str, *, validate: bool) -> None:
    FoRDEClassifier(
        N_MEMBERS,
        repulsion=repulsion,
        hidden_layer_sizes=task.hidden_layer_sizes,
        max_epochs=task.epochs,
        batch_size=task.batch_size,
        lr=LR,
        encoder=None,  # the plain loops have none
        module__dropout=0.0,
        ema_decay=0.0,
        early_stopping=validate,
        validation_fraction=0.2,
        random_state=0,
        device="cpu",
    ).fit(task.X, task.y)


def fit_plain_torch(task: Task, repulsion: str) -> None:
    """Do the same arithmetic with nothing around it."""
    ensemble = MLPEnsemble(task.member, N_MEMBERS)
    weights = [p for p in ensemble.parameters() if p.ndim == 3]
    biases = [p for p in ensemble.parameters() if p.ndim == 2]
    optimizer = torch.optim.AdamW(
        [{"params": weights, "weight_decay": 1e-4}, {"params": biases, "weight_decay": 0.0}],
        lr=LR,
        fused=True,
    )
    force = None if repulsion == "none" else Repulsion(strength=5.0, fraction=0.25)
    inputs, labels = torch.from_numpy(task.X), torch.from_numpy(task.y)
    for _ in range(task.epochs):
        for rows in torch.randperm(len(inputs)).split(task.batch_size):
            optimizer.zero_grad()
            accumulate_gradients(ensemble, inputs[rows], labels[rows], repulsion=force)
            optimizer.step()


def fit_plain_skorch(task: Task) -> None:
    """Fit ten nets in turn."""
    for _ in range(N_MEMBERS):
        NeuralNetClassifier(
            task.member,
            criterion=torch.nn.CrossEntropyLoss,
            optimizer=torch.optim.AdamW,
            lr=LR,
            max_epochs=task.epochs,
            batch_size=task.batch_size,
            iterator_train__shuffle=True,
            verbose=0,
        ).fit(task.X, task.y)


def measure(task: Task, repeats: int) -> dict[str, float]:
    """Return seconds of each contestant and the ratios."""
    contestants = {"ten nets in skorch": partial(fit_plain_skorch, task)}
    for repulsion in ("none", "input_gradient"):
        fit = partial(fit_estimator, task, repulsion)
        contestants[f"estimator, {repulsion}"] = partial(fit, validate=False)
        contestants[f"plain torch, {repulsion}"] = partial(fit_plain_torch, task, repulsion)
        contestants[f"validated estimator, {repulsion}"] = partial(fit, validate=True)
    seconds = interleaved_medians(contestants, repeats)
    ratios = {}
    for repulsion in ("none", "input_gradient"):
        ratios[f"estimator / plain torch, {repulsion}"] = (
            seconds[f"estimator, {repulsion}"] / seconds[f"plain torch, {repulsion}"]
        )
        ratios[f"estimator / ten nets in skorch, {repulsion}"] = (
            seconds[f"validated estimator, {repulsion}"] / seconds["ten nets in skorch"]
        )
    return {f"seconds: {name}": value for name, value in seconds.items()} | {
        f"ratio: {name}": value for name, value in ratios.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/training_loop.txt"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    X, y = make_classification(10_000, 10, n_informative=6, random_state=0)
    table = pd.DataFrame(
        {
            f"{'x'.join(map(str, sizes))}, batch {batch_size}": measure(
                Task(X.astype(np.float32), y, sizes, batch_size, arguments.epochs),
                arguments.repeats,
            )
            for sizes, batch_size in SHAPES
        }
    )
    report = "\n".join(
        [
            f"{arguments.epochs} epochs, medians of {arguments.repeats} interleaved fits, seed 0",
            describe_environment(),
            "",
            table.to_string(float_format="{:.3f}".format),
        ]
    )
    print(report)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(report + "\n")


if __name__ == "__main__":
    main()
