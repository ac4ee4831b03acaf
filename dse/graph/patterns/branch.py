"""Low-rank branches beside linear layers (LoRA): `x @ w + (x @ a @ b) * scale`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dse.graph.ir.graph import Node
from dse.graph.ir.operators import MATMULS, TRANSPARENT
from dse.graph.patterns.contraction import shape
from dse.graph.patterns.experts import token_factor, weight_factor
from dse.graph.patterns.flow import Flow

MATRIX = 2
"""Rank of a weight that is one matrix."""

SCALES = TRANSPARENT | {"Mul", "Div"}
"""Operators that may stand between a product and the sum of both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """Two products to and from a few channels, added to what another product makes.

    Source: E. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models",
    arXiv:2106.09685, section 4.1.
    """

    narrow: Node
    """The product with `a`, to the few channels."""
    wide: Node
    """The product with `b`, back to all of them."""
    base: Node
    """The product that the branch adapts, of the same input."""
    sum: Node


def branches(flow: Flow) -> Iterator[Branch]:
    """The low-rank branches of a graph, in graph order."""
    for node in flow.nodes:
        inputs = flow.signal_inputs(node) if node.op_type == "Add" else []
        if len(inputs) != 2:
            continue
        first, second = (_product(flow, value) for value in inputs)
        for base, wide in ((first, second), (second, first)):
            narrow = _product(flow, _tokens(flow, wide)) if wide is not None else None
            if base is None or wide is None or narrow is None:
                continue
            same = flow.back(_tokens(flow, narrow)) == flow.back(_tokens(flow, base))
            if same and _is_low_rank(flow, narrow, wide) and len(list(flow.readers(narrow))) == 1:
                yield Branch(narrow=narrow, wide=wide, base=base, sum=node)


def _product(flow: Flow, value: str) -> Node | None:
    """The product with a weight whose result a value is, up to a factor and a bias."""
    while (node := flow.producer(value)) is not None:
        if node.op_type in MATMULS and flow.has_weight(node):
            return node
        inputs = flow.signal_inputs(node)
        # An addition of one signal is that of a bias.
        if node.op_type not in SCALES | {"Add"} or len(inputs) != 1:
            return None
        value = inputs[0]
    return None


def _tokens(flow: Flow, node: Node) -> str:
    return node.inputs[token_factor(flow, node).index]


def _is_low_rank(flow: Flow, narrow: Node, wide: Node) -> bool:
    """Whether the channels between two products are fewer than those before and after."""
    before, after = _channels(flow, narrow), _channels(flow, wide)
    if before is None or after is None:
        return False
    return before[1] == after[0] and before[1] < min(before[0], after[1])


def _channels(flow: Flow, node: Node) -> tuple[int, int] | None:
    """In and out of a product with one matrix."""
    factor = weight_factor(flow, node)
    sizes = shape(flow.graph, node, factor.index)
    if len(sizes) != MATRIX or len(factor.axes) != 1:
        return None
    inside, outside = sizes[factor.axes[0]], sizes[1 - factor.axes[0]]
    if not isinstance(inside, int) or not isinstance(outside, int):
        return None
    return inside, outside
