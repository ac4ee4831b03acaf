"""Loop sizes of contracting nodes at bound shapes, and the multiply-accumulates they make."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from dse.errors import GraphError
from dse.graph.ir.attribute import integer, integers
from dse.graph.ir.graph import Graph, Node, TensorType
from dse.graph.ir.operators import CONVOLUTIONS, FUSED_ATTENTION
from dse.graph.patterns.contraction import einsum_terms, factors, is_contracting

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1, "DynamicQuantizeLSTM": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loops:
    """`batch` products of an m x k by a k x n matrix."""

    batch: int
    m: int
    k: int
    n: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.batch * self.m * self.k * self.n


def macs_by_node(graph: Graph, types: Mapping[str, TensorType]) -> Mapping[str, int]:
    """Multiply-accumulates of every contracting node, at the shapes of `types`.

    Both products of a fused attention count in full, masked or not. Bodies do not count.
    """
    return {
        node.name: sum(part.macs for part in loops(graph, node, types))
        for node in graph.nodes
        if is_contracting(node)
    }


def loops(graph: Graph, node: Node, types: Mapping[str, TensorType]) -> tuple[Loops, ...]:
    """The matrix products that a contracting node consists of.

    Raises:
        GraphError: An operand has other axes than where the model was read.
    """
    _check_ranks(graph, node, types)
    if node.op_type in CONVOLUTIONS:
        return (_convolution(graph, node, types),)
    if node.op_type in FUSED_ATTENTION:
        size = attention_sizes(node, types)
        batch = size["B"] * size["H"]
        return (
            Loops(batch=batch, m=size["S"], k=size["D"], n=size["L"]),
            Loops(batch=batch, m=size["S"], k=size["L"], n=size["DV"]),
        )
    if node.op_type in GATES:
        return _recurrent(node, types)
    if node.op_type == "Einsum":
        return (_einsum(node, types),)
    return (_matmul(graph, node, types),)


def _check_ranks(graph: Graph, node: Node, types: Mapping[str, TensorType]) -> None:
    """The same axes as in the graph: a body may be run on something else than it declares."""
    for value in node.inputs:
        declared, bound = graph.types.get(value), types.get(value)
        if declared is None or bound is None or declared.shape is None or bound.shape is None:
            continue
        if len(declared.shape) != len(bound.shape):
            raise GraphError(
                f"{graph.path or graph.name}: node {node.name} ({node.op_type}): {value!r} is "
                f"declared with {len(declared.shape)} axes, but what it is run on has "
                f"{len(bound.shape)}"
            )


def sizes(types: Mapping[str, TensorType], value: str) -> tuple[int, ...]:
    """The bound shape of a value."""
    return tuple(size for size in types[value].shape or () if isinstance(size, int))


def attention_sizes(node: Node, types: Mapping[str, TensorType]) -> dict[str, int]:
    """B, H, HK, S, L, D and DV (channels of a value head) of a fused attention."""
    q, k, v = (sizes(types, value) for value in node.inputs[:3])
    if len(q) == 4:
        batch, heads, length, depth = q
        kv_heads, keys, values = k[1], k[2], v[3]
    else:
        heads = integer(node, "q_num_heads", integer(node, "num_heads", 1))
        kv_heads = integer(node, "kv_num_heads", heads)
        batch, length, depth = q[0], q[1], q[2] // heads
        keys, values = k[1], v[2] // kv_heads
    return {
        "B": batch, "H": heads, "HK": kv_heads, "S": length, "L": keys + _past(node, types),
        "D": depth, "DV": values,
    }  # fmt: skip


PAST = {"Attention": 4, "MultiHeadAttention": 6, "GroupQueryAttention": 3}
"""The input that holds the keys of earlier positions: (batch, heads, positions, channels)."""


def past_input(node: Node) -> str:
    """The cache that a fused attention reads; empty without one."""
    index = PAST[node.op_type]
    return node.inputs[index] if len(node.inputs) > index else ""


def _past(node: Node, types: Mapping[str, TensorType]) -> int:
    value = past_input(node)
    return sizes(types, value)[2] if value else 0


def _matmul(graph: Graph, node: Node, types: Mapping[str, TensorType]) -> Loops:
    first, second = (f for f in factors(graph, node) if f.part != "bias")
    left, right = sizes(types, node.inputs[first.index]), sizes(types, node.inputs[second.index])
    depth = left[first.axes[0]]
    width = math.prod(right[-2:]) // max(depth, 1)
    rows = math.prod(left[-2:]) // max(depth, 1)
    total = math.prod(sizes(types, node.outputs[0])) // max(rows * width, 1)
    if len(right) <= 2:  # one matrix for the whole batch: its rows are rows of one product
        return Loops(batch=1, m=total * rows, k=depth, n=width)
    return Loops(batch=total, m=rows, k=depth, n=width)


def _einsum(node: Node, types: Mapping[str, TensorType]) -> Loops:
    shapes = [sizes(types, value) for value in node.inputs]
    terms, output = einsum_terms(node, [len(shape) for shape in shapes])
    extent: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for label, size in zip(term, shape, strict=True):
            extent[label] = max(extent.get(label, 1), size)
    everywhere = set(output).intersection(*terms)
    rows = (set(output) & set(terms[0])) - everywhere
    columns = set(output) - rows - everywhere
    summed = set(extent) - set(output)
    return Loops(
        batch=math.prod(extent[label] for label in everywhere),
        m=math.prod(extent[label] for label in rows),
        k=math.prod(extent[label] for label in summed),
        n=math.prod(extent[label] for label in columns),
    )


def _convolution(graph: Graph, node: Node, types: Mapping[str, TensorType]) -> Loops:
    weight = next(factor for factor in factors(graph, node) if factor.part == "second")
    kernel = sizes(types, node.inputs[weight.index])
    data, result = sizes(types, node.inputs[0]), sizes(types, node.outputs[0])
    groups = integer(node, "group", 1)
    taps = math.prod(kernel[2:])
    # A transposed convolution does its work once an input position, not an output position.
    places = math.prod(data[2:] if node.op_type == "ConvTranspose" else result[2:])
    return Loops(
        batch=groups,
        m=result[0] * places,
        k=data[1] // groups * taps,
        n=result[1] // groups,
    )


def _recurrent(node: Node, types: Mapping[str, TensorType]) -> tuple[Loops, ...]:
    steps, batch, width = sizes(types, node.inputs[0])
    if integer(node, "layout", 0):
        steps, batch = batch, steps
    directions, *matrix = sizes(types, node.inputs[1])
    gates = matrix[1 if node.op_type == "DynamicQuantizeLSTM" else 0]
    hidden = gates // GATES[node.op_type]
    return (
        Loops(batch=directions, m=steps * batch, k=width, n=gates),
        Loops(batch=directions, m=steps * batch, k=hidden, n=gates),
    )


def convolution_sizes(graph: Graph, node: Node, types: Mapping[str, TensorType]) -> dict[str, int]:
    """N, C, H, W, O, OH, OW, kh, kw, groups; sh, sw, dh, dw (strides, dilations).

    One spatial axis counts as the width; with three, depth and height are one axis. OH and OW of
    a transposed convolution are the positions of its input, where its work is done, one by one.
    """
    weight = next(factor for factor in factors(graph, node) if factor.part == "second")
    kernel = sizes(types, node.inputs[weight.index])[2:]
    data, result = sizes(types, node.inputs[0]), sizes(types, node.outputs[0])
    transposed = node.op_type == "ConvTranspose"
    places = data[2:] if transposed else result[2:]
    ones = (1,) * len(kernel)
    strides = ones if transposed else integers(node, "strides") or ones
    dilations = ones if transposed else integers(node, "dilations") or ones
    return {
        "N": data[0],
        "C": data[1],
        "H": math.prod(data[2:-1]),
        "W": data[-1],
        "O": result[1],
        "kh": math.prod(kernel[:-1]),
        "kw": kernel[-1],
        "sh": math.prod(strides[:-1]),
        "sw": strides[-1],
        "dh": math.prod(dilations[:-1]),
        "dw": dilations[-1],
        "groups": integer(node, "group", 1),
        "OH": math.prod(places[:-1]),
        "OW": places[-1],
    }
