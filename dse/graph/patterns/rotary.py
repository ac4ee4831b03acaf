"""Rotary position embedding between the projections and the attention."""

from __future__ import annotations

from dse.graph.ir.graph import Node
from dse.graph.ir.operators import ARITHMETIC, PARTS, TRANSPARENT
from dse.graph.patterns.attention import Attention, Operand, source
from dse.graph.patterns.flow import Flow

STEPS = ARITHMETIC | PARTS | TRANSPARENT | {"Concat", "RotaryEmbedding"}


def rotary(flow: Flow, attention: Attention, taken: set[str]) -> frozenset[str]:
    """Nodes that rotate queries and keys of an attention; empty where nothing does.

    `taken` are nodes of patterns found before: norms, other attentions.
    """
    names: set[str] = set()
    for operand in (attention.q, attention.k):
        names |= _rotation(flow, attention, operand, taken | names)
    return frozenset(names)


def _rotation(flow: Flow, attention: Attention, operand: Operand, taken: set[str]) -> set[str]:
    start = source(flow, attention, operand)
    write = flow.producer(start)
    starts = flow.signal_inputs(write) if write and write.name in attention.nodes else [start]
    closure: dict[str, Node] = {}
    queue = list(starts)
    while queue:
        node = flow.producer(queue.pop())
        if node is None or node.name in closure or node.name in taken or not _steps(flow, node):
            continue
        closure[node.name] = node
        queue += flow.signal_inputs(node)
    kept = _without_other_readers(flow, closure, attention.nodes)
    rotates = any(
        node.op_type in ("Neg", "RotaryEmbedding") or _mixes_halves(node) for node in kept.values()
    )
    return set(kept) if rotates else set()


def _steps(flow: Flow, node: Node) -> bool:
    """Whether a node may be part of a rotation: it adds no learned constant."""
    if node.op_type == "Add" and any(value in flow.static for value in node.inputs):
        return False
    return node.op_type in STEPS


def _mixes_halves(node: Node) -> bool:
    """Interleaved rotation without a negation: x1 * cos - x2 * sin."""
    return node.op_type == "Sub"


def _without_other_readers(
    flow: Flow, nodes: dict[str, Node], inside: frozenset[str]
) -> dict[str, Node]:
    """The nodes that are read by nothing but each other and `inside`."""
    kept = dict(nodes)
    while True:
        leaving = [
            name
            for name, node in kept.items()
            if any(r.name not in kept and r.name not in inside for r in flow.readers(node))
        ]
        if not leaving:
            return kept
        for name in leaving:
            del kept[name]
