"""Plain data back to ONNX protos, for onnx's own inference and reference evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from dse.graph.ir.graph import Graph, Node, TensorType
from dse.graph.ir.initializer import NUMPYS_OWN, dtype_name

ELEM_TYPES: Mapping[str, int] = {
    dtype_name(number): number for number in onnx.TensorProto.DataType.values()
}
"""ONNX element type by the dtype name of `TensorType`."""


def node_proto(node: Node, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.NodeProto:
    """A node with these names for its inputs and outputs."""
    proto = onnx.NodeProto(
        op_type=node.op_type, domain=node.domain, name=node.name, input=inputs, output=outputs
    )
    proto.attribute.extend(
        _attribute(name, value) for name, value in node.attributes.items() if not _empty(value)
    )
    return proto


def tensor_proto(name: str, array: np.ndarray) -> onnx.TensorProto:
    """A dense tensor, ml_dtypes included."""
    if array.dtype.name in NUMPYS_OWN:
        return onnx.numpy_helper.from_array(array, name)
    import onnx_ir as ir  # noqa: PLC0415

    return ir.serde.serialize_tensor(ir.Tensor(array, name=name))


def type_proto(kind: TensorType) -> onnx.TypeProto:
    """A tensor type; sizes that are not known stay open."""
    proto = onnx.TypeProto()
    proto.tensor_type.elem_type = ELEM_TYPES[kind.dtype]
    if kind.shape is not None:
        dims = proto.tensor_type.shape.dim
        proto.tensor_type.shape.SetInParent()
        for size in kind.shape:
            dim = dims.add()
            if isinstance(size, int):
                dim.dim_value = size
            elif size is not None:
                dim.dim_param = size
    return proto


def graph_proto(graph: Graph) -> onnx.GraphProto:
    """A body; constants without data keep their type only."""
    known = [(name, item) for name, item in graph.initializers.items() if item.has_data]
    return onnx.GraphProto(
        name=graph.name or "body",
        node=[node_proto(node, node.inputs, node.outputs) for node in graph.nodes],
        input=[_value(graph, name) for name in graph.inputs],
        output=[_value(graph, name) for name in graph.outputs],
        initializer=[tensor_proto(name, item.numpy()) for name, item in known],
    )


def _value(graph: Graph, name: str) -> onnx.ValueInfoProto:
    kind = graph.types.get(name)
    return onnx.ValueInfoProto(name=name, type=type_proto(kind) if kind else None)


def _attribute(name: str, value: object) -> onnx.AttributeProto:
    kinds = onnx.AttributeProto
    match value:
        case Graph():
            return kinds(name=name, type=kinds.GRAPH, g=graph_proto(value))
        case np.ndarray():
            return kinds(name=name, type=kinds.TENSOR, t=tensor_proto(name, value))
        case TensorType():
            return kinds(name=name, type=kinds.TYPE_PROTO, tp=type_proto(value))
        case tuple() if isinstance(value[0], Graph):
            bodies = [graph_proto(body) for body in value]
            return kinds(name=name, type=kinds.GRAPHS, graphs=bodies)
        case tuple() if isinstance(value[0], np.ndarray):
            tensors = [tensor_proto(name, array) for array in value]
            return kinds(name=name, type=kinds.TENSORS, tensors=tensors)
        case _:
            return onnx.helper.make_attribute(name, value)


def _empty(value: object) -> bool:
    """An empty list: ONNX cannot say of what type, and it means the same as no attribute."""
    return isinstance(value, tuple) and not value
