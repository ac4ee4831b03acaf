"""Typed access to the attributes of a node."""

from __future__ import annotations

from dse.graph.ir.graph import Node


def integer(node: Node, name: str, default: int) -> int:
    """An integer attribute, or `default` where the node leaves it out."""
    value = node.attributes.get(name, default)
    return value if isinstance(value, int) else default


def integers(node: Node, name: str) -> tuple[int, ...]:
    """A list of integers; empty where the node leaves it out."""
    value = node.attributes.get(name, ())
    return (
        tuple(item for item in value if isinstance(item, int)) if isinstance(value, tuple) else ()
    )


def text(node: Node, name: str, default: str) -> str:
    """A string attribute, or `default` where the node leaves it out."""
    value = node.attributes.get(name, default)
    return value if isinstance(value, str) else default
