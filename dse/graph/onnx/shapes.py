"""Concrete shapes of every value once the symbolic sizes are bound."""

from __future__ import annotations

import math
from collections.abc import Mapping

from onnx.shape_inference import InferenceError

from dse.errors import GraphError
from dse.graph.ir.graph import Graph, Initializer, Node, TensorType
from dse.graph.ir.known import UNKNOWN, Known
from dse.graph.onnx.dimension import bound, check, named_shape
from dse.graph.onnx.infer import MAX_ELEMENTS, Inference
from dse.graph.patterns.routing import expected_rows


def bound_types(graph: Graph, dims: Mapping[str, int]) -> Mapping[str, TensorType]:
    """The type of every tensor value with all sizes as numbers.

    Sequences of tensors have no entry. Works on graphs without weights as long as constants that
    are shapes have their data, which exporters keep in the model file.

    Raises:
        GraphError: Sizes that are not bound or that the graph does not have, sizes that do not
            fit an operator, a shape that depends on data (NonZero) or on an unknown operator. The
            rows that a router sends to an expert do, and are bound to their mean.
    """
    check(graph, dims)
    known: dict[str, Known] = {}
    for value in graph.inputs:
        shape = named_shape(graph, value)
        if shape is not None:
            sizes = tuple(bound(size, dims) for size in shape)
            known[value] = Known(type=TensorType(dtype=graph.types[value].dtype, shape=sizes))
    _walk(graph, known, dims, Inference(graph.opsets))
    return {value: item.type for value, item in known.items() if isinstance(item.type, TensorType)}


def _walk(
    graph: Graph, known: dict[str, Known], dims: Mapping[str, int], inference: Inference
) -> None:
    """Adds what the graph's constants and nodes make of `known`."""
    known.update({name: _constant(item) for name, item in graph.initializers.items()})
    for node in graph.nodes:
        inputs = [known.get(value, UNKNOWN) for value in node.inputs]
        captured = {value: known[value] for value in node.reads if value not in node.inputs}
        try:
            found = _branch(node, inputs, known, dims, inference)
            found = found or expected_rows(graph, node, known)
            found = found or inference.outputs(node, inputs, captured)
        except InferenceError as error:
            raise GraphError(_misfit(graph, node, known, error)) from error
        for value, item in zip(node.outputs, found, strict=True):
            if value:
                known[value] = _complete(graph, node, value, item, dims)


def _misfit(graph: Graph, node: Node, known: Mapping[str, Known], error: Exception) -> str:
    inputs = ", ".join(f"{value}: {known[value].type}" for value in node.reads if value in known)
    where = f"{graph.path or graph.name}: node {node.name} ({node.op_type})"
    return f"{where}: shapes do not fit: {' '.join(str(error).split())}; inputs: {inputs}"


def _branch(
    node: Node,
    inputs: list[Known],
    known: Mapping[str, Known],
    dims: Mapping[str, int],
    inference: Inference,
) -> tuple[Known, ...] | None:
    """The outputs of the branch that an If with a known condition takes."""
    if node.op_type != "If" or inputs[0].data is None:
        return None
    body = node.attributes["then_branch" if inputs[0].data.item() else "else_branch"]
    if not isinstance(body, Graph):
        return None
    inside = dict(known)
    _walk(body, inside, dims, inference)
    return tuple(inside[value] for value in body.outputs)


def _constant(initializer: Initializer) -> Known:
    size = math.prod(size for size in initializer.type.shape or () if isinstance(size, int))
    small = initializer.has_data and size <= MAX_ELEMENTS
    return Known(type=initializer.type, data=initializer.numpy() if small else None)


def _complete(graph: Graph, node: Node, value: str, item: Known, dims: Mapping[str, int]) -> Known:
    """`item`, or what the file declares where inference leaves sizes open."""
    if item.complete:
        return item
    inferred = item.type.shape if isinstance(item.type, TensorType) else None
    declared = graph.types.get(value)
    if declared is not None and declared.shape is not None:
        sizes = tuple(bound(size, dims) for size in declared.shape)
        if inferred is not None and len(inferred) == len(sizes):
            pairs = zip(inferred, sizes, strict=True)
            sizes = tuple(size if isinstance(size, int) else other for size, other in pairs)
        if None not in sizes:
            return Known(type=TensorType(dtype=declared.dtype, shape=sizes))
    raise GraphError(
        f"{graph.path or graph.name}: the shape of {value!r} cannot be derived from the input "
        f"shapes: {node.op_type} {node.name} depends on data or is not an ONNX operator; "
        "declare its shape in the model (value_info)"
    )
