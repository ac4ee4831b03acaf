"""The nodes that carry the signal, told from those that prepare sizes, masks and positions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from dse.graph.ir.attribute import integer
from dse.graph.ir.graph import Graph, Node
from dse.graph.ir.operators import FUSED_ATTENTION, QUANTIZING, TRANSPARENT
from dse.graph.patterns.contraction import factors, is_contracting, shape

FLOATS = ("float", "bfloat", "double")
MATRIX = 2
"""Rank of one weight matrix; a stack of them has more."""
SHAPE_READERS = frozenset({"Shape", "Size"})


@dataclass(frozen=True, kw_only=True)
class Flow:
    """A graph with its signal nodes told apart.

    The signal begins at float inputs, embedding look-ups and contractions with a weight, and runs
    through everything that reads it. The rest (sizes, masks, rotary tables, folded weights) is
    side computation: a runtime does it ahead, or inside the kernels that use it.
    """

    graph: Graph
    static: frozenset[str]
    """Values that no input data reaches: constants, what is made of them, sizes."""
    signal: frozenset[str]
    """Names of the nodes that carry the signal."""

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The signal nodes in topological order."""
        return tuple(node for node in self.graph.nodes if node.name in self.signal)

    @cached_property
    def position(self) -> dict[str, int]:
        """Place of each node in topological order."""
        return {node.name: at for at, node in enumerate(self.graph.nodes)}

    def producer(self, value: str) -> Node | None:
        """The signal node that computes a value; None for inputs, constants, side values."""
        node = self.graph.producer.get(value)
        return node if node is not None and node.name in self.signal else None

    def is_signal(self, value: str) -> bool:
        """Whether a value carries the signal: a float input, or what a signal node computes."""
        if value in self.graph.producer:
            return self.graph.producer[value].name in self.signal
        return value in self.graph.inputs and _is_float(self.graph, value)

    def signal_inputs(self, node: Node) -> list[str]:
        """The node's inputs that carry the signal, each once."""
        return [value for value in dict.fromkeys(node.reads) if self.is_signal(value)]

    def consumers(self, value: str) -> list[Node]:
        """The signal nodes that read a value."""
        readers = self.graph.consumers.get(value, ())
        return [node for node in readers if node.name in self.signal]

    def readers(self, node: Node) -> Iterator[Node]:
        """The signal nodes that read what a node computes."""
        for value in node.outputs:
            yield from self.consumers(value)

    def weight_index(self, node: Node) -> int | None:
        """The input of a contracting node that is its weight; None for products of activations."""
        if node.name not in self._weight_indices:
            self._weight_indices[node.name] = self._weight_index(node)
        return self._weight_indices[node.name]

    @cached_property
    def _weight_indices(self) -> dict[str, int | None]:
        # Every search asks for the weight of the same products, some for all that is behind one.
        return {}

    def _weight_index(self, node: Node) -> int | None:
        if node.op_type in FUSED_ATTENTION:
            return None
        multiplied = [
            factor
            for factor in factors(self.graph, node)
            if factor.part != "bias" and self._is_weight(node.inputs[factor.index])
        ]
        return multiplied[-1].index if multiplied else None

    def table(self, value: str) -> Node | None:
        """The node that picks matrices of experts out of a constant stack, where one made `value`.

        Which ones is for the data to say, so `value` is not static; what is in it is.
        """
        node = None if value in self.static else self.graph.producer.get(self.back(value))
        if node is None or node.op_type not in ("Gather", "GatherND"):
            return None
        kind = self.graph.types.get(node.inputs[0])
        is_stack = kind is not None and len(kind.shape or ()) > MATRIX
        return node if is_stack and node.inputs[0] in self.static else None

    def _is_weight(self, value: str) -> bool:
        return value in self.static or self.table(value) is not None

    def has_weight(self, node: Node) -> bool:
        """Whether a node is a contraction with a weight."""
        return is_contracting(node) and self.weight_index(node) is not None

    def is_product(self, node: Node) -> bool:
        """Whether a node multiplies two activations."""
        return (
            is_contracting(node)
            and node.op_type not in FUSED_ATTENTION
            and self.weight_index(node) is None
        )

    def back(self, value: str, through: frozenset[str] = TRANSPARENT | QUANTIZING) -> str:
        """The value that `value` is a copy of, seen back through `through`."""
        while (node := self.graph.producer.get(value)) is not None and node.op_type in through:
            value = node.inputs[0]
        return value


def flow_of(graph: Graph) -> Flow:
    """The flow of a graph.

    Raises:
        GraphError: The rank of a contracting node's operand is unknown.
    """
    static = set(graph.initializers)
    carrying = {value for value in graph.inputs if _is_float(graph, value)}
    signal: set[str] = set()
    for node in graph.nodes:
        reads = _data_reads(node)
        if any(value in carrying for value in reads) or _starts(graph, node, static):
            signal.add(node.name)
            carrying.update(node.outputs)
        elif all(value in static for value in reads):
            static.update(node.outputs)
    return Flow(graph=graph, static=frozenset(static), signal=frozenset(signal))


def _data_reads(node: Node) -> tuple[str, ...]:
    """The values whose elements a node uses, not only their shape or type."""
    if node.op_type in SHAPE_READERS:
        return ()
    return node.reads[:1] if node.op_type == "CastLike" else node.reads


def is_lookup(graph: Graph, node: Node, static: Iterable[str]) -> bool:
    """Whether a node reads rows of a weight table: an embedding."""
    if node.op_type == "EmbedLayerNormalization":
        return True
    if node.op_type != "Gather" or integer(node, "axis", 0) != 0:
        return False
    table, kind = node.inputs[0], graph.types.get(node.inputs[0])
    indices = graph.types.get(node.inputs[1])
    return (
        table in static
        and (_is_float(graph, table) or _is_stored_in_codes(graph, node))
        and kind is not None
        and kind.shape is not None
        and len(kind.shape) == 2
        and (indices is None or indices.shape is None or len(indices.shape) > 0)
    )


def _starts(graph: Graph, node: Node, static: set[str]) -> bool:
    """Whether the signal begins here: a look-up, or data times a weight."""
    if is_lookup(graph, node, static):
        return True
    if not is_contracting(node) or all(value in static for value in node.reads):
        return False
    # Positions times inverse frequencies is an outer product of two vectors: no sum, no weight.
    sums = [
        shape(graph, node, factor.index)[axis]
        for factor in factors(graph, node)
        for axis in factor.axes
    ]
    return any(size != 1 for size in sums)


def _is_stored_in_codes(graph: Graph, node: Node) -> bool:
    """Whether the rows that a look-up reads are codes, dequantized behind it."""
    readers = graph.consumers.get(node.outputs[0], ())
    return bool(readers) and all(
        reader.op_type == "DequantizeLinear" and reader.inputs[0] == node.outputs[0]
        for reader in readers
    )


def _is_float(graph: Graph, value: str) -> bool:
    kind = graph.types.get(value)
    return kind is not None and kind.dtype.startswith(FLOATS)
