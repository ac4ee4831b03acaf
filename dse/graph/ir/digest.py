"""SHA-256 of a graph's structure and weights."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from dse.graph.ir.graph import Graph, Initializer, Node, TensorType
from dse.graph.ir.initializer import FileInitializer


def digest(graph: Graph) -> str:
    """64 hex digits, equal for a renamed or re-saved file: how data is stored does not count.

    Constants count with their content, without weights with type and shape; metadata, inferred
    types and the file's path do not count.
    """
    total = hashlib.sha256()
    _update(total, graph)
    return total.hexdigest()


def _update(total: hashlib._Hash, graph: Graph) -> None:
    header = {
        "inputs": [[name, _kind(graph.types.get(name))] for name in graph.inputs],
        "outputs": graph.outputs,
        "opsets": sorted(graph.opsets.items()),
    }
    total.update(json.dumps(header).encode())
    for node in graph.nodes:
        _update_node(total, node)
    for name in sorted(graph.initializers):
        initializer = graph.initializers[name]
        total.update(json.dumps([name, _kind(initializer.type)]).encode())
        total.update(hashlib.sha256(_content(initializer)).digest())


def _update_node(total: hashlib._Hash, node: Node) -> None:
    names = [node.name, node.domain, node.op_type, node.inputs, node.outputs]
    total.update(json.dumps(names).encode())
    for key in sorted(node.attributes):
        total.update(key.encode())
        _update_attribute(total, node.attributes[key])


def _update_attribute(total: hashlib._Hash, value: object) -> None:
    if isinstance(value, Graph):
        _update(total, value)
    elif isinstance(value, tuple):
        total.update(b"(")
        for item in value:
            _update_attribute(total, item)
        total.update(b")")
    elif isinstance(value, np.ndarray):
        total.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
    else:
        total.update(repr(value).encode() + b"\0")


def _kind(kind: TensorType | None) -> str:
    return f"{kind.dtype}{kind.shape}" if kind else ""


def _content(initializer: Initializer) -> bytes:
    if not initializer.has_data:
        return b""
    if isinstance(initializer, FileInitializer):
        return initializer.tobytes()
    return initializer.numpy().tobytes()
