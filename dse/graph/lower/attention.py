"""An attention as one operation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from dse.graph.ir.attribute import integer
from dse.graph.ir.graph import Graph, Initializer, Node
from dse.graph.ir.operators import FUSED_ATTENTION
from dse.graph.lower.loops import attention_sizes, loops, past_input, sizes
from dse.graph.lower.operand import Values
from dse.graph.lower.window import window
from dse.graph.patterns.attention import Attention, cache_write, source
from dse.graph.patterns.attention import Operand as Input
from dse.graph.patterns.flow import Flow
from hwmodels.plans.math_attention import EXPANDED_MASK
from hwmodels.work.work import Op, Operand, OperandName

MASK = {"Attention": 3, "MultiHeadAttention": 5, "GroupQueryAttention": 10}
"""The input of a fused operator that masks or biases scores."""
DROPPED = -1e4
"""A number that masks in float16 and wider add to scores that must vanish, or less."""
COMPARISONS = ("Less", "LessOrEqual", "Greater", "GreaterOrEqual")
BLEND = ("Add", "Where", "Sum")
SAME_SHAPE = ("Expand", "Where", "Cast", "Not", "And", "Or", "Mul", "Sub", "Add")
"""Operators that make a mask, position by position."""


def attention_op(values: Values, attention: Attention) -> Op:
    """The attention of all its nodes; keys and values are read as the cache that they are.

    Sizes: B, H, HK (key and value heads), S, L, D, causal, and window where fewer positions than
    L are seen: no more are kept and read. A graph that merges batch and heads into one axis
    counts as one batch. Probabilities stay in the kernel.
    """
    size = _sizes(values, attention)
    depth = size.pop("DV")
    seen = window(values, attention.mix, _masks(values.flow, attention))
    if seen is not None and seen < size["L"]:
        size["window"] = seen
    heads = (size["B"], size["H"], size["S"])
    kv_heads = (size["B"], size["HK"], size.get("window", size["L"]))
    q = values.operand("q", source(values.flow, attention, attention.q), axes=(3,),
                       shape=(*heads, size["D"]))  # fmt: skip
    output = values.operand("output", attention.output, shape=(*heads, depth))
    return Op(
        name=attention.mix.name,
        kind="attention",
        sizes=size | {"causal": int(is_causal(values.flow, attention))},
        detail=EXPANDED_MASK if _expands_keys(values, attention) else "",
        operands=(
            q,
            _cached(values, attention, "k", attention.k, (*kv_heads, size["D"]), axis=3),
            _cached(
                values,
                attention,
                "v",
                attention.v,
                (*kv_heads, _width(values, attention, size["D"], depth)),
                axis=2,
            ),
            output,
        ),
    )


def _sizes(values: Values, attention: Attention) -> dict[str, int]:
    """The fused operator's own sizes, or those of its two products; DV is D of the values."""
    if attention.mix.op_type in FUSED_ATTENTION:
        size = attention_sizes(attention.mix, values.types)
        read = size["HK"] if past_input(attention.mix) else _kv_heads(values, attention, size)
        return size | {"HK": read}
    graph, types = values.flow.graph, values.types
    (scores,) = loops(graph, attention.scores, types)
    (mix,) = loops(graph, attention.mix, types)
    q = sizes(types, attention.q.value)
    batch = q[0] if len(q) > 3 else 1
    size = {
        "B": batch, "H": scores.batch // batch, "HK": 0, "S": scores.m, "L": scores.n,
        "D": scores.k, "DV": mix.n,
    }  # fmt: skip
    return size | {"HK": _kv_heads(values, attention, size)}


