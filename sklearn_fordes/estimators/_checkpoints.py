"""Which checkpoint is that of a fit: the same call, on the same rows, finds its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from inspect import signature
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np

import sklearn_fordes
from sklearn_fordes import persistence, training

# Parameters that are not part of the name: they change nothing of a fit, or their effect is in the
# rows, the members and the seeds.
_NOT_IN_THE_NAME = (
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
# Objects within objects that are described by their parts; deeper ones count by their types.
_DEEPEST = 5


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
        Its name is a checksum of all that determines the fit: also of the parameters, versions and
        the kind of device. Functions count by their code and what they enclose, classes by their
        names, and objects by their parameters.
    """
    if estimator.checkpoint_dir is None:
        return None
    parameters = {
        name: value
        for name, value in estimator.get_params(deep=False).items()
        if name not in _NOT_IN_THE_NAME
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
            "device": rows.X.device.type,
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
    if isinstance(value, Mapping):
        return [[str(key), _described(part, depth)] for key, part in value.items()]
    if isinstance(value, list | tuple):
        return [_described(part, depth) for part in value]
    if isinstance(value, set | frozenset):
        return sorted(repr(_described(part, depth)) for part in value)
    described = value if hasattr(value, "__qualname__") else type(value)
    name = f"{getattr(described, '__module__', '')}.{described.__qualname__}"
    parts = {} if depth >= _DEEPEST else _parts_of(value)
    return [name, {key: _described(part, depth + 1) for key, part in parts.items()}]


def _parts_of(value: Any) -> dict[str, Any]:
    """Return what tells an object, or a function, from others of its type, or name."""
    if isinstance(value, CodeType):
        return {"code": value.co_code.hex(), "constants": value.co_consts, "names": value.co_names}
    if isinstance(value, partial):
        return {"func": value.func, "args": value.args, "keywords": value.keywords}
    if isinstance(value, np.random.Generator):
        return {"state": value.bit_generator.state}
    if isinstance(value, MethodType):
        return {"self": value.__self__, "function": value.__func__}
    if isinstance(value, FunctionType):
        cells = []
        for cell in value.__closure__ or ():
            with suppress(ValueError):  # It is empty yet.
                cells.append(cell.cell_contents)
        defaults = value.__defaults__, value.__kwdefaults__
        return {"code": value.__code__, "defaults": defaults, "encloses": cells}
    if isinstance(value, type):
        return {}
    attributes = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = getattr(kind, "__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                attributes[name] = getattr(value, name)
    # Attributes with an underscore at the end are learnt. What a constructor takes is the rest, if
    # it is kept by that name; other attributes may be notes that a callback makes.
    chosen = {name: part for name, part in attributes.items() if not name.endswith("_")}
    try:
        parameters = [*signature(type(value).__init__).parameters.values()][1:]
    except ValueError:  # Some types of C have no signature.
        return chosen
    names = {p.name for p in parameters}
    takes_all = any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters)
    return chosen if takes_all or not names <= {*chosen} else {n: chosen[n] for n in names}
