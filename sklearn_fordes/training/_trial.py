"""A step on two rows before training, so that a module that doesn't fit is told at once."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from sklearn_fordes.particles import SPACES, accumulate_gradients, seeded_generators
from sklearn_fordes.training._data import Rows
from sklearn_fordes.training._net import ParticleNet
from sklearn_fordes.training._schedule import Points


def try_step(net: ParticleNet, rows: Rows, n_outputs: int, points: Points | None = None) -> None:
    """Try a step on two rows, and leave the net as it was.

    Parameters
    ----------
    net : ParticleNet
        Initialised.
    rows : Rows
        With targets.
    n_outputs : int
        How many outputs the module must have for a row.
    points : callable, optional
        Gives points at which members are compared beside the rows, see `ParticleNet`.

    Raises
    ------
    ValueError
        If the module's output has another shape, or can't be evaluated or differentiated.
    """
    ensemble = net.module_.train()
    X, y = rows.X[:2], cast("Tensor", rows.y)[:2]
    with seeded_generators(0, net.device):  # of a whole batch, which a perturbation may need
        tried_points = None if points is None else points(rows.X[: net.batch_size], len(X))
    buffers = [buffer.clone() for buffer in ensemble.buffers()]
    try:
        with seeded_generators(0, net.device):
            shape = tuple(ensemble(X).shape[1:])
    except RuntimeError as error:
        raise ValueError(
            f"Got a module that can't be evaluated on rows of shape {tuple(X.shape[1:])} ({error}),"
            " but expected one that maps them to outputs, and that torch.func.vmap can batch over "
            "members."
        ) from error
    if shape != (len(X), n_outputs):
        raise ValueError(
            f"Got output of shape {shape} from the module for {len(X)} rows, but expected "
            f"{(len(X), n_outputs)}: (n_rows, n_outputs), {net.outputs_are}."
        )
    try:
        with seeded_generators(0, net.device):
            accumulate_gradients(
                ensemble,
                X,
                y,
                repulsion=net.repulsion,
                likelihood=net.likelihood,
                points=tried_points,
            )
    except RuntimeError as error:
        if net.repulsion is not None and net.repulsion.space not in SPACES.values():
            raise  # the function's own
        raise ValueError(
            f"Got a module that can't be trained ({error}), but expected one whose output can be "
            "differentiated twice, by its input and its weights. repulsion='none', 'weight' or "
            "'function' need the weights only."
        ) from error
    net.optimizer_.zero_grad()
    for buffer, before in zip(ensemble.buffers(), buffers, strict=True):
        buffer.copy_(before)
