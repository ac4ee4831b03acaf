"""Weights that the work of a graph does not hold: named, because nothing prices them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from dse.graph.ir.graph import Node, TensorType
from dse.graph.lower.operand import Values
from dse.graph.patterns.contraction import is_contracting
from hwmodels.work.work import Op

FEW_ELEMENTS = 64
"""Constants up to this size are parameters of an operator (axes, scales, epsilons), no weights."""
TABLE_ELEMENTS = 1 << 16
"""The same for constants that prepare masks and positions, which cost nothing."""
NUMBERS = ("float", "bfloat", "int2", "uint2", "int4", "uint4", "int8", "uint8")


def unpriced_weights(values: Values, ops: Iterable[Op]) -> Iterator[str]:
    """A sentence for every node whose weights no operation reads, with their bytes.

    Args:
        values: naming in the flat graph.
        ops: of all regions, those that only store among them.
    """
    initializers = values.flow.graph.initializers
    seen = _reached(values, ops)
    for node in values.flow.graph.nodes:
        beside = node.name not in values.flow.signal and not _picks(values, node)
        missing = [
            value
            for value in dict.fromkeys(node.reads)
            if value in initializers
            and value not in seen
            and is_weight(initializers[value].type, beside=beside)
        ]
        seen.update(missing)
        if missing:
            size = sum(values.stored_bytes(value) for value in missing)
            yield _sentence(node, missing, size)


def _picks(values: Values, node: Node) -> bool:
    """Whether an index picks weights of products out of a stack here."""
    return any(
        is_contracting(reader)
        for value in node.outputs
        if values.flow.table(value) is not None
        for reader in values.flow.consumers(value)
    )


def _sentence(node: Node, values: list[str], size: int) -> str:
    return (
        f"{node.name} ({node.op_type}): not priced: no region holds its weights "
        f"({', '.join(values)}), {size} bytes"
    )


def _reached(values: Values, ops: Iterable[Op]) -> set[str]:
    """The values that operations read, and the constants that those are made of."""
    static, producer = values.flow.static, values.flow.graph.producer
    queue = [operand.value for op in ops for operand in op.operands]
    found: set[str] = set()
    while queue:
        value = queue.pop()
        if value in static and value not in found:
            found.add(value)
            node = producer.get(value)
            queue += [] if node is None else node.reads
    return found


def is_weight(kind: TensorType, *, beside: bool) -> bool:
    """Whether a constant is more than a parameter; `beside` the signal, than a table of angles."""
    sizes = [size for size in kind.shape or () if isinstance(size, int)]
    few = TABLE_ELEMENTS if beside else FEW_ELEMENTS
    return kind.dtype.startswith(NUMBERS) and math.prod(sizes) > few
