"""Values as JSON and arrays, and back. A file names forms of this module, and nothing else."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.preprocessing import FunctionTransformer

from sklearn_fordes.particles import (
    CategoricalLikelihood,
    GaussianLikelihood,
    Lengthscale,
    QuantileLikelihood,
    Repulsion,
    to_arrays,
    to_tensors,
)
from sklearn_fordes.preprocessing import TabularEncoder, encoder_from, encoder_state
from sklearn_fordes.training import CellCorruption

_NUMBERS = re.compile(r"[<>|][biuf][1248]")
_BFLOAT16 = to_arrays(torch.zeros(0, dtype=torch.bfloat16)).dtype
_WHAT_TO_DO = {
    "callbacks": "Call set_params(callbacks=None) before save: they only act in fit.",
    "optimizer": "Call set_params(optimizer=None) before save: it only acts in fit.",
    "repulsion": "Call set_params(repulsion=…) with a name before save: it only acts in fit.",
    "augmentation": "Call set_params(augmentation=None) before save: it only acts in fit.",
    "validation_fraction": "Call set_params(validation_fraction='auto') before save: it only acts "
    "in fit.",
    "lengthscale": "Call set_params(lengthscale=…) with a name or an array before save: it only "
    "acts in fit.",
    "encoder": "Put it before the estimator, in a pipeline, and save it apart, or use a "
    "TabularEncoder.",
    "categorical_features": "Give it as a list.",
    "classes_": "Fit with whole numbers, floats, truth values or strings as labels.",
}


class UsersModule(NamedTuple):
    """Stands in a file for a module of the user's own, which the caller of `load` gives."""

    name: str


class Form(NamedTuple):
    """How values of one type are written in other values, and made of them again."""

    type: type
    parts: Callable[[Any], Any]
    make: Callable[[Any], Any]


