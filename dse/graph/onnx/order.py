"""Unique node names and topological order, in place, bodies included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import networkx as nx
import onnx

from dse.errors import GraphError, nearest


def name_nodes(graph: onnx.GraphProto) -> None:
    """Gives every node a unique name: `<op_type>_<index in file order>` where it has none.

    A name that the file gives twice stays with its first node; the others get their index
    appended.
    """
    given = Counter(node.name for node in graph.node if node.name)
    taken: set[str] = set()
    for position, node in enumerate(graph.node):
        name = node.name or f"{node.op_type}_{position}"
        while name in taken or (not node.name and name in given):
            name = f"{name}_{position}"
        taken.add(name)
        node.name = name
        for body in bodies(node):
            name_nodes(body)


def sort_nodes(graph: onnx.GraphProto, *, where: str, outer: frozenset[str] = frozenset()) -> None:
    """Brings producers before their readers; stable. `outer` are the enclosing graph's values.

    Raises:
        GraphError: A cycle, a value that two nodes write, or one that none does.
    """
    known = {value.name for value in graph.input}
    known |= {tensor.name for tensor in graph.initializer}
    nodes = list(graph.node)
    order = topological(nodes, known | outer, where=where)
    scope = outer | known | {value for node in nodes for value in node.output}
    for node in nodes:
        for body in bodies(node):
            sort_nodes(body, where=where, outer=frozenset(scope))
    if order != list(range(len(nodes))):
        del graph.node[:]
        graph.node.extend(nodes[position] for position in order)


def bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs in a node's attributes: branches, loop bodies."""
    return [
        body
        for attribute in node.attribute
        for body in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
    ]


def captured(node: onnx.NodeProto) -> set[str]:
    """Values of the enclosing graph that the bodies of a node read."""
    return set().union(*(_free_values(body) for body in bodies(node)))


def topological(nodes: Sequence[onnx.NodeProto], known: Iterable[str], *, where: str) -> list[int]:
    """Positions of `nodes` in an order where producers come first; stable.

    `known` are values that need no producer: inputs, initializers, the enclosing graph's values.

    Raises:
        GraphError: A cycle, a value that two nodes write, or one that none does.
    """
    reads = [{value for value in node.input if value} | captured(node) for node in nodes]
    known = set(known)
    producer = _producers(nodes, known, where)
    _check_defined(nodes, reads, known | set(producer), where)
    dag = nx.DiGraph()
    dag.add_nodes_from(range(len(nodes)))
    dag.add_edges_from(
        (producer[value], at)
        for at, needs in enumerate(reads)
        for value in needs
        if value in producer
    )
    try:
        return list(nx.lexicographical_topological_sort(dag))
    except nx.NetworkXUnfeasible:
        raise GraphError(f"{where}: the graph has a cycle: {_cycle(nodes, dag)}") from None


def _free_values(body: onnx.GraphProto) -> set[str]:
    own = {value.name for value in [*body.input, *body.initializer]}
    own |= {tensor.values.name for tensor in body.sparse_initializer}
    own |= {value for node in body.node for value in node.output}
    reads = {value.name for value in body.output}
    for node in body.node:
        reads |= {value for value in node.input if value} | captured(node)
    return reads - own


def _producers(nodes: Sequence[onnx.NodeProto], known: set[str], where: str) -> dict[str, int]:
    producer: dict[str, int] = {}
    twice: list[str] = []
    for position, node in enumerate(nodes):
        for value in node.output:
            if value and (value in producer or value in known):
                twice.append(value)
            elif value:
                producer[value] = position
    if twice:
        names = ", ".join(map(repr, twice))
        raise GraphError(f"{where}: written twice: {names}; every value needs a name of its own")
    return producer


def _check_defined(
    nodes: Sequence[onnx.NodeProto], reads: Sequence[set[str]], defined: set[str], where: str
) -> None:
    problems = [
        f"{node.name} ({node.op_type}) reads {value!r}"
        for node, needs in zip(nodes, reads, strict=True)
        for value in sorted(needs - defined)
    ]
    if problems:
        first = min(set().union(*reads) - defined)
        message = f"{where}: values that nothing computes: {'; '.join(problems)}"
        raise GraphError(f"{message}{nearest(first, defined)}")


def _cycle(nodes: Sequence[onnx.NodeProto], dag: nx.DiGraph) -> str:
    steps = [edge[0] for edge in nx.find_cycle(dag)]
    return " -> ".join(nodes[at].name for at in [*steps, steps[0]])
