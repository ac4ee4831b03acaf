"""The vocabulary of a language model, read off the table that its tokens look up."""

from __future__ import annotations

from dse.graph.ir.graph import Graph, Node

LOOKUPS = frozenset({"Gather", "GatherBlockQuantized"})
"""Operators that take rows of a table."""
SAME_VALUES = frozenset({"Identity", "Cast", "Reshape", "Unsqueeze", "Squeeze", "Flatten"})


def token_table(graph: Graph) -> int | None:
    """Rows of the largest table that an integer input looks up; None where there is none.

    Segments and positions have tables too, but smaller ones than tokens.
    """
    rows = [size for node in graph.nodes for size in [_rows(graph, node)] if size is not None]
    return max(rows, default=None)


def _rows(graph: Graph, node: Node) -> int | None:
    if node.op_type not in LOOKUPS or node.attributes.get("axis", 0) != 0:
        return None
    table = graph.types.get(node.inputs[0])
    if table is None or table.shape is None or len(table.shape) < 2:
        return None
    size = table.shape[0]
    return size if isinstance(size, int) and _is_input(graph, node.inputs[1]) else None


def _is_input(graph: Graph, value: str) -> bool:
    node = graph.producer.get(value)
    while node is not None and node.op_type in SAME_VALUES:
        value = node.inputs[0]
        node = graph.producer.get(value)
    return value in graph.inputs
