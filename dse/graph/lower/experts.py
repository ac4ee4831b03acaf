"""Products of experts as grouped products."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from dse.graph.ir.graph import Node, TensorType
from dse.graph.ir.operators import ELEMENTWISE, PARTS
from dse.graph.lower.loops import sizes
from dse.graph.lower.operand import Values
from dse.graph.patterns.contraction import factors
from dse.graph.patterns.experts import (
    Expert,
    dispatch,
    dispatched,
    token_factor,
    weight_factor,
)
from dse.graph.patterns.flow import Flow
from dse.graph.patterns.routing import choice
from hwmodels.work.work import Op, Operand


def routed_types(
    flow: Flow, found: Mapping[str, Expert], types: Mapping[str, TensorType]
) -> Mapping[str, TensorType]:
    """`types` without the rows that a router leaves out.

    A model that computes all experts for all tokens and multiplies most results by zero is run
    by a grouped product on the chosen rows alone, so that the axis of experts is as long as the
    choice: (experts, tokens, n) counts as (topk, tokens, n) up to the weighted sum. Where every
    expert has nodes of its own, each gets its share of the chosen rows, rounded up.
    """
    changed = dict(types)
    for expert in found.values():
        sizes_of = choice(expert.router, types) if expert.router is not None else None
        if expert.router is not None and expert.form == "masked" and sizes_of is not None:
            tokens = math.prod(sizes(types, expert.router.outputs[0])) // sizes_of[1]
            changed |= _fewer_rows(flow, types, expert, tokens, sizes_of)
        if expert.form != "stacked" or sizes_of is None:
            continue
        count, topk = sizes_of
        axis = _expert_axis(sizes(types, expert.node.outputs[0]), count, expert)
        for value in _elementwise_results(flow, expert.node.outputs[0]):
            shape = sizes(types, value) if value in types else ()
            if len(shape) > axis and shape[axis] == count:
                shape = (*shape[:axis], topk, *shape[axis + 1 :])
                changed[value] = replace(types[value], shape=shape)
    return changed


def _fewer_rows(
    flow: Flow,
    types: Mapping[str, TensorType],
    expert: Expert,
    tokens: int,
    sizes_of: tuple[int, int],
) -> dict[str, TensorType]:
    """The types of what a masked product computes, with the rows of its expert alone."""
    count, topk = sizes_of
    rows = math.ceil(tokens * topk / count)
    found = {}
    for value in _elementwise_results(flow, expert.node.outputs[0], until=expert.until):
        shape = sizes(types, value) if value in types else ()
        if len(shape) > 1 and math.prod(shape[:-1]) == tokens:
            fewer = (*[1] * (len(shape) - 2), rows, shape[-1])
            found[value] = replace(types[value], shape=fewer)
    return found


def _elementwise_results(flow: Flow, start: str, *, until: Node | None = None) -> Iterator[str]:
    """A value and what elementwise nodes make of it or of its parts: the same axes."""
    queue, seen = [start], set[str]()
    while queue:
        value = queue.pop()
        if value in seen:
            continue
        seen.add(value)
        yield value
        for reader in flow.consumers(value):
            if reader is not until and reader.op_type in ELEMENTWISE | PARTS | {
                "Cast",
                "Identity",
            }:
                queue += reader.outputs


def _expert_axis(shape: Sequence[int], count: int, expert: Expert) -> int:
    """The axis of experts in a result: the first of a MatMul, before the last of an Einsum."""
    order = range(len(shape)) if expert.node.op_type == "MatMul" else reversed(range(len(shape)))
    return next(axis for axis in order if shape[axis] == count)


def expert_ops(
    values: Values, names: Sequence[str], found: Mapping[str, Expert]
) -> tuple[list[Op], frozenset[str]]:
    """The grouped products among the nodes of a region, and all nodes that they stand for."""
    members = [found[name] for name in names if name in found]
    inside = dispatch(values.flow, [member.node.name for member in members])
    ops = [_op(values, slot, inside) for slot in _slots(values.flow, members)]
    return ops, inside | {member.node.name for member in members}


def _slots(flow: Flow, members: Sequence[Expert]) -> list[list[Expert]]:
    """Experts' products that are one grouped product: the first ones of all experts, and so on."""
    if not members or not members[0].is_single:
        return [[member] for member in members]
    tokens = [member.node.inputs[token_factor(flow, member.node).index] for member in members]
    readers = Counter(tokens)
    seen: Counter[str] = Counter()
    slots: dict[int, list[Expert]] = {}
    for member, value in zip(members, tokens, strict=True):
        every = readers[value]  # products of an expert, where its rows are its own
        if member.form == "masked" and member.router is not None:
            count, _ = choice(member.router, flow.graph.types) or (1, 1)
            every = max(every // count, 1)
        slots.setdefault(seen[value] % every, []).append(member)
        seen[value] += 1
    return list(slots.values())


def _op(values: Values, slot: Sequence[Expert], inside: frozenset[str]) -> Op:
    first = slot[0]
    weights = [_weight(values, member) for member in slot]
    count = len(slot) if first.is_single else weights[0].shape[0]
    depth = math.prod(weights[0].shape[axis] for axis in weights[0].contraction_axes)
    width = math.prod(weights[0].shape[-2:]) // max(depth, 1)
    if first.router is not None:
        rows = math.prod(sizes(values.types, first.router.outputs[0]))
        topk = sizes(values.types, first.router.outputs[0])[-1]
    else:
        rows = math.prod(sizes(values.types, first.node.outputs[0])) // max(width, 1)
        topk = count
    tokens = {o.value: o for member in slot for o in _tokens(values, member, inside)}
    return Op(
        name=first.node.name,
        kind="grouped_gemm",
        sizes={"E": count, "M": rows, "K": depth, "N": width, "topk": topk},
        operands=(
            *tokens.values(),
            *weights,
            *(o for member in slot for o in _biases(values, member)),
            *(o for member in slot for o in values.outputs(member.node.outputs[0])),
        ),
    )


def _weight(values: Values, expert: Expert) -> Operand:
    factor = weight_factor(values.flow, expert.node)
    value = expert.node.inputs[factor.index]
    stack = values.stack(value, factor.axes)
    return values.operand("weight", value, axes=factor.axes) if stack is None else stack


def _tokens(values: Values, expert: Expert, inside: frozenset[str]) -> Iterator[Operand]:
    """The rows as they were before they were repeated or gathered for the experts."""
    factor = token_factor(values.flow, expert.node)
    value = start = expert.node.inputs[factor.index]
    while (node := values.flow.producer(value)) is not None and node.name in inside:
        value = dispatched(values.flow, node) or node.inputs[0]
    axes = factor.axes if value == start else (len(sizes(values.types, value)) - 1,)
    yield values.operand("input", value, axes=axes)


def _biases(values: Values, expert: Expert) -> Iterator[Operand]:
    for factor in factors(values.flow.graph, expert.node):
        if factor.part == "bias":
            yield values.operand("bias", expert.node.inputs[factor.index])
