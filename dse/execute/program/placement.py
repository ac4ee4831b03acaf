"""The nodes that run on the host although the model runs on an accelerator.

Shapes are computed on the host, so that no size ever waits for the device.
"""

from __future__ import annotations

from collections.abc import Iterable

from dse.execute.program.binding import operator_of
from dse.graph.ir.graph import Graph, Node

BORN_ON_HOST = frozenset({"Shape", "Size", "SequenceLength", "OptionalHasElement"})
"""Operators whose results are on the host and that read no values."""


def host_nodes(graph: Graph, constants: Iterable[str]) -> frozenset[str]:
    """Names of the nodes that run on the host.

    These are the nodes that lead to a size, axis or other input read on the host and work on
    vectors at most, and those that only see results of such nodes.
    """
    fixed = set(constants)
    return _forward(graph, fixed, _backward(graph))


def _is_small(graph: Graph, names: Iterable[str]) -> bool:
    for name in names:
        kind = graph.types.get(name)
        if name and (kind is None or kind.shape is None or len(kind.shape) > 1):
            return False
    return True


def _backward(graph: Graph) -> frozenset[str]:
    wanted: set[str] = set()
    found: set[str] = set()
    for node in reversed(graph.nodes):
        if node.op_type in BORN_ON_HOST:
            found.add(node.name)
            continue
        small = _is_small(graph, (*node.inputs, *node.outputs))
        if small and any(name in wanted for name in node.outputs):
            found.add(node.name)
            wanted.update(node.inputs)
        else:
            wanted.update(read_on_host(node))
    return frozenset(found)


def _forward(graph: Graph, constants: set[str], leading: frozenset[str]) -> frozenset[str]:
    on_host: set[str] = set()
    found = set(leading)
    for node in graph.nodes:
        operator = operator_of(node)
        sources = [name for name in node.inputs if name and name not in constants]
        derived = bool(sources) and all(name in on_host for name in sources)
        if node.name in leading or (derived and operator is not None and not operator.generates):
            found.add(node.name)
            on_host.update(node.outputs)
    return frozenset(found)


def read_on_host(node: Node) -> tuple[str, ...]:
    """The inputs of a node that its function reads on the host."""
    operator = operator_of(node)
    positions = operator.host if operator else ()
    return tuple(node.inputs[i] for i in positions if i < len(node.inputs))
