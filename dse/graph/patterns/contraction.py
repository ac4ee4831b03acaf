"""Contracting nodes: which operand is what, and which axes are summed over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dse.errors import GraphError
from dse.graph.ir.attribute import integer, text
from dse.graph.ir.graph import Dim, Graph, Node
from dse.graph.ir.operators import CONVOLUTIONS, FUSED_ATTENTION, MATMULS

CONTRACTING = MATMULS | CONVOLUTIONS | FUSED_ATTENTION

Part = Literal["first", "second", "bias", "q", "k", "v"]
"""`first` is the data of a convolution or the left factor; `second` the weight or right factor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """One multiplied operand (or bias) of a contracting node."""

    index: int
    """Position among the node's inputs."""
    part: Part
    axes: tuple[int, ...]
    """Contraction axes, counted from the front."""


def is_contracting(node: Node) -> bool:
    """Whether a node multiplies and accumulates."""
    return node.op_type in CONTRACTING


def factors(graph: Graph, node: Node) -> tuple[Factor, ...]:
    """The multiplied operands and the bias of a contracting node.

    Raises:
        GraphError: The rank of an operand is unknown.
    """
    if node.op_type in CONVOLUTIONS:
        return _convolution(graph, node)
    match node.op_type:
        case "Gemm" | "FusedGemm":
            return _gemm(node)
        case "Einsum":
            return _einsum(graph, node)
        case "QLinearMatMul":
            return _matmul(graph, node, first=0, second=3)
        case "LSTM" | "GRU" | "RNN":
            return _recurrent(node)
        case "DynamicQuantizeLSTM":  # its weights lie as (directions, inputs, gates)
            return _recurrent(node, weight_axis=1)
        case name if name in FUSED_ATTENTION:
            return _attention(graph, node)
        case _:
            return _matmul(graph, node, first=0, second=1)


def shape(graph: Graph, node: Node, index: int) -> tuple[Dim, ...]:
    """The shape of an input.

    Raises:
        GraphError: The rank is unknown.
    """
    value = node.inputs[index]
    kind = graph.types.get(value)
    if kind is None or kind.shape is None:
        where = f"{graph.path or graph.name}: node {node.name} ({node.op_type})"
        message = f"{where}: the shape of input {index} ({value!r}) is unknown"
        raise GraphError(f"{message}; declare it in the model (value_info)")
    return kind.shape


def rank(graph: Graph, node: Node, index: int) -> int:
    """The number of axes of an input; `GraphError` where it is unknown."""
    return len(shape(graph, node, index))


def _matmul(graph: Graph, node: Node, *, first: int, second: int) -> tuple[Factor, ...]:
    left, right = rank(graph, node, first), rank(graph, node, second)
    trans_a = bool(integer(node, "transA", 0)) and left > 1
    trans_b = bool(integer(node, "transB", 0)) and right > 1
    return (
        Factor(index=first, part="first", axes=(left - (2 if trans_a else 1),)),
        Factor(
            index=second,
            part="second",
            axes=(right - 1 if trans_b else max(right - 2, 0),),
        ),
    )


def _gemm(node: Node) -> tuple[Factor, ...]:
    found = [
        Factor(index=0, part="first", axes=(0 if integer(node, "transA", 0) else 1,)),
        Factor(index=1, part="second", axes=(1 if integer(node, "transB", 0) else 0,)),
    ]
    if len(node.inputs) > 2 and node.inputs[2]:
        found.append(Factor(index=2, part="bias", axes=()))
    return tuple(found)


def _convolution(graph: Graph, node: Node) -> tuple[Factor, ...]:
    second, bias = {"QLinearConv": (3, 8), "ConvInteger": (1, 9), "DeformConv": (1, 3)}.get(
        node.op_type, (1, 2)
    )
    axes = tuple(range(1, rank(graph, node, second)))
    if node.op_type == "ConvTranspose":  # weight (C, M / group, taps...): sums over C and taps
        axes = (0, *axes[1:])
    found = [
        Factor(index=0, part="first", axes=(1,)),
        Factor(index=second, part="second", axes=axes),
    ]
    if len(node.inputs) > bias and node.inputs[bias]:
        found.append(Factor(index=bias, part="bias", axes=()))
    return tuple(found)


def _recurrent(node: Node, *, weight_axis: int = 2) -> tuple[Factor, ...]:
    found = [
        Factor(index=0, part="first", axes=(2,)),
        Factor(index=1, part="second", axes=(weight_axis,)),
        Factor(index=2, part="second", axes=(weight_axis,)),
    ]
    if len(node.inputs) > 3 and node.inputs[3]:
        found.append(Factor(index=3, part="bias", axes=()))
    return tuple(found)


def _attention(graph: Graph, node: Node) -> tuple[Factor, ...]:
    parts: tuple[Part, ...] = ("q", "k", "v")
    present = [i for i in range(3) if i < len(node.inputs) and node.inputs[i]]
    return tuple(
        Factor(
            index=i,
            part=parts[i],
            # Keys and queries are summed over channels, values over positions.
            axes=(rank(graph, node, i) - (2 if parts[i] == "v" else 1),),
        )
        for i in present
    )


def _einsum(graph: Graph, node: Node) -> tuple[Factor, ...]:
    terms, output = einsum_terms(node, [rank(graph, node, i) for i in range(len(node.inputs))])
    return tuple(
        Factor(
            index=i,
            part="first" if i == 0 else "second",
            axes=tuple(axis for axis, label in enumerate(term) if label not in output),
        )
        for i, term in enumerate(terms)
    )


def einsum_terms(node: Node, ranks: list[int]) -> tuple[list[list[str]], list[str]]:
    """Labels of each input and of the output; axes of an ellipsis are called `.0`, `.1`, ..."""
    equation = text(node, "equation", "").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = [_labels(term, size) for term, size in zip(left.split(","), ranks, strict=True)]
    flat = [label for term in terms for label in term]
    if arrow:
        dots = max((len(term) for term in terms), default=0)
        output = _labels(right, len(right.replace("...", "")) + dots)
        return terms, [label for label in output if label in flat]
    once = sorted(label for label in set(flat) if flat.count(label) == 1 or label[0] == ".")
    return terms, once


def _labels(term: str, size: int) -> list[str]:
    before, dots, after = term.partition("...")
    if not dots:
        return list(term)
    count = size - len(before) - len(after)
    # Ellipsis axes align at the right, so they are numbered from there.
    return [*before, *(f".{count - 1 - i}" for i in range(count)), *after]
