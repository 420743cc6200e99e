"""Which checkpoint is that of a fit: the same call, on the same rows, finds its own."""

from __future__ import annotations

import os
import types
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch

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


def random_state_of(estimator: Any) -> Any:
    """Return the estimator's `random_state`, and for None with checkpoints that of their folder."""
    if estimator.random_state is not None or estimator.checkpoint_dir is None:
        return estimator.random_state
    folder = _folder_of(estimator)
    with persistence.naming_checkpoint_dir():
        return persistence.seed_in(folder)


def checkpoint_of(
    estimator: Any,
    encoder: Any,
    rows: training.DeviceDataset,
    members: Mapping[str, Any],
    seeds: list[int],
    state: training.TrainingState | None,
) -> persistence.Checkpoint | None:
    """Return the checkpoint of a fit, if the estimator's `checkpoint_dir` asks for one.

    Parameters
    ----------
    estimator : BaseFoRDE
    encoder : transformer
        Fitted.
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
        Classes count by their names.
    """
    if estimator.checkpoint_dir is None:
        return None
    # The weights of a module matter as far as the members have them.
    parameters = {
        name: _Describer(has_weights=name != "module").describe(value)
        for name, value in sorted(estimator.get_params(deep=False).items())
        if name not in _OF_NO_EFFECT
    }
    identity = persistence.digest(
        {
            "kind": type(estimator).__qualname__,
            "parameters": parameters,
            "rows": rows.tensors(),
            # An encoder says by which columns of the table encoded ones are corrupted and compared.
            "column_map": getattr(encoder, "column_map_", None),
            "augmentation": _Describer(has_weights=True).describe(rows.augmentation),
            "members": dict(members),
            "seeds": seeds,
            "state": None if state is None else _of_all_processes(state).to_dict(),
            "version": sklearn_fordes.__version__,
        }
    )
    name = f"{type(estimator).__name__}-{identity}.safetensors"
    path = os.path.join(_folder_of(estimator), name)
    return persistence.Checkpoint(path, sklearn_fordes.__version__)


def _of_all_processes(state: training.TrainingState) -> training.TrainingState:
    """Return a state without how long its epochs took."""
    history = [{k: v for k, v in epoch.items() if k != "dur"} for epoch in state.history]
    return state._replace(history=history)


def _folder_of(estimator: Any) -> str:
    # Code of the user's may change the working directory.
    folder = os.path.abspath(os.fsdecode(estimator.checkpoint_dir))
    with persistence.naming_checkpoint_dir():
        os.makedirs(folder, exist_ok=True)
    return folder


class _Describer:
    """Describe values by values that a file can hold, which tell them from others.

    An object counts by what a pickle would hold of it, so that caches and logs that are no part of
    it do not matter; a function by its code, and by what it closes over. Each is described once.

    Parameters
    ----------
    has_weights : bool
        Whether a parameter of a module counts by its numbers, and not only by its shape.
    """

    def __init__(self, *, has_weights: bool) -> None:
        self._has_weights = has_weights
        # The objects too: of one that is gone another could have the id.
        self._known: dict[int, tuple[Any, Any]] = {}

    def describe(self, value: Any) -> Any:
        """Return a description, which is equal for equal values in any process."""
        if isinstance(value, np.bool_ | np.integer | np.floating):
            value = value.item()  # It acts as the number that it is.
        if value is None or type(value) in (bool, int, float, str):
            return value
        if id(value) not in self._known:
            self._known[id(value)] = value, "itself"
            described = self._parts_of(value)
            self._known[id(value)] = value, persistence.digest({"value": described})
        return self._known[id(value)][1]

    def _parts_of(self, value: Any) -> Any:
        if isinstance(value, torch.nn.Parameter) and not self._has_weights:
            return [*value.shape, str(value.dtype), value.requires_grad]
        if isinstance(value, torch.Tensor):
            plain = value.detach().as_subclass(torch.Tensor)
            return [_name_of(type(value)), plain if persistence.can_pack(plain) else str(plain)]
        if isinstance(value, np.ndarray) and persistence.can_pack(value):
            return value
        if isinstance(value, bytes | bytearray):
            return [_name_of(type(value)), value.hex()]
        if type(value) in (list, tuple):
            return [self.describe(part) for part in value]
        if isinstance(value, set | frozenset):
            parts = [self.describe(part) for part in value]
            return [_name_of(type(value)), sorted(parts, key=repr)]
        if type(value) is dict:
            return {"dict": [[self.describe(k), self.describe(v)] for k, v in value.items()]}
        if isinstance(value, type):
            return _name_of(value)
        if isinstance(value, types.CodeType):
            names = [*value.co_names, "", *value.co_varnames, "", *value.co_freevars]
            return [value.co_code.hex(), names, self.describe(value.co_consts)]
        if isinstance(value, types.FunctionType):
            held = (value.__code__, value.__defaults__, value.__kwdefaults__, value.__closure__)
            return [_name_of(value), *map(self.describe, held)]
        if isinstance(value, types.CellType):
            with suppress(ValueError):  # It may be empty.
                return self.describe(value.cell_contents)
        return [_name_of(type(value)), *map(self.describe, _reduced(value))]


def _name_of(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _reduced(value: Any) -> list[Any]:
    """Return what a pickle would hold of an object, or its attributes if it can't be pickled."""
    try:
        reduced = value.__reduce_ex__(4)
    except Exception:  # Locks, streams and modules, or an object that refuses.
        return [getattr(value, "__name__", None), getattr(value, "__dict__", None)]
    if isinstance(reduced, str):
        return [reduced]
    kind, arguments, *others = reduced
    items = [None if i is None else list(i) for i in others[1:3]]
    return [kind, arguments, *others[:1], *items]
