"""Mixture of experts: who chooses the experts, and how many rows an expert gets."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dse.graph.ir.attribute import integer
from dse.graph.ir.graph import Graph, Node, TensorType
from dse.graph.ir.known import Known
from dse.graph.ir.operators import ELEMENTWISE, LAYOUT

INDEXING = ELEMENTWISE | LAYOUT | {"NonZero", "OneHot", "GatherND", "Concat"}
"""Operators that number rows of chosen experts: comparisons, one-hot masks, their non-zeros."""


def chooser(graph: Graph, value: str) -> Node | None:
    """The TopK whose choice an index or a mask is made of; None without one."""
    queue, seen = [value], set[str]()
    while queue:
        node = graph.producer.get(queue.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op_type == "TopK":
            return node
        if node.op_type in INDEXING:
            queue += node.inputs
    return None


def choice(topk: Node, types: Mapping[str, TensorType]) -> tuple[int, int] | None:
    """The numbers of experts in all and for a token; None where a size is open."""
    axis = integer(topk, "axis", -1)
    found = []
    for value in (topk.inputs[0], topk.outputs[0]):
        kind = types.get(value)
        size = kind.shape[axis] if kind is not None and kind.shape else None
        if not isinstance(size, int):
            return None
        found.append(size)
    return found[0], found[1]


def expected_rows(
    graph: Graph, node: Node, known: Mapping[str, Known]
) -> tuple[Known, ...] | None:
    """The findings of a NonZero in a mask of tokens that chose one expert; None for other nodes.

    The number depends on data; in the mean it is tokens x topk / experts, rounded up.
    """
    topk = chooser(graph, node.inputs[0]) if node.op_type == "NonZero" else None
    if topk is None:
        return None
    mask = known[node.inputs[0]].type
    scores = known[topk.inputs[0]].type
    if not isinstance(mask, TensorType) or not isinstance(scores, TensorType):
        return None
    sizes = [size for size in mask.shape or () if isinstance(size, int)]
    experts = scores.shape[integer(topk, "axis", -1)] if scores.shape else None
    if not isinstance(experts, int) or experts < 1 or len(sizes) != len(mask.shape or ()):
        return None
    rows = math.ceil(math.prod(sizes) / experts)
    return (Known(type=TensorType(dtype="int64", shape=(len(sizes), rows))),)
