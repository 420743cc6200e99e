"""A fitted ensemble as a model of ONNX, with what a server needs to know as metadata."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from sklearn_fordes.particles import CategoricalLikelihood, GaussianLikelihood, QuantileLikelihood
from sklearn_fordes.persistence._file import library_versions
from sklearn_fordes.persistence.onnx._encoder import encode
from sklearn_fordes.persistence.onnx._graph import Graph
from sklearn_fordes.persistence.onnx._members import outputs_of
from sklearn_fordes.persistence.onnx._outputs import add_classes, add_numbers

OUTPUTS = ("label", "probabilities", "members", "mean", "std", "quantiles")


def model_of(
    fitted: Any,
    *,
    kind: str,
    version: str,
    names: list[str],
    is_named: bool,
    quantiles: NDArray[np.float64],
    classes: NDArray[Any] | None = None,
    target_mean: float = 0.0,
    target_scale: float = 1.0,
) -> onnx.ModelProto:
    """Return a checked model from columns to predictions.

    Parameters
    ----------
    fitted : FittedEnsemble
    kind : str
        Name of the estimator's class.
    version : str
        Of this package.
    names : list of str
        Of the columns of the table.
    is_named : bool
        Whether the training table had these names.
    quantiles : ndarray of shape (n_quantiles,)
        Levels of the quantiles of a regressor.
    classes : ndarray of shape (n_classes,), optional
        Labels of a classifier.
    target_mean, target_scale : float
        Of a regressor's target.

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    ImportError
        If a module of the user's own needs onnxscript, and it is not installed.
    ValueError
        If a graph can't hold a part of the estimator.
    """
    members, likelihood = fitted.members, fitted.likelihood
    _expect_levels(quantiles, likelihood)
    labels = None if classes is None else _plain_labels(classes)
    inputs = _input_names(names)
    graph = Graph([*OUTPUTS, *dict.fromkeys([*inputs, "X"])])
    dtype = np.dtype(np.float64 if members.dtype == torch.float64 else np.float32)
    rows = encode(
        graph, fitted.encoder, inputs, is_named=is_named, shape=fitted.input_shape, dtype=dtype
    )
    outputs = outputs_of(graph, members, rows.values.cast(dtype), fitted.input_shape)
    if rows.is_refused is not None:
        outputs = graph.where(rows.is_refused, np.nan, outputs)
    if labels is not None:
        add_classes(graph, outputs, labels, members.n_members)
    else:
        location, scale = float(target_mean), float(target_scale)
        add_numbers(
            graph,
            outputs,
            likelihood,
            location=location,
            scale=scale,
            levels=quantiles,
            n_members=members.n_members,
        )
    columns = [{"name": n, **column} for n, column in zip(names, rows.columns, strict=False)]
    metadata = {
        "class": kind,
        "versions": {"sklearn_fordes": version, **library_versions(), "onnx": onnx.__version__},
        "columns": columns,
        "quantiles": quantiles.tolist(),
        "classes": None if labels is None else labels.tolist(),
    }
    texts = {n: v if isinstance(v, str) else json.dumps(v) for n, v in metadata.items()}
    return graph.model(version, {n: texts[n] for n, v in metadata.items() if v not in (None, [])})


def _expect_levels(quantiles: NDArray[np.float64], likelihood: Any) -> None:
    known = CategoricalLikelihood, GaussianLikelihood, QuantileLikelihood
    if type(likelihood) not in known:
        raise ValueError(
            f"Got a likelihood of type {type(likelihood).__name__}, but expected one of "
            f"{', '.join(of_task.__name__ for of_task in known)}, which a graph of ONNX can hold."
        )
    if type(likelihood) is CategoricalLikelihood and quantiles.size:
        raise ValueError(
            f"Got quantiles={quantiles.tolist()} with a classifier, but expected none: they are "
            "those of a number."
        )
    if quantiles.ndim > 1 or not ((quantiles > 0) & (quantiles < 1)).all():
        raise ValueError(f"Got quantiles={quantiles.tolist()}, but expected levels in (0, 1).")


def _plain_labels(classes: NDArray[Any]) -> NDArray[Any]:
    """Return classes as an array of a type that a graph has.

    Raises
    ------
    ValueError
        If they are other objects.
    """
    labels = np.array(classes.tolist()) if classes.dtype.kind in "OUT" else classes
    labels = labels.astype(labels.dtype.newbyteorder("="))  # Files of other machines may swap it.
    are_equal = labels.shape == classes.shape and labels.tolist() == classes.tolist()
    if not (are_equal and labels.dtype.kind in "biufU" and _has_graph(labels.dtype)):
        raise ValueError(
            f"Got labels of the type {type(classes.tolist()[0]).__name__}, but expected whole "
            "numbers, floats, truth values or strings, which a graph of ONNX can hold."
        )
    return labels


def _has_graph(dtype: Any) -> bool:
    """Return whether a graph has a type of numbers: it has none of more than eight bytes."""
    return bool(dtype.kind == "U" or dtype.itemsize <= 8)


def _input_names(names: list[str]) -> list[str]:
    """Append underscores to names that are an output's, or empty, until they are no other's."""
    taken, inputs = {*OUTPUTS, *names, ""}, []
    for name in names:
        is_free = name not in OUTPUTS and name and name not in inputs
        while not is_free:
            name += "_"
            is_free = name not in taken
        taken.add(name)
        inputs.append(name)
    return inputs
