"""The axis of an input that counts samples, where a recurrence behind it says which one it is.

Recurrent operators take (time, samples, features), or samples first (`layout`). Where no size is
called a batch, nothing else in a file tells time from samples, and a batch that is cut out of
the time of one sequence is a wrong answer without a word.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import onnx

from dse.graph.ir.operators import RECURRENT

SEQUENCE, LENGTHS, STATES = 0, 4, (5, 6)
"""Inputs of a recurrence."""
KEPT = frozenset({
    "Identity", "Cast", "Dropout", "Relu", "LeakyRelu", "Elu", "Selu", "Gelu", "Tanh", "Sigmoid",
    "Neg", "Abs", "Exp", "Log", "Sqrt", "Clip", "Softmax", "LayerNormalization",
    "QuantizeLinear", "DequantizeLinear",
})  # fmt: skip
"""Operators whose first result has the axes of their first input."""
BINARY = frozenset({"Add", "Sub", "Mul", "Div", "Pow"})

Axes = tuple[tuple[str, int] | None, ...]
"""Of each axis of a value the input that it is of, and its place there."""


def name_samples(graph: onnx.GraphProto, weights: Collection[str]) -> dict[str, int]:
    """The axes that recurrences take for samples, by input; theirs get the name `<input>.<axis>`.

    Empty where a size is called a batch, or where all of them are first axes.

    Args:
        graph: of a model, its nodes in topological order; sizes without a name get one.
        weights: names of constants, which may stand among the inputs.
    """
    sizes = {
        value.name: value.type.tensor_type.shape.dim
        for value in graph.input
        if value.name not in weights
    }
    if any("batch" in dim.dim_param.lower() for dims in sizes.values() for dim in dims):
        return {}
    found: dict[str, int] = {}
    known: dict[str, Axes] = {
        name: tuple((name, axis) for axis in range(len(dims))) for name, dims in sizes.items()
    }
    for node in graph.node:
        for value, axis in _taken(node):
            place = _place(known.get(value, ()), axis)
            if place is not None:
                found.setdefault(*place)
        known |= _results(node, known)
    if not any(found.values()):
        return {}
    for name, axis in found.items():
        dim = sizes[name][axis]
        if not dim.HasField("dim_value") and not dim.dim_param and axis:
            dim.dim_param = f"{name}.{axis}"
    return found


def _taken(node: onnx.NodeProto) -> Iterator[tuple[str, int]]:
    """Inputs of a recurrence, each with the axis that counts its samples."""
    if node.op_type not in RECURRENT or node.domain:
        return
    first = bool(_attributes(node).get("layout", 0))
    wanted = {SEQUENCE: 0 if first else 1, LENGTHS: 0, **dict.fromkeys(STATES, 0 if first else 1)}
    for at, axis in wanted.items():
        if at < len(node.input) and node.input[at]:
            yield node.input[at], axis


def _results(node: onnx.NodeProto, known: Mapping[str, Axes]) -> dict[str, Axes]:
    """The axes of a node's first result, where they are those of an input."""
    axes = next((known[value] for value in node.input[:2] if known.get(value)), ())
    if not axes or not node.output or node.domain:
        return {}
    if node.op_type == "Transpose":
        order = _attributes(node).get("perm", [*range(len(axes))][::-1])
        moved = tuple(axes[at] for at in order) if len(order) == len(axes) else ()
        return {node.output[0]: moved}
    if node.op_type == "MatMul" and node.input[0] in known:
        return {node.output[0]: (*axes[:-1], None)}
    both = [len(known[value]) for value in node.input[:2] if known.get(value)]
    if node.op_type in KEPT or (node.op_type in BINARY and max(both) == len(axes)):
        return {node.output[0]: axes}
    return {}


def _place(axes: Axes, axis: int) -> tuple[str, int] | None:
    return axes[axis] if axis < len(axes) else None


def _attributes(node: onnx.NodeProto) -> Mapping[str, Any]:
    return {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
