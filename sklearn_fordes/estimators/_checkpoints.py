"""Which checkpoint is that of a fit: the same call, on the same rows, finds its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import sklearn_fordes
from sklearn_fordes import persistence, training

# Parameters that do not change what a fit does, or whose effect the rows and the members have.
_OF_NO_EFFECT = (
    "checkpoint_dir",
    "max_time",
    "verbose",
    "device",
    "random_state",
    "warm_start",
    "encoder",
    "validation_fraction",
    "class_weight",
    "categorical_features",
)
# Objects within objects that are described by their parts.
_DEEPEST = 4


def random_state_of(estimator: Any) -> Any:
    """Return the estimator's `random_state`, and for None with checkpoints that of their folder."""
    if estimator.random_state is not None or estimator.checkpoint_dir is None:
        return estimator.random_state
    folder = _folder_of(estimator)
    with persistence.naming_checkpoint_dir():
        return persistence.seed_in(folder)


def checkpoint_of(
    estimator: Any,
    rows: training.DeviceDataset,
    members: Mapping[str, Any],
    seeds: list[int],
    state: training.TrainingState | None,
) -> persistence.Checkpoint | None:
    """Return the checkpoint of a fit, if the estimator's `checkpoint_dir` asks for one.

    Parameters
    ----------
    estimator : BaseFoRDE
    rows : DeviceDataset
        On which it will be trained.
    members : dict of Tensor
        Initial weights and buffers by name.
    seeds : list of int
    state : TrainingState or None
        What an earlier fit has left, from which this one goes on.

    Returns
    -------
    Checkpoint or None
        Its name is a checksum of all that determines the fit: also of the parameters and versions.
        Functions and classes count by their names.
    """
    if estimator.checkpoint_dir is None:
        return None
    parameters = {
        name: value
        for name, value in estimator.get_params(deep=False).items()
        if name not in _OF_NO_EFFECT
    }
    identity = persistence.digest(
        {
            "kind": type(estimator).__qualname__,
            "parameters": _described(parameters),
            "rows": rows.tensors(),
            "members": dict(members),
            "seeds": seeds,
            "state": None if state is None else state.to_dict(),
            "version": sklearn_fordes.__version__,
        }
    )
    name = f"{type(estimator).__name__}-{identity}.safetensors"
    path = os.path.join(_folder_of(estimator), name)
    return persistence.Checkpoint(path, sklearn_fordes.__version__)


def _folder_of(estimator: Any) -> str:
    folder = os.fspath(estimator.checkpoint_dir)
    with persistence.naming_checkpoint_dir():
        os.makedirs(folder, exist_ok=True)
    return str(folder)


def _described(value: Any, depth: int = 0) -> Any:
    """Return a value that a file can hold, which tells this value from others."""
    if persistence.can_pack(value):
        return value
    if isinstance(value, dict):
        return {str(key): _described(part, depth) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_described(part, depth) for part in value]
    described = value if hasattr(value, "__qualname__") else type(value)
    name = f"{described.__module__}.{described.__qualname__}"
    parts = vars(value) if described is not value and hasattr(value, "__dict__") else {}
    return [name, _described(dict(parts), depth + 1) if parts and depth < _DEEPEST else None]
