"""ONNX Runtime's operators over packed weights, as DequantizeLinear and a product or look-up.

A tensor of 2- or 4-bit integers, DequantizeLinear and MatMul (or Gather) is what MatMulNBits and
GatherBlockQuantized mean; written so, the weights are sites like any others. The bytes stay where
they are, in an external file too: ONNX packs narrow integers the same way.

The DequantizeLinear is that of com.microsoft, which any opset has, with ONNX's `block_size` and
zero points that may be one for all or floats; no runtime executes it, so that such a graph is for
this package alone. `accuracy_level` allows a runtime to round the inputs to int8 in the same
blocks; it need not, and here it does not. A quantizer at the input emulates one that does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableSequence

import numpy as np
import onnx

from dse.errors import GraphError
from dse.graph.onnx.convert import MICROSOFT
from dse.graph.onnx.packed_weight import Layout, Packed, is_packed, packed_weight

_COLUMNS = 1
"""Axis of the elements of a row."""


def unpack_weights(
    graph: onnx.GraphProto, tensors: MutableSequence[onnx.TensorProto], *, where: str
) -> None:
    """Replaces the operators over packed weights. In place, before types are inferred.

    Args:
        graph: its nodes are named.
        tensors: the graph's constants, large ones perhaps no longer in it.
        where: what messages begin with.

    Raises:
        GraphError: weights that cannot be unpacked, all of them at once.
    """
    constants = {tensor.name: tensor for tensor in tensors}
    found: dict[str, Packed] = {}
    faults: list[str] = []
    for node in filter(is_packed, graph.node):
        try:
            found[node.name] = packed_weight(node, constants)
        except ValueError as error:
            faults.append(f"{node.op_type} {node.name} ({error})")
    layouts = _layouts(found.values(), constants, faults)
    faults += _shared(graph, layouts)
    if faults:
        raise GraphError(f"{where}: not supported: {MICROSOFT}.{f'; {MICROSOFT}.'.join(faults)}")
    for place in (tensors, graph.initializer):
        for tensor in place:
            if tensor.name in layouts:
                _lay_out(tensor, layouts[tensor.name])
    _declare(graph, layouts)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.name not in found:
            nodes.append(node)
            continue
        packed = found[node.name]
        nodes += _unpacked(packed)
        kind = constants[packed.scales].data_type
        weight = onnx.helper.make_tensor_value_info(
            _weight(packed), kind, (packed.rows, packed.depth)
        )
        graph.value_info.append(weight)  # inference knows no operator of this domain
    del graph.node[:]
    graph.node.extend(nodes)


def has_packed_weights(graph: onnx.GraphProto) -> bool:
    """Whether a graph has nodes that `unpack_weights` replaces."""
    return any(is_packed(node) for node in graph.node)


def _layouts(
    found: Iterable[Packed], constants: Mapping[str, onnx.TensorProto], faults: list[str]
) -> dict[str, Layout]:
    """The layout of every constant of the nodes; `faults` gets those that two read differently."""
    layouts: dict[str, Layout] = {}
    for packed in found:
        for name, layout in packed.layouts(constants):
            if layouts.setdefault(name, layout) != layout:
                what = f"{packed.node.op_type} {packed.node.name}"
                faults.append(f"{what} (another node reads {name} in another layout)")
    return layouts


def _shared(graph: onnx.GraphProto, layouts: Mapping[str, Layout]) -> Iterator[str]:
    for node in graph.node:
        names = [] if is_packed(node) else [name for name in node.input if name in layouts]
        for name in names:
            yield f"MatMulNBits on {name!r} (which {node.op_type} {node.name} reads, too)"


def _lay_out(tensor: onnx.TensorProto, layout: Layout) -> None:
    """Another type and other sizes for the same bytes."""
    outside = tensor.data_location == onnx.TensorProto.EXTERNAL
    if not outside and not tensor.HasField("raw_data"):
        values = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    tensor.data_type, sizes = layout
    tensor.dims[:] = sizes


def _declare(graph: onnx.GraphProto, layouts: Mapping[str, Layout]) -> None:
    """The same for constants that are declared as inputs."""
    for value in graph.input:
        if value.name in layouts:
            kind, sizes = layouts[value.name]
            value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, kind, sizes))


def _weight(packed: Packed) -> str:
    return f"{packed.node.name}/weight"


def _unpacked(packed: Packed) -> Iterator[onnx.NodeProto]:
    """The weights as floats, and the product or look-up, which keeps the node's name."""
    node = packed.node
    yield from _dequantized(packed)
    if not packed.is_product:
        yield onnx.helper.make_node(
            "Gather", [_weight(packed), node.input[1]], node.output, name=node.name
        )
        return
    turned = f"{node.name}/transposed"
    yield onnx.helper.make_node("Transpose", [_weight(packed)], [turned], name=turned, perm=[1, 0])
    bias = node.input[5] if len(node.input) > 5 else ""
    product = f"{node.name}/product" if bias else node.output[0]
    yield onnx.helper.make_node("MatMul", [node.input[0], turned], [product], name=node.name)
    if bias:
        name = f"{node.name}/bias"
        yield onnx.helper.make_node("Add", [product, bias], node.output, name=name)


def _dequantized(packed: Packed) -> Iterator[onnx.NodeProto]:
    """The weights as (rows, depth) floats."""
    name = packed.node.name
    codes, scales, zeros = packed.data, packed.scales, packed.zero_points
    if packed.stored != packed.depth:
        codes = f"{name}/codes"
        yield from _first_columns(packed.data, packed.depth, codes)
    if packed.stored_zero_points != packed.blocks:
        zeros = f"{name}/zero_points"
        yield from _first_columns(packed.zero_points, packed.blocks, zeros)
    if packed.group_index:
        given = {scales: f"{name}/scales"} | ({zeros: f"{name}/grouped"} if zeros else {})
        for value, grouped in given.items():
            yield onnx.helper.make_node(
                "Gather", [value, packed.group_index], [grouped], name=grouped, axis=_COLUMNS
            )
        scales, zeros = given[scales], given.get(zeros, "")
    if not zeros:
        zeros = f"{name}/zero"
        yield _constant(np.array(packed.zero, np.uint8), zeros)
    yield onnx.helper.make_node(
        "DequantizeLinear", [codes, scales, zeros], [_weight(packed)], name=_weight(packed),
        domain=MICROSOFT, axis=_COLUMNS, block_size=1 if packed.group_index else packed.block,
    )  # fmt: skip


def _first_columns(value: str, count: int, into: str) -> Iterator[onnx.NodeProto]:
    bounds = {"start": 0, "end": count, "axis": _COLUMNS}
    for word, number in bounds.items():
        yield _constant(np.array([number], np.int64), f"{into}/{word}")
    inputs = [value, *(f"{into}/{word}" for word in bounds)]
    yield onnx.helper.make_node("Slice", inputs, [into], name=into)


def _constant(value: np.ndarray, name: str) -> onnx.NodeProto:
    tensor = onnx.numpy_helper.from_array(value)
    return onnx.helper.make_node("Constant", [], [name], name=name, value=tensor)
