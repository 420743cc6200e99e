"""The estimator's training loop against a plain torch loop, and against nets one by one.

Ten members on 10,000 rows of 10 columns; whole fits of a few epochs. Against torch without
validation; against skorch with its defaults: a fifth of the rows held out, loss and accuracy on
them after each epoch; against scikit-learn's MLPClassifier with early stopping on a fifth, which
stops at no epoch. "default" is the recipe with embedding, dropout and averaged weights, and skorch
trains the same nets.
Run ``make bench``.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from skorch import NeuralNetClassifier

from benchmarks.environment import describe_environment
from benchmarks.timing import interleaved_medians
from sklearn_fordes import FoRDEClassifier
from sklearn_fordes.networks import MLP, stack_members
from sklearn_fordes.particles import Repulsion, accumulate_gradients

N_MEMBERS, LR = 10, 1e-3
PERIOD = FoRDEClassifier().repulsion_period
SHAPES = [  # hidden layer sizes, batch size, whether it is the default recipe
    ((64, 64), 128, False),
    ((32,), 128, False),
    ((128, 128), 32, False),
    ((128, 128), 128, False),
    ((128, 128), 128, True),
]
# The plain loops have no encoder.
PLAIN = {"encoder": None, "module__dropout": 0.0, "ema_decay": 0.0}


@dataclass
class Task:
    """Data and the settings that all contestants share."""

    X: np.ndarray
    y: np.ndarray
    hidden_layer_sizes: tuple[int, ...]
    batch_size: int
    epochs: int
    is_default: bool = False

    def member(self) -> MLP:
        extra: dict[str, Any] = {}
        if self.is_default:
            extra = {"embedded_features": range(self.X.shape[1]), "dropout": 0.1}
        return MLP(self.X.shape[1], 2, hidden_layer_sizes=self.hidden_layer_sizes, **extra)


def fit_estimator(task: Task, repulsion: str, *, validate: bool) -> None:
    FoRDEClassifier(
        N_MEMBERS,
        repulsion=repulsion,
        hidden_layer_sizes=task.hidden_layer_sizes,
        max_epochs=task.epochs,
        batch_size=task.batch_size,
        lr=LR,
        **({} if task.is_default else PLAIN),
        early_stopping=validate,
        n_iter_no_change=task.epochs,
        validation_fraction=0.2,
        random_state=0,
        device="cpu",
    ).fit(task.X, task.y)


def fit_plain_torch(task: Task, repulsion: str) -> None:
    """Do the same arithmetic with nothing around it."""
    ensemble = stack_members(task.member, N_MEMBERS)
    weights = [p for p in ensemble.parameters() if p.ndim == 3]
    biases = [p for p in ensemble.parameters() if p.ndim == 2]
    optimizer = torch.optim.AdamW(
        [{"params": weights, "weight_decay": 1e-4}, {"params": biases, "weight_decay": 0.0}],
        lr=LR,
        fused=True,
    )
    force = None if repulsion == "none" else Repulsion(strength=5.0, fraction=0.25)
    inputs, labels = torch.from_numpy(task.X), torch.from_numpy(task.y)
    n_steps = 0
    for _ in range(task.epochs):
        for rows in torch.randperm(len(inputs)).split(task.batch_size):
            optimizer.zero_grad()
            acts = n_steps % PERIOD == 0
            accumulate_gradients(
                ensemble, inputs[rows], labels[rows], repulsion=force if acts else None
            )
            optimizer.step()
            n_steps += 1


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


def fit_scikit_learn(task: Task) -> None:
    """Fit ten scikit-learn networks in turn."""
    for seed in range(N_MEMBERS):
        MLPClassifier(
            task.hidden_layer_sizes,
            batch_size=task.batch_size,
            max_iter=task.epochs,
            early_stopping=True,
            validation_fraction=0.2,
            n_iter_no_change=task.epochs,
            random_state=seed,
        ).fit(task.X, task.y)


def measure(task: Task, repeats: int) -> dict[str, float]:
    """Return seconds of each contestant and the ratios."""
    contestants = {
        "ten nets in skorch": partial(fit_plain_skorch, task),
        "ten MLPClassifiers": partial(fit_scikit_learn, task),
    }
    for repulsion in ("none", "input_gradient"):
        fit = partial(fit_estimator, task, repulsion)
        contestants[f"estimator, {repulsion}"] = partial(fit, validate=False)
        if not task.is_default:
            contestants[f"plain torch, {repulsion}"] = partial(fit_plain_torch, task, repulsion)
        contestants[f"validated estimator, {repulsion}"] = partial(fit, validate=True)
    seconds = interleaved_medians(contestants, repeats)
    ratios = {}
    for repulsion in ("none", "input_gradient"):
        if not task.is_default:
            ratios[f"estimator / plain torch, {repulsion}"] = (
                seconds[f"estimator, {repulsion}"] / seconds[f"plain torch, {repulsion}"]
            )
        for others in ("ten nets in skorch", "ten MLPClassifiers"):
            ratios[f"{others} / estimator, {repulsion}"] = (
                seconds[others] / seconds[f"validated estimator, {repulsion}"]
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
    warnings.simplefilter("ignore", ConvergenceWarning)  # a few epochs only

    X, y = make_classification(10_000, 10, n_informative=6, random_state=0)
    table = pd.DataFrame(
        {
            f"{'default ' * is_default}{'x'.join(map(str, sizes))}, batch {batch_size}": measure(
                Task(X.astype(np.float32), y, sizes, batch_size, arguments.epochs, is_default),
                arguments.repeats,
            )
            for sizes, batch_size, is_default in SHAPES
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
