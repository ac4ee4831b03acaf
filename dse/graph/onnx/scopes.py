"""Names that hold across a model and its bodies, and large constants of bodies outside of them.

ONNX lets two bodies use one name for different values and nodes. What is found in a graph, and a
site's key, needs names that say which one is meant.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableSet

import onnx

from dse.graph.onnx.order import bodies


def qualify(graph: onnx.GraphProto) -> None:
    """Makes names of nodes and values unique across a graph and its bodies. In place.

    A node inside of a body is called `<node>/<attribute>/<its own name>`; a value keeps its name
    unless another scope has it too, and gets the same prefix there.

    Args:
        graph: a model's; its nodes are named, uniquely in each body.
    """
    taken = set(_own_values(graph))
    for node in graph.node:
        _qualify_bodies(node, taken)


def _qualify_bodies(node: onnx.NodeProto, taken: MutableSet[str]) -> None:
    for prefix, body in _named_bodies(node):
        renamed: dict[str, str] = {}
        for value in dict.fromkeys(_own_values(body)):
            name = value if value not in taken else f"{prefix}/{value}"
            while name in taken:
                name += "_"
            taken.add(name)
            if name != value:
                renamed[value] = name
        if renamed:
            _rename(body, renamed)
        for inner in body.node:
            inner.name = f"{prefix}/{inner.name}"
            _qualify_bodies(inner, taken)


def _named_bodies(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield f"{node.name}/{attribute.name}", attribute.g
        for index, body in enumerate(attribute.graphs):
            yield f"{node.name}/{attribute.name}.{index}", body


def _own_values(graph: onnx.GraphProto) -> Iterator[str]:
    """The names that a graph itself gives to values."""
    yield from (value.name for value in graph.input)
    yield from (tensor.name for tensor in graph.initializer)
    yield from (value for node in graph.node for value in node.output if value)


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Other names for values, wherever the graph and its bodies speak of them."""
    for named in (graph.input, graph.output, graph.value_info, graph.initializer):
        for entry in named:
            entry.name = names.get(entry.name, entry.name)
    for node in graph.node:
        node.input[:] = [names.get(value, value) for value in node.input]
        node.output[:] = [names.get(value, value) for value in node.output]
        for body in bodies(node):
            hidden = set(_own_values(body))
            seen = {value: name for value, name in names.items() if value not in hidden}
            if seen:
                _rename(body, seen)
