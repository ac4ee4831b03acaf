"""ONNX protos to the plain data of `dse.graph.ir.graph`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from dse.errors import GraphError
from dse.graph.ir.graph import Dim, Graph, Initializer, Node, TensorType
from dse.graph.ir.initializer import FileInitializer, dtype_name, from_proto

ONNX_DOMAIN = ""
"""The ONNX domain; files may also write it `ai.onnx`."""
MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""
NAMELESS = frozenset({"", "?", "*", "None", "none", "-1"})
"""Marks of converters for a size without a name: two of them need not be equal."""


def domain_name(domain: str) -> str:
    """The domain with the alias of ONNX's own domain resolved."""
    return ONNX_DOMAIN if domain == "ai.onnx" else domain


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The file that protos come from, and its opsets."""

    path: Path
    opsets: Mapping[str, int]
    folder: Path | None = None
    """The folder of external data, if that is not beside the model."""

    @property
    def data(self) -> Path:
        """The folder that external data cannot leave."""
        return self.path.parent if self.folder is None else self.folder

    @property
    def where(self) -> str:
        """The file as messages name it."""
        return str(self.path)


def graph_of(
    proto: onnx.GraphProto,
    source: Source,
    *,
    initializers: Sequence[onnx.TensorProto] | None = None,
) -> Graph:
    """The graph of a proto in topological order; `initializers` replaces those of the proto.

    Raises:
        GraphError: External data outside the model's folder or truncated, a sparse constant.
    """
    tensors = proto.initializer if initializers is None else initializers
    constants: dict[str, Initializer] = {
        tensor.name: from_proto(tensor, source.data, source.where) for tensor in tensors
    }
    inputs = tuple(value.name for value in proto.input if value.name not in constants)
    nodes: list[Node] = []
    for node in proto.node:
        if node.op_type == "Constant" and domain_name(node.domain) == ONNX_DOMAIN:
            constants[node.output[0]] = constant(node, source)
        else:
            nodes.append(_node(node, source))
    return Graph(
        name=proto.name,
        nodes=tuple(nodes),
        inputs=inputs,
        outputs=tuple(value.name for value in proto.output),
        types=_types(proto, constants),
        initializers=constants,
        opsets=source.opsets,
    )


def constant(node: onnx.NodeProto, source: Source) -> FileInitializer:
    """The initializer that a Constant node stands for."""
    attribute = node.attribute[0]
    name = node.output[0]
    if attribute.name == "value":
        tensor = onnx.TensorProto()
        tensor.CopyFrom(attribute.t)
        tensor.name = name
        return from_proto(tensor, source.data, source.where)
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.name.startswith("value_string"):
        array = np.array(value, dtype=object)
    else:
        kinds = {"value_float": np.float32, "value_floats": np.float32}
        array = np.array(value, dtype=kinds.get(attribute.name, np.int64))
    tensor = onnx.numpy_helper.from_array(array, name)
    return from_proto(tensor, source.data, source.where)


def tensor_type(proto: onnx.TypeProto, *, inferred: bool = False) -> TensorType | None:
    """The type of a dense tensor; None for sequences, maps, optionals and sparse tensors.

    A size of 0 is open in what a file declares, and 0 in what was `inferred`.
    """
    if proto.WhichOneof("value") != "tensor_type":
        return None
    kind = proto.tensor_type
    shape = None
    if kind.HasField("shape"):
        shape = tuple(_dim(dim, least=0 if inferred else 1) for dim in kind.shape.dim)
    return TensorType(dtype=dtype_name(kind.elem_type), shape=shape)


def _dim(dim: onnx.TensorShapeProto.Dimension, *, least: int) -> Dim:
    if dim.HasField("dim_value") and dim.dim_value >= least:
        return int(dim.dim_value)
    # Some converters write a free size as -1 or 0, and ONNX Runtime takes it as one.
    name = str(dim.dim_param)
    return None if name in NAMELESS else name


def _types(proto: onnx.GraphProto, constants: Mapping[str, Initializer]) -> dict[str, TensorType]:
    found = {name: constant.type for name, constant in constants.items()}
    for value in [*proto.input, *proto.value_info, *proto.output]:
        kind = tensor_type(value.type)
        if kind is not None and value.name not in found:
            found[value.name] = kind
    return found


def _node(node: onnx.NodeProto, source: Source) -> Node:
    return Node(
        name=node.name,
        op_type=node.op_type,
        domain=domain_name(node.domain),
        inputs=_trimmed(node.input),
        outputs=_trimmed(node.output),
        attributes={attribute.name: _attribute(attribute, source) for attribute in node.attribute},
    )


def _trimmed(values: Iterable[str]) -> tuple[str, ...]:
    kept = list(values)
    while kept and not kept[-1]:
        kept.pop()
    return tuple(kept)


def _attribute(attribute: onnx.AttributeProto, source: Source) -> object:
    kinds = onnx.AttributeProto
    match attribute.type:
        case kinds.GRAPH:
            return graph_of(attribute.g, source)
        case kinds.GRAPHS:
            return tuple(graph_of(body, source) for body in attribute.graphs)
        case kinds.TENSOR:
            return from_proto(attribute.t, source.data, source.where).numpy()
        case kinds.TENSORS:
            tensors = (from_proto(t, source.data, source.where) for t in attribute.tensors)
            return tuple(tensor.numpy() for tensor in tensors)
        case kinds.TYPE_PROTO:
            return tensor_type(attribute.tp) or str(attribute.tp.WhichOneof("value"))
        case kinds.SPARSE_TENSOR | kinds.SPARSE_TENSORS | kinds.TYPE_PROTOS:
            raise GraphError(f"{source.where}: attribute {attribute.name!r} has a sparse tensor")
        case _:
            return _plain(onnx.helper.get_attribute_value(attribute))


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    if isinstance(value, Iterable) and not isinstance(value, str):
        return tuple(_plain(item) for item in value)
    return value
