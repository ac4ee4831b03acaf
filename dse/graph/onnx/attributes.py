"""Attributes that mean nothing for the node that has them, though onnx's checker takes them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import onnx

from dse.errors import GraphError
from dse.graph.ir.attribute import text
from dse.graph.ir.graph import Graph, Node
from dse.graph.onnx.order import bodies

POSITIVE = (
    "blocksize", "dilations", "group", "hidden_size", "kernel_shape", "kv_num_heads", "num_heads",
    "q_num_heads", "strides",
)  # fmt: skip
"""Counts: a model whose convolution has no groups or whose attention no heads computes nothing."""
_EQUATION = re.compile(rb"[A-Za-z., ]*(->[A-Za-z. ]*)?")
_TERM = re.compile(r"[A-Za-z]*(\.\.\.)?[A-Za-z]*")


def check_equations(graph: onnx.GraphProto, *, where: str) -> None:
    """Refuses equations with characters that no equation has, before onnx infers shapes.

    onnx's inference never ends on them (seen with onnx 1.23.2).

    Raises:
        GraphError: An Einsum, also in a body, with such an equation.
    """
    for node in graph.node:
        for attribute in node.attribute:
            is_equation = node.op_type == "Einsum" and attribute.name == "equation"
            if is_equation and not _EQUATION.fullmatch(attribute.s):
                raise GraphError(
                    f"{where}: node {node.name} (Einsum): equation "
                    f"{attribute.s.decode(errors='replace')!r}: expected letters, commas, "
                    "'...' and one '->'"
                )
        for body in bodies(node):
            check_equations(body, where=where)


def check_attributes(graph: Graph, *, where: str) -> None:
    """Raises `GraphError` for a node, also in a body, with an attribute that means nothing."""
    for node in graph.nodes:
        for fault in _faults(graph, node):
            raise GraphError(f"{where}: node {node.name} ({node.op_type}): {fault}")
        for value in node.attributes.values():
            for body in value if isinstance(value, tuple) else (value,):
                if isinstance(body, Graph):
                    check_attributes(body, where=where)


def _faults(graph: Graph, node: Node) -> Iterator[str]:
    for name in POSITIVE:
        value = node.attributes.get(name, 1)
        for number in value if isinstance(value, tuple) else (value,):
            if not isinstance(number, int) or number < 1:
                yield f"{name}: expected positive whole numbers, got {value!r}"
    if node.op_type == "Einsum":
        yield from _equation_faults(graph, node)


def _equation_faults(graph: Graph, node: Node) -> Iterator[str]:
    equation = text(node, "equation", "").replace(" ", "")
    left, _, right = equation.partition("->")
    terms = left.split(",")
    if not all(_TERM.fullmatch(term) for term in (*terms, right)):
        yield f"equation {equation!r}: expected letters, commas, '...' and one '->'"
    elif len(terms) != len(node.inputs):
        yield f"equation {equation!r} has {len(terms)} terms for {len(node.inputs)} inputs"
    else:
        yield from _term_faults(graph, node, terms)


def _term_faults(graph: Graph, node: Node, terms: list[str]) -> Iterator[str]:
    for term, value in zip(terms, node.inputs, strict=True):
        kind = graph.types.get(value)
        if kind is None or kind.shape is None:
            continue
        letters, rank = len(term.replace("...", "")), len(kind.shape)
        if letters > rank or (letters < rank and "..." not in term):
            yield f"term {term!r} does not fit {value!r}, which has {rank} axes"