def _kv_heads(values: Values, attention: Attention, size: Mapping[str, int]) -> int:
    """Key heads before a graph repeats them for every query head."""
    keys = math.prod(sizes(values.types, source(values.flow, attention, attention.k)))
    return max(keys // max(size["B"] * size["L"] * size["D"], 1), 1)


def _width(values: Values, attention: Attention, keys: int, channels: int) -> int:
    """Channels of a cached value: values may be a part of what is kept as keys (MLA)."""
    k, v = (source(values.flow, attention, given) for given in (attention.k, attention.v))
    return max(keys, channels) if values.root(k) == values.root(v) else channels


def appended(values: Values, attention: Attention) -> Iterator[str]:
    """New keys and values that the attention adds to its cache."""
    for given in (attention.k, attention.v):
        write = cache_write(values.flow, attention, given)
        if write is not None:
            yield from (
                values.root(value)
                for value in values.flow.signal_inputs(write)
                if values.flow.producer(values.root(value)) is not None
            )


def _cached(
    values: Values,
    attention: Attention,
    name: OperandName,
    given: Input,
    shape: tuple[int, ...],
    *,
    axis: int,
) -> Operand:
    start = source(values.flow, attention, given)
    return values.operand(
        name, start, axes=(axis,), shape=shape, is_cache=is_cached(values, attention, start)
    )


def is_cached(values: Values, attention: Attention, value: str) -> bool:
    """Whether keys or values come from a cache or are returned as one."""
    if attention.mix.op_type in FUSED_ATTENTION and past_input(attention.mix):
        return True
    kept = {values.root(output) for output in values.flow.graph.outputs}
    producer = values.flow.producer(value)
    inside = producer is not None and producer.name in attention.nodes
    return inside or values.root(value) in kept


def is_causal(flow: Flow, attention: Attention) -> bool:
    """Whether later positions are masked.

    True for the attribute of a fused operator, and for a mask that compares positions with
    positions or keeps a triangle. A mask that is a constant without data counts as not causal.
    """
    node = attention.mix
    if node.op_type in FUSED_ATTENTION:
        default = 1 if node.op_type == "GroupQueryAttention" else 0
        mask = node.inputs[MASK[node.op_type]] if len(node.inputs) > MASK[node.op_type] else ""
        declared = integer(node, "is_causal", integer(node, "unidirectional", default))
        return bool(declared) or _orders_positions(flow.graph, mask)
    return any(_orders_positions(flow.graph, mask) for mask in _masks(flow, attention))


def _masks(flow: Flow, attention: Attention) -> list[str]:
    """The values that are added to scores or choose among them."""
    return [
        value
        for name in attention.nodes
        for value in flow.graph.by_name[name].inputs
        if flow.graph.by_name[name].op_type in BLEND and value and not flow.is_signal(value)
    ]


def _expands_keys(values: Values, attention: Attention) -> bool:
    """Whether a mask holds one value a query, expanded along the keys."""
    masks = [m for m in _masks(values.flow, attention) if sizes(values.types, m)[-1:] > (1,)]
    return bool(masks) and all(_is_one_a_query(values, mask) for mask in masks)


def _is_one_a_query(values: Values, value: str) -> bool:
    if sizes(values.types, value)[-1:] in ((), (1,)):
        return True
    node = values.flow.graph.producer.get(value)
    if node is None or node.op_type not in SAME_SHAPE:
        return False
    given = node.inputs[:1] if node.op_type == "Expand" else node.inputs
    return all(_is_one_a_query(values, source) for source in given)


def _orders_positions(graph: Graph, value: str) -> bool:
    queue, seen = [value], set[str]()
    while queue:
        current = queue.pop()
        if current in graph.initializers and _is_triangle(graph.initializers[current]):
            return True
        node = graph.producer.get(current)
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op_type == "Trilu" or (node.op_type in COMPARISONS and _both_vary(graph, node)):
            return True
        queue += node.inputs
    return False


def _is_triangle(constant: Initializer) -> bool:
    """Whether a constant mask (True or 0 to keep, False or very negative to drop) is causal."""
    shape = sizes({constant.name: constant.type}, constant.name)
    if not constant.has_data or len(shape) < 2 or shape[-1] < 2 or shape[-2] < 2:
        return False
    mask = constant.numpy()
    if mask.dtype.kind not in "bf":
        return False
    dropped = ~mask if mask.dtype.kind == "b" else mask < DROPPED
    later = np.triu(np.ones(shape[-2:], dtype=bool), k=1 + shape[-1] - shape[-2])
    return bool(np.all(dropped == later))


def _both_vary(graph: Graph, node: Node) -> bool:
    kinds = [graph.types.get(value) for value in node.inputs]
    return all(
        kind is not None and kind.shape is not None and any(size != 1 for size in kind.shape)
        for kind in kinds
    )
