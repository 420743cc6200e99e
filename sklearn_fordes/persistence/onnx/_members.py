"""The networks of an ensemble as nodes of a graph."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sklearn_fordes.inference import ordinary_state
from sklearn_fordes.networks import (
    MLP,
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
        elif type(parts[0]) in ACTIVATIONS:  # Dropout does nothing in prediction.
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

    def __init__(self, members: list[nn.Module], dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.members = nn.ModuleList(members)

    def forward(self, X: Tensor) -> Tensor:
        X = X.to(self.dtype)
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
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Got a module of your own without onnxscript, but expected it: torch exports modules "
            "by it. Call pip install onnxscript."
        ) from error
    given = torch.float64 if dtype == torch.float64 else torch.float32
    module = _Together(members, dtype).eval()
    try:
        with ordinary_state(grad=False), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of deprecations inside of torch.
            program: Any = torch.onnx.export(
                module,
                (torch.zeros(2, *shape, dtype=given),),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim(ROWS)},),
                verbose=False,
            )
    except Exception as error:
        raise ValueError(
            f"Got a module of type {type(members[0]).__name__} that torch.onnx.export can't export "
            f"({type(error).__name__}: {error}), but expected one that it can, for any number of "
            "rows."
        ) from error
    return graph.insert(program.model_proto, rows)
