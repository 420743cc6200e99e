"""The estimator's training loop against a plain torch loop, and against nets one by one.

Ten members on 6,000 rows of 30 columns; whole fits of a few epochs. Against torch without
validation; against skorch with its defaults: a fifth of the rows held out, loss and accuracy on
them after each epoch; against scikit-learn's MLPClassifier with early stopping on a fifth, which
stops at no epoch. "default" is the recipe with embedding, dropout and averaged weights: skorch
trains the same nets, and plain ones without. The estimator and plain torch multiply in bfloat16
where the processor does, and the estimator in single precision too, as the others.
Run ``make bench``.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from skorch import NeuralNetClassifier

from benchmarks._harness import fixed, interleaved_medians, make_parser, save_report
from benchmarks._steps import A_QUARTER, PERIOD, Shape, make_step
from sklearn_fordes import FoRDEClassifier
from sklearn_fordes.networks import stack_members

N_MEMBERS, N_FEATURES, LR = 10, 30, 1e-3
REPULSIONS = ("none", "input_gradient")
NETS = ("ten nets in skorch", "ten plain nets in skorch", "ten MLPClassifiers")
SHAPES = [
    Shape(sizes, N_MEMBERS, 128, N_FEATURES, mixed_precision="auto")
    for sizes in ((32,), (128, 128), (256, 256, 256))
]
SHAPES.append(SHAPES[1]._replace(is_default=True))
# The plain loops have no encoder.
PLAIN = {
    "encoder": None,
    "augmentation": None,
    "module__dropout": 0.0,
    "module__embedded_features": (),
    "ema_decay": 0.0,
}


class Task(NamedTuple):
    """Data and the settings that all contestants share."""

    shape: Shape
    X: np.ndarray
    y: np.ndarray
    epochs: int


def fit_estimator(
    task: Task, repulsion: str, *, validate: bool, precision: bool | str = "auto"
) -> None:
    FoRDEClassifier(
        N_MEMBERS,
        repulsion=repulsion,
        hidden_layer_sizes=task.shape.hidden_layer_sizes,
        max_epochs=task.epochs,
        batch_size=task.shape.batch_size,
        lr=LR,
        module__mixed_precision=precision,
        **({} if task.shape.is_default else PLAIN),
        early_stopping=validate,
        n_iter_no_change=task.epochs,
        validation_fraction=0.2,
        random_state=0,
        device="cpu",
    ).fit(task.X, task.y)


def fit_plain_torch(task: Task, repulsion: str) -> None:
    """Do the same arithmetic with nothing around it."""
    ensemble = stack_members(task.shape.member, N_MEMBERS)
    weights = [p for p in ensemble.parameters() if p.ndim == 3]
    biases = [p for p in ensemble.parameters() if p.ndim == 2]
    optimizer = torch.optim.AdamW(
        [{"params": weights, "weight_decay": 1e-4}, {"params": biases, "weight_decay": 0.0}],
        lr=LR,
        fused=True,
    )
    force = None if repulsion == "none" else A_QUARTER
    inputs, labels = torch.from_numpy(task.X), torch.from_numpy(task.y)
    n_steps = 0
    for _ in range(task.epochs):
        for rows in torch.randperm(len(inputs)).split(task.shape.batch_size):
            now = force if n_steps % PERIOD == 0 else None
            make_step(ensemble, optimizer, inputs[rows], labels[rows], now)
            n_steps += 1


def fit_plain_skorch(task: Task, shape: Shape) -> None:
    """Fit ten nets in turn."""
    for _ in range(N_MEMBERS):
        NeuralNetClassifier(
            shape.member,
            criterion=torch.nn.CrossEntropyLoss,
            optimizer=torch.optim.AdamW,
            lr=LR,
            max_epochs=task.epochs,
            batch_size=task.shape.batch_size,
            iterator_train__shuffle=True,
            verbose=0,
        ).fit(task.X, task.y)


def fit_scikit_learn(task: Task) -> None:
    """Fit ten scikit-learn networks in turn."""
    for seed in range(N_MEMBERS):
        MLPClassifier(
            task.shape.hidden_layer_sizes,
            batch_size=task.shape.batch_size,
            max_iter=task.epochs,
            early_stopping=True,
            validation_fraction=0.2,
            n_iter_no_change=task.epochs,
            random_state=seed,
        ).fit(task.X, task.y)


def ratios(seconds: dict[str, float], repulsion: str) -> dict[str, float]:
    """Compare the estimator with the plain loop where there is one, and with nets one by one."""
    ours, plain = f"estimator, {repulsion}", f"plain torch, {repulsion}"
    pairs = {f"estimator / {plain}": (ours, plain)} if plain in seconds else {}
    for others in filter(seconds.__contains__, NETS):
        for name in (ours, f"{ours}, single precision"):
            pairs[f"{others} / {name}"] = others, f"validated {name}"
    return {f"ratio: {name}": seconds[a] / seconds[b] for name, (a, b) in pairs.items()}


def measure(task: Task, repeats: int) -> dict[str, float]:
    """Return seconds of each contestant and the ratios."""
    contestants = {
        "ten nets in skorch": partial(fit_plain_skorch, task, task.shape),
        "ten MLPClassifiers": partial(fit_scikit_learn, task),
    }
    if task.shape.is_default:
        plain = task.shape._replace(is_default=False)
        contestants["ten plain nets in skorch"] = partial(fit_plain_skorch, task, plain)
    for repulsion in REPULSIONS:
        fit = partial(fit_estimator, task, repulsion)
        contestants[f"estimator, {repulsion}"] = partial(fit, validate=False)
        if not task.shape.is_default:
            contestants[f"plain torch, {repulsion}"] = partial(fit_plain_torch, task, repulsion)
        contestants[f"validated estimator, {repulsion}"] = partial(fit, validate=True)
        single = partial(fit, validate=True, precision=False)
        contestants[f"validated estimator, {repulsion}, single precision"] = single
    seconds = interleaved_medians(contestants, repeats)
    table = {f"seconds: {name}": value for name, value in seconds.items()}
    for repulsion in REPULSIONS:
        table |= ratios(seconds, repulsion)
    return table


def main() -> None:
    arguments = make_parser(__doc__, "training_loop", epochs=3, repeats=5, threads=2).parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore", ConvergenceWarning)  # a few epochs only
    epochs, repeats = arguments.epochs, arguments.repeats
    X, y = make_classification(6000, N_FEATURES, n_informative=15, random_state=0)
    table = {}
    for shape in SHAPES:
        sizes = "x".join(map(str, shape.hidden_layer_sizes))
        name = f"{'default ' * shape.is_default}{sizes}, batch {shape.batch_size}"
        table[name] = measure(Task(shape, X.astype(np.float32), y, epochs), repeats)
    title = f"{epochs} epochs, medians of {repeats} interleaved fits, seed 0"
    save_report(arguments.output, "", fixed(pd.DataFrame(table), 3), title=title)


if __name__ == "__main__":
    main()