def pack(value: Any, name: str, arrays: dict[str, NDArray[Any]]) -> Any:
    """Turn a value into JSON, and put its arrays aside.

    Parameters
    ----------
    value : object
        None, truth values, numbers, strings, lists, tuples, dicts, arrays of these, tensors, and
        the objects in `FORMS`.
    name : str
        Of the value, for arrays and errors.
    arrays : dict
        The arrays, of types that a safetensors file knows, are added to it.

    Returns
    -------
    object
        What `json.dumps` takes. `unpack` makes an equal value of the same type of it.

    Raises
    ------
    ValueError
        If the value, or something in it, is of another type.
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if type(value) is list:
        return [pack(item, f"{name}[{i}]", arrays) for i, item in enumerate(value)]
    if type(value) is dict:
        items = value.items()
        return {"dict": [[pack(k, name, arrays), pack(v, f"{name}.{k}", arrays)] for k, v in items]}
    if isinstance(value, np.ndarray):
        return _pack_array(value, name, arrays)
    if isinstance(value, np.generic) and _is_storable(value.dtype):
        return {"scalar": [value.dtype.str, pack(value.item(), name, arrays)]}
    tag = _tag_of(value)
    if tag is not None:
        of_parts = name if tag in _NOT_NAMED else f"{name}.{tag}"
        return {tag: pack(FORMS[tag].parts(value), of_parts, arrays)}
    raise _refusal(value, name)


def can_pack(value: Any) -> bool:
    """Return whether a file can hold a value."""
    try:
        pack(value, "", {})
    except ValueError:
        return False
    return True


def unpack(node: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """Make the value that `pack` turned into JSON and arrays.

    Parameters
    ----------
    node : object
        From `json.loads`.
    arrays : dict
        Each array is taken out when it is used, so that a small file can't make a large object.

    Returns
    -------
    object

    Raises
    ------
    Exception
        If the JSON is of another form.
    """
    if isinstance(node, list):
        return [unpack(item, arrays) for item in node]
    if not isinstance(node, dict):
        return node
    ((tag, parts),) = node.items()
    if tag == "array":
        return _unpack_array(parts, arrays)
    if tag == "dict":
        made = {unpack(key, arrays): unpack(value, arrays) for key, value in parts}
        if len(made) < len(parts):
            raise ValueError("a key is there twice")
        return made
    return _MAKERS[tag](unpack(parts, arrays))


def _tag_of(value: Any) -> str | None:
    """Return the name of the form of a value, if it has one."""
    if isinstance(value, type):
        return "optimizer" if vars(torch.optim).get(value.__name__) is value else None
    return next((tag for tag, form in FORMS.items() if type(value) is form.type), None)


def _refusal(value: Any, name: str) -> ValueError:
    parts = re.split(r"[.\[]", name)
    hint = next((text for part, text in _WHAT_TO_DO.items() if part in parts), "")
    shown = " ".join(repr(value).split())
    return ValueError(
        f"Got {name}={shown if len(shown) <= 80 else shown[:77] + '...'}, which a file without "
        "code can't hold, but expected None, numbers, strings, arrays of these, lists, tuples, "
        "dicts, a Repulsion, a CellCorruption, a TabularEncoder or a class of torch.optim. "
        f"{hint}".rstrip()
    )


def _is_storable(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "U" or bool(_NUMBERS.fullmatch(dtype.str))


def _pack_array(array: NDArray[Any], name: str, arrays: dict[str, NDArray[Any]]) -> Any:
    if type(array) not in (np.ndarray, np.memmap):
        raise _refusal(array, name)
    if array.dtype == object:
        return {"objects": [list(array.shape), pack(array.ravel().tolist(), name, arrays)]}
    is_bfloat16 = array.dtype == _BFLOAT16
    if not (is_bfloat16 or _is_storable(array.dtype)):
        raise _refusal(array, name)
    key = name
    while key in arrays:
        key += "'"
    if array.dtype.kind == "U":  # As code points, along a last axis.
        width = array.dtype.itemsize // 4
        plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
        arrays[key] = plain.view(np.uint32).reshape(*array.shape, width)
        return {"array": [key, array.dtype.str, []]}
    values = array["bfloat16"] if is_bfloat16 else array
    # Products of a matrix in another order of memory are rounded otherwise.
    values = values.astype(values.dtype.newbyteorder("="), order="K")
    axes = sorted(range(values.ndim), key=lambda axis: -values.strides[axis])
    arrays[key] = np.asarray(values.transpose(axes), order="C")
    return {"array": [key, "bfloat16" if is_bfloat16 else array.dtype.str, axes]}


def _unpack_array(parts: list[Any], arrays: dict[str, NDArray[Any]]) -> NDArray[Any]:
    key, name, axes = parts
    stored = arrays.pop(key)
    if name[1:].startswith("U"):
        dtype = np.dtype(f"{name[0]}U{stored.shape[-1]}")
        if stored.dtype != np.uint32 or dtype.str != name or axes:
            raise ValueError(f"array {key!r} is no text of type {name}")
        text = stored.view(dtype.newbyteorder("=")).reshape(stored.shape[:-1]).astype(dtype)
        text.tolist()  # It raises if a number is no character.
        return text
    is_bfloat16 = name == "bfloat16"
    if not (is_bfloat16 or _NUMBERS.fullmatch(name)):
        raise ValueError(f"array {key!r} is of unknown type {name!r}")
    dtype = np.dtype(np.int16 if is_bfloat16 else name)
    if stored.dtype != dtype.newbyteorder("=") or sorted(axes) != list(range(stored.ndim)):
        raise ValueError(f"array {key!r} is of type {stored.dtype} with axes {axes}, not {name}")
    values = stored.transpose(np.argsort(axes, kind="stable")) if axes else stored
    return values.view(_BFLOAT16) if is_bfloat16 else values.astype(dtype, order="K", copy=False)


def _object_array(parts: list[Any]) -> NDArray[np.object_]:
    shape, items = parts
    array = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):  # Assigned at once, numpy would look into them.
        array[i] = item
    return array.reshape(shape)


def _scalar(parts: list[Any]) -> Any:
    name, value = parts
    if not (_NUMBERS.fullmatch(name) or isinstance(value, str)):
        raise ValueError(f"no number is of type {name!r}")
    made = np.str_(value) if isinstance(value, str) else np.dtype(name).type(value)
    if made.dtype.newbyteorder("=") != np.dtype(name).newbyteorder("="):
        raise ValueError(f"{value!r} is not of type {name!r}")
    return made


def _random_state(parts: dict[str, Any]) -> np.random.RandomState:
    made = np.random.RandomState(0)
    if not 0 <= parts["state"]["pos"] <= len(made.get_state(legacy=False)["state"]["key"]):
        raise ValueError(f"position {parts['state']['pos']} of a random state")
    made.set_state(parts)
    return made


def _optimizer_class(name: str) -> type:
    found = vars(torch.optim)[name]
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise ValueError(f"{name!r} is no optimizer of torch")
    return found


def _index(parts: list[Any]) -> pd.Index:
    values, name = parts
    return pd.Index(values, name=name)


def _identity(parts: dict[str, Any]) -> FunctionTransformer:
    made = FunctionTransformer().set_output(transform="default")
    if not parts.keys() <= {"n_features_in_", "feature_names_in_"}:
        raise ValueError(f"an encoder with {sorted(parts)}")
    vars(made).update(parts)
    return made


def _identity_state(encoder: FunctionTransformer) -> dict[str, Any]:
    if encoder.get_params() != FunctionTransformer().get_params():
        raise _refusal(encoder, "encoder")
    return {name: value for name, value in vars(encoder).items() if name.endswith("_in_")}


def _of_arguments(kind: type) -> Form:
    """Return the form of a dataclass: its arguments by name."""
    names = [field.name for field in fields(kind) if field.init]
    return Form(kind, lambda value: {n: getattr(value, n) for n in names}, lambda p: kind(**p))


FORMS = {
    "tuple": Form(tuple, list, tuple),
    "RandomState": Form(
        np.random.RandomState, lambda value: value.get_state(legacy=False), _random_state
    ),
    "Tensor": Form(torch.Tensor, to_arrays, to_tensors),
    "device": Form(torch.device, str, torch.device),
    "Index": Form(pd.Index, lambda value: [value.to_numpy(), value.name], _index),
    "optimizer": Form(type, lambda value: value.__name__, _optimizer_class),
    "Lengthscale": Form(Lengthscale, list, lambda parts: Lengthscale(*parts)),
    "UsersModule": Form(UsersModule, list, lambda parts: UsersModule(*parts)),
    "TabularEncoder": Form(TabularEncoder, encoder_state, encoder_from),
    "FunctionTransformer": Form(FunctionTransformer, _identity_state, _identity),
    **{
        kind.__name__: _of_arguments(kind)
        for kind in (
            CellCorruption,
            Repulsion,
            CategoricalLikelihood,
            GaussianLikelihood,
            QuantileLikelihood,
        )
    },
}
# Their parts need no name of the form in the names of arrays and in errors.
_NOT_NAMED = ("tuple", "Tensor", "optimizer")
_MAKERS: dict[str, Callable[[Any], Any]] = {
    "float": lambda text: {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[text],
    "scalar": _scalar,
    "objects": _object_array,
    **{tag: form.make for tag, form in FORMS.items()},
}
