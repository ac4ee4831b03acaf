"""The dataflow graph of an ONNX model as plain, frozen data; torch-free."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import networkx as nx
import numpy as np

Dim = int | str | None
"""A size, the name of a symbolic size, or unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorType:
    """Element type and shape.

    `dtype` is a numpy or ml_dtypes name: `float32`, `int64`, `bfloat16`, `float8_e4m3fn`, `int4`,
    ..., or `string`. `shape` is None where the rank is unknown.
    """

    dtype: str
    shape: tuple[Dim, ...] | None


class Initializer(Protocol):
    """A constant tensor, read from its file only when asked."""

    @property
    def name(self) -> str:
        """The value's name."""

    @property
    def type(self) -> TensorType:
        """Element type and shape."""

    @property
    def has_data(self) -> bool:
        """False in a graph without weights."""

    @property
    def where(self) -> str:
        """The file that should hold the data."""

    def numpy(self) -> np.ndarray:
        """The data; `GraphError` where there is none."""

    def tobytes(self) -> bytes:
        """The stored bytes, little-endian, sub-byte types packed; empty without weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operator. Missing optional inputs are empty strings, as in ONNX."""

    name: str
    """Unique; `<op_type>_<index>` in file order where the file gives none."""
    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, object] = field(default_factory=dict)
    """int, float, str, bytes, numpy array (tensors), tuples of these, or `Graph` (bodies)."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Every value that the node needs: its inputs, then what its bodies take from outside."""
        values = [value for value in self.inputs if value]
        for attribute in self.attributes.values():
            for body in attribute if isinstance(attribute, tuple) else (attribute,):
                if isinstance(body, Graph):
                    values.extend(body.captured)
        return tuple(dict.fromkeys(values))


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A model: nodes in topological order, typed values, constants.

    Model-local functions are inlined by the loader.
    """

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    """Inputs a caller must feed (initializers are not inputs)."""
    outputs: tuple[str, ...]
    types: Mapping[str, TensorType]
    """Every value whose type is known, inputs, outputs and initializers included."""
    initializers: Mapping[str, Initializer]
    opsets: Mapping[str, int]
    """Version by domain; the ONNX domain is the empty string."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    path: Path | None = None
    told_ranks: Mapping[str, int] = field(default_factory=dict)
    """The axes of inputs that the file gives no shape, as whoever loaded it said."""
    samples: Mapping[str, int] = field(default_factory=dict)
    """The axis that counts samples by input, where a recurrence says so and no size is called a
    batch; empty where samples are in front."""

    def shape(self, value: str) -> tuple[Dim, ...] | None:
        """The declared or inferred shape of a value; None where its rank is not known."""
        found = self.types.get(value)
        return None if found is None else found.shape

    @cached_property
    def digest(self) -> str:
        """SHA-256 of structure and weights in 64 hex digits, worked out when first asked for.

        It is equal for a renamed or re-saved file: how data is stored does not count. Constants
        count with their content, without weights with type and shape; metadata, inferred types
        and the file's path do not count.
        """
        total = hashlib.sha256()
        _update(total, self)
        return total.hexdigest()

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        """Nodes by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def producer(self) -> Mapping[str, Node]:
        """The node that computes each value."""
        return {value: node for node in self.nodes for value in node.outputs if value}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each value (a node once, also when it reads the value twice)."""
        found: dict[str, dict[str, Node]] = {}
        for node in self.nodes:
            for value in node.reads:
                found.setdefault(value, {})[node.name] = node
        return {value: tuple(nodes.values()) for value, nodes in found.items()}

    @cached_property
    def dag(self) -> nx.DiGraph:
        """Node names as vertices, an edge from each producer to each consumer."""
        dag = nx.DiGraph()
        dag.add_nodes_from(node.name for node in self.nodes)
        dag.add_edges_from(
            (self.producer[value].name, node.name)
            for node in self.nodes
            for value in node.reads
            if value in self.producer
        )
        return dag

    @cached_property
    def captured(self) -> tuple[str, ...]:
        """Values that a body reads from the enclosing graph; empty for a whole model."""
        own = {*self.inputs, *self.initializers, *self.producer}
        reads = [value for node in self.nodes for value in node.reads]
        return tuple(value for value in dict.fromkeys([*reads, *self.outputs]) if value not in own)

    @property
    def has_weights(self) -> bool:
        """Whether every constant has its data."""
        return not self.absent_files

    @property
    def absent_files(self) -> tuple[str, ...]:
        """Files of constants that are not there."""
        absent = (found.where for found in self.initializers.values() if not found.has_data)
        return tuple(dict.fromkeys(absent))


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
        total.update(hashlib.sha256(initializer.tobytes()).digest())


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
