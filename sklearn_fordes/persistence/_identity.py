"""What tells fits from others: a checksum of values, and descriptions of objects and functions."""

from __future__ import annotations

import hashlib
import json
import types
from collections.abc import Mapping
from contextlib import suppress
from inspect import signature
from typing import Any

import numpy as np
import torch

from sklearn_fordes.persistence._file import library_versions
from sklearn_fordes.persistence._values import can_pack, pack


def digest(values: Mapping[str, Any]) -> str:
    """Return a checksum of values that a file can hold, and of the libraries' versions.

    It is equal for equal values of one type.

    Parameters
    ----------
    values : dict

    Returns
    -------
    str
        Of 32 hexadecimal digits.
    """
    arrays: dict[str, Any] = {}
    text = json.dumps({name: pack(value, name, arrays) for name, value in values.items()})
    total = hashlib.sha256(json.dumps([text, library_versions()]).encode())
    for name, array in sorted(arrays.items()):
        total.update(f"{name} {array.dtype} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:32]


class Describer:
    """Describe values by values that a file can hold, which tell them from others.

    An object whose constructor's parameters are its attributes, as scikit-learn's convention has
    it, counts by these, so that notes which it makes later do not matter; another one by what a
    pickle would hold of it; a function by its code, and by what it closes over; a class by its
    name. Each is described once.

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
            self._known[id(value)] = value, digest({"value": described})
        return self._known[id(value)][1]

    def _parts_of(self, value: Any) -> Any:
        if isinstance(value, torch.nn.Parameter) and not self._has_weights:
            return [*value.shape, str(value.dtype), value.requires_grad]
        if isinstance(value, torch.Tensor):
            plain = value.detach().as_subclass(torch.Tensor)
            return [_name_of(type(value)), plain if can_pack(plain) else str(plain)]
        if isinstance(value, np.ndarray) and can_pack(value):
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


def _parameters_of(value: Any) -> dict[str, Any] | None:
    """Return what the constructor of an object has taken, if it is kept by that name."""
    try:
        _, *parameters = signature(type(value).__init__).parameters.values()
    except ValueError:  # Some types of C have no signature.
        return None
    attributes = getattr(value, "__dict__", {})
    are_kept = all(p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters)
    if not (are_kept and attributes and {p.name for p in parameters} <= {*attributes}):
        return None
    return {p.name: attributes[p.name] for p in parameters}


def _reduced(value: Any) -> list[Any]:
    """Return what a pickle would hold of an object, or its attributes if it can't be pickled."""
    parameters = _parameters_of(value)
    if parameters is not None:
        return [parameters]
    try:
        reduced = value.__reduce_ex__(4)
    except Exception:  # Locks, streams and modules, or an object that refuses.
        return [getattr(value, "__name__", None), getattr(value, "__dict__", None)]
    if isinstance(reduced, str):
        return [reduced]
    kind, arguments, *others = reduced
    items = [None if i is None else list(i) for i in others[1:3]]
    return [kind, arguments, *others[:1], *items]
