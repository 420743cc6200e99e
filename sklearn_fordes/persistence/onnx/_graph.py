"""A graph of ONNX that is written as arithmetic of its values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

# onnxruntime reads these from its version 1.18 on.
OPSET, ML_OPSET, IR_VERSION = 18, 3, 8
# A file is one message of protobuf, and this is the most that one holds, less room for the nodes.
MOST_BYTES = (1 << 31) - (1 << 24)
ROWS = "rows"


class Graph:
    """Nodes, constants, inputs and outputs, in the order in which they are made.

    Parameters
    ----------
    taken : iterable of str
        Names of inputs and outputs to come, which no value inside may have. Inputs will be in
        their order.
    """

    def __init__(self, taken: Iterable[str]) -> None:
        self._order = {name: index for index, name in enumerate(taken)}
        # Values inside begin with what no other name begins with.
        self._prefix = "/"
        while any(name.startswith(self._prefix) for name in self._order):
            self._prefix += "/"
        self._n_names = self._n_bytes = 0
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._functions: list[onnx.FunctionProto] = []
        self._opsets = {"": OPSET, "ai.onnx.ml": ML_OPSET}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, dtype: Any, shape: tuple[int, ...]) -> Value:
        """Add an input of any number of rows of a shape."""
        self._inputs.append(_described(name, dtype, [ROWS, *shape]))
        return Value(self, name)

    def output(self, name: str, value: Value, dtype: Any, shape: list[int | str]) -> None:
        """Give a value the name of an output."""
        self._nodes.append(helper.make_node("Identity", [value.name], [name]))
        self._outputs.append(_described(name, dtype, shape))

    def call(self, kind: str, *inputs: Any, domain: str = "", **attributes: Any) -> Value:
        """Add a node, and return its first output. Inputs that are no values become constants."""
        (value,) = self.calls(kind, *inputs, domain=domain, **attributes)
        return value

    def calls(
        self, kind: str, *inputs: Any, n_outputs: int = 1, domain: str = "", **attributes: Any
    ) -> list[Value]:
        """Add a node, and return its outputs."""
        names = [self._as_value(value).name for value in inputs]
        outputs = [self._new_name() for _ in range(n_outputs)]
        self._nodes.append(helper.make_node(kind, names, outputs, domain=domain, **attributes))
        return [Value(self, name) for name in outputs]

    def where(self, condition: Any, value: Any, otherwise: Any) -> Value:
        return self.call("Where", condition, value, otherwise)

    def concat(self, values: list[Value], axis: int) -> Value:
        return values[0] if len(values) == 1 else self.call("Concat", *values, axis=axis)

    def repeat(
        self, n_times: int, step: Callable[..., tuple[Value, ...]], *start: Value
    ) -> list[Value]:
        """Return what a function of values of type float64 makes of some, called so many times."""
        outer, self._nodes = self._nodes, []
        index, is_on, *before = [self._new_name() for _ in range(2 + len(start))]
        after = [value.name for value in step(*(Value(self, name) for name in before))]
        # An output of a body must be made in it.
        kept = Value(self, is_on).call("Identity").name
        inputs = [_described(index, np.int64, []), _described(is_on, np.bool_, [])]
        inputs += [_described(name, np.float64, None) for name in before]
        outputs = [_described(kept, np.bool_, [])]
        outputs += [_described(name, np.float64, None) for name in after]
        body = helper.make_graph(self._nodes, "step", inputs, outputs)
        self._nodes = outer
        return self.calls("Loop", n_times, True, *start, n_outputs=len(start), body=body)

    def insert(self, model: onnx.ModelProto, rows: Value) -> Value:
        """Add all of another model, of one input and one output, and return its output."""
        graph = onnx.compose.add_prefix(model, f"{self._new_name()}/").graph
        link = helper.make_node("Identity", [rows.name], [graph.input[0].name])
        self._nodes += [link, *graph.node]
        _without_notes(graph)
        self._count(sum(constant.ByteSize() for constant in graph.initializer))
        self._constants += graph.initializer
        self._functions += model.functions
        self._opsets = {o.domain: o.version for o in model.opset_import} | self._opsets
        return Value(self, graph.output[0].name)

    def model(self, version: str, metadata: dict[str, str]) -> onnx.ModelProto:
        """Return a checked model of all that was added."""
        inputs = sorted(self._inputs, key=lambda one: self._order[one.name])
        graph = helper.make_graph(
            self._nodes, "sklearn_fordes", inputs, self._outputs, self._constants
        )
        model = helper.make_model(
            graph,
            functions=self._functions,
            opset_imports=[helper.make_opsetid(*pair) for pair in self._opsets.items()],
            ir_version=IR_VERSION,
            producer_name="sklearn_fordes",
            producer_version=version,
        )
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        return model

    def _as_value(self, value: Any) -> Value:
        if isinstance(value, Value):
            return value
        array, name = np.asarray(value), self._new_name()
        self._count(array.nbytes)
        self._constants.append(numpy_helper.from_array(array, name))
        return Value(self, name)

    def _count(self, n_bytes: int) -> None:
        self._n_bytes += n_bytes
        if self._n_bytes > MOST_BYTES:
            raise ValueError(
                f"Got an ensemble whose graph takes more than {MOST_BYTES} bytes, but expected a "
                "smaller one, which one file of ONNX can hold: of fewer members, say."
            )

    def _new_name(self) -> str:
        self._n_names += 1
        return f"{self._prefix}{self._n_names}"


class Value:
    """A value of a graph, whose operators add nodes to it. Numbers and arrays become constants.

    A constant has the type that numpy gives it, and both sides of an operator must be of one type.
    """

    # Arrays leave an operator with a value on its right to the value.
    __array_ufunc__ = None

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph, self.name = graph, name

    def call(self, kind: str, *others: Any, **attributes: Any) -> Value:
        return self.graph.call(kind, self, *others, **attributes)

    def __add__(self, other: Any) -> Value:
        return self.call("Add", other)

    def __radd__(self, other: Any) -> Value:
        return self.graph.call("Add", other, self)

    def __sub__(self, other: Any) -> Value:
        return self.call("Sub", other)

    def __rsub__(self, other: Any) -> Value:
        return self.graph.call("Sub", other, self)

    def __mul__(self, other: Any) -> Value:
        return self.call("Mul", other)

    def __rmul__(self, other: Any) -> Value:
        return self.graph.call("Mul", other, self)

    def __truediv__(self, other: Any) -> Value:
        return self.call("Div", other)

    def __matmul__(self, other: Any) -> Value:
        return self.call("MatMul", other)

    def __rmatmul__(self, other: Any) -> Value:
        return self.graph.call("MatMul", other, self)

    def __lt__(self, other: Any) -> Value:
        return self.call("Less", other)

    def __gt__(self, other: Any) -> Value:
        return self.call("Greater", other)

    def __or__(self, other: Any) -> Value:
        return self.call("Or", other)

    def equals(self, other: Any) -> Value:
        return self.call("Equal", other)

    def softplus(self) -> Value:
        """Return log(1 + exp(x)), which overflows in onnxruntime for large numbers as they are."""
        of_size: Value = (0.0 - self.call("Abs")).call("Softplus")
        return self.call("Max", 0.0) + of_size

    def clip(self, low: Any, high: Any) -> Value:
        """Return numbers between two bounds, each a number or an array that is broadcast."""
        return self.call("Max", low).call("Min", high)

    def take(self, index: Any, axis: int) -> Value:
        return self.call("Gather", np.asarray(index, dtype=np.int64), axis=axis)

    def new_axis(self, axis: int) -> Value:
        return self.call("Unsqueeze", np.array([axis]))

    def cast(self, dtype: Any) -> Value:
        return self.call("Cast", to=_type_of(dtype))

    def reduce(self, kind: str, axis: int, *, keepdims: bool = False) -> Value:
        return self.call(f"Reduce{kind}", np.array([axis]), keepdims=int(keepdims))


def _described(name: str, dtype: Any, shape: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _type_of(dtype), shape)


def _type_of(dtype: Any) -> int:
    dtype = np.dtype(dtype)
    is_text = dtype.kind in "OU"
    return onnx.TensorProto.STRING if is_text else int(helper.np_dtype_to_tensor_dtype(dtype))


def _without_notes(graph: onnx.GraphProto) -> None:
    """Remove notes of nodes, such as the lines of code that they come from."""
    for node in graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _without_notes(inner)


def as_text(texts: Iterable[str]) -> NDArray[np.object_]:
    """Return an array that becomes a constant of strings."""
    return np.array([*texts, None], dtype=object)[:-1]
