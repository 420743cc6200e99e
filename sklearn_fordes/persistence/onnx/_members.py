"""The networks of an ensemble as nodes of a graph."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sklearn_fordes.inference import ordinary_state
from sklearn_fordes.networks import (
    MLP,
    Dropout,
    HomoscedasticNoise,
    PeriodicEmbedding,
    is_as_built,
)
from sklearn_fordes.particles import Ensemble
from sklearn_fordes.persistence.onnx._graph import OPSET, ROWS, Graph, Value

# Of the default network.
ACTIVATIONS: dict[type[nn.Module], Callable[[Value], Value]] = {
    nn.GELU: lambda a: a * _half(_half(a * np.float32(math.sqrt(2))).call("Erf") + np.float32(1)),
    nn.ReLU: lambda a: a.call("Relu"),
    nn.SiLU: lambda a: a * a.call("Sigmoid"),
    nn.Tanh: lambda a: a.call("Tanh"),
}


def _half(a: Value) -> Value:
    return a * np.float32(0.5)


def outputs_of(graph: Graph, ensemble: Ensemble, rows: Value, shape: tuple[int, ...]) -> Value:
    """Add the members of an ensemble to a graph.

    Parameters
    ----------
    graph : Graph
    ensemble : Ensemble
        In evaluation mode.
    rows : Value of shape (B, ...)
        Encoded.
    shape : tuple of int
        Of an encoded row.

    Returns
    -------
    Value of shape (M, B, C)
        The members' outputs in float64.

    Raises
    ------
    ImportError
        If a module of the user's own needs onnxscript, and it is not installed.
    ValueError
        If torch can't export it.
    """
    members: list[Any] = [ensemble.member(i).cpu().eval() for i in range(ensemble.n_members)]
    raw_variance = None
    if type(members[0]) is HomoscedasticNoise:
        raw_variance = _stacked([member.raw_variance for member in members])[:, None]
        members = [member.mean for member in members]
    if all(map(is_as_built, members)):
        outputs = _mlps(members, rows).cast(np.float64)
    else:
        outputs = _exported(graph, members, rows, shape, ensemble.dtype)
    if raw_variance is not None:
        wide = graph.call("Expand", raw_variance.astype(np.float64), outputs.call("Shape"))
        outputs = graph.concat([outputs, wide], axis=2)
    return outputs


def _mlps(members: list[MLP], rows: Value) -> Value:
    """Return outputs (M, B, C) of default networks, by a product of stacked matrices a layer."""
    h, components = rows, None
    for parts in zip(*members, strict=True):
        if isinstance(parts[0], nn.Linear):
            weight = _stacked([part.weight.mT for part in parts])
            bias = _stacked([part.bias for part in parts])[:, None]
            if components is None:
                h = h @ weight + bias
            else:
                n_columns = weight.shape[1] - components[1]
                h = h @ weight[:, :n_columns] + components[0] @ weight[:, n_columns:] + bias
                components = None
        elif isinstance(parts[0], PeriodicEmbedding):
            components = _components(parts, rows), parts[0].bias.numel()
        elif not isinstance(parts[0], Dropout):  # It does nothing in prediction.
            h = ACTIVATIONS[type(parts[0])](h)
    return h


def _components(parts: tuple[Any, ...], rows: Value) -> Value:
    """Return what embeddings append to rows, (M, B, D · K)."""
    frequency, phase, weight, bias = (
        _stacked([getattr(part, name) for part in parts])
        for name in ("frequency", "phase", "weight", "bias")
    )
    numbers = rows.take(parts[0].features.numpy(), axis=1)
    numbers = numbers.call("Transpose", perm=[1, 0]).new_axis(1)  # (D, 1, B)
    angle = frequency[..., None] * numbers + phase[..., None]
    value: Value = np.swapaxes(weight, -1, -2) @ angle.call("Cos") + bias[..., None]
    by_row = value.call("Transpose", perm=[0, 3, 1, 2])  # (M, B, D, K)
    return by_row.call("Reshape", np.array([0, 0, bias[0].size]))


def _stacked(tensors: list[Tensor]) -> NDArray[Any]:
    array: NDArray[Any] = torch.stack(tensors).detach().numpy()
    return array


class _Together(nn.Module):
    """Members side by side, each with its own nodes: torch can't export all that vmap makes."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, X: Tensor) -> Tensor:
        return torch.stack([member(X) for member in self.members]).double()


def _exported(
    graph: Graph,
    members: list[nn.Module],
    rows: Value,
    shape: tuple[int, ...],
    dtype: torch.dtype,
) -> Value:
    """Return outputs (M, B, C) of modules of the user's own, as torch exports them."""
    try:
        with _without_warnings():
            import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Got a module of your own without the package onnxscript, by which torch exports "
            "modules, but expected it to be installed: pip install onnxscript."
        ) from error
    name = type(members[0]).__name__
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"Got a module of type {name} with weights of {dtype}, but expected torch.float32 or "
            "torch.float64: onnxruntime has no other type of all functions."
        )
    module, example = _Together(members).eval(), torch.zeros(2, *shape, dtype=dtype)
    try:
        with ordinary_state(grad=False), _without_warnings():
            program: Any = torch.onnx.export(
                _traced(module, example), dynamo=True, opset_version=OPSET, verbose=False
            )
    except Exception as error:
        raise ValueError(
            f"Got a module of type {name} that torch can't export ({type(error).__name__}: "
            f"{error}), but expected one that torch.onnx.export takes, with any number of rows."
        ) from error
    return graph.insert(program.model_proto, rows)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Hide what other packages deprecate, and no user can change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _traced(module: nn.Module, example: Tensor) -> Any:
    """Return a program of torch for any number of rows.

    Given a module, `torch.onnx.export` would fall back on a program for the example's number.
    """
    rows = ({0: torch.export.Dim(ROWS)},)
    try:
        return torch.export.export(module, (example,), dynamic_shapes=rows, strict=False)
    except Exception:  # It can't follow ``len(X)``, which the other way can.
        return torch.export.export(module, (example,), dynamic_shapes=rows, strict=True)
