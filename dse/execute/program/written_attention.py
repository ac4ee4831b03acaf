"""Attention that is written out, as one kernel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from dse.execute.operators.fused import Axes, fused_attention, fused_attention_macs
from dse.execute.operators.step import ABSENT, Step
from dse.execute.program.wiring import Fusion, Wiring, chain, reduces_last
from dse.graph.ir.graph import Graph, Node
from dse.graph.patterns.attention import Attention
from dse.graph.patterns.contraction import einsum_terms, rank

LOWEST = -1e9
"""A number in place of masked scores that is at most this leaves no probability beside others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probabilities:
    """The steps from the scores, masked and scaled, to the probabilities."""

    scores: int
    members: tuple[Step, ...] = ()
    guarded: bool = False
    """Rows without any access are zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The steps from a product to the input of a softmax."""

    product: Step
    members: tuple[Step, ...]
    scale: float = 1.0
    mask: int = ABSENT
    low: float = -math.inf
    """The number in place of masked scores."""


def attention_chain(wiring: Wiring, graph: Graph, found: Attention) -> Fusion | None:
    """One kernel for an attention, if nothing but a scale and a mask lies before its softmax.

    The graph's finding says which products belong together; what is asked here is that the kernel
    computes the same numbers: no cap on scores, no cast to fewer bits, every step known.
    """
    if found.probabilities is None:
        return None
    product, mix = (wiring.by_name.get(node.name) for node in (found.scores, found.mix))
    axes = _axes(graph, found)
    if product is None or mix is None or axes is None:
        return None
    after = _probabilities(wiring, mix.inputs[found.probabilities.index])
    if after is None:
        return None
    query, key, value = product.inputs[found.q.index], product.inputs[found.k.index], mix.inputs[
        found.v.index
    ]  # fmt: skip
    for scores in _scores(wiring, after.scores):
        if scores.product is not product:
            continue
        call = partial(
            fused_attention, scale=scores.scale, low=scores.low, guarded=after.guarded, axes=axes
        )
        # A row of finite low scores is spread over all keys, which tiles of keys do not see.
        whole = scores.mask == ABSENT or math.isinf(scores.low)
        fusion = chain(
            wiring,
            (*scores.members, *after.members, mix),
            (query, key, value, scores.mask),
            call,
            what="attention",
            macs=partial(fused_attention_macs, axes=axes),
            inner={(mix.index, found.probabilities.index): "quantize"} if whole else {},
        )
        if fusion is not None:
            return fusion
    return None


def _probabilities(wiring: Wiring, slot: int) -> Probabilities | None:
    """A softmax over the last axis, behind it at most dropout and a guard against NaN."""
    step = wiring.writer.get(slot)
    if step is None:
        return None
    match step.what:
        case "Softmax" if _is_last_axis(step):
            return Probabilities(scores=step.inputs[0], members=(step,))
        case "Div":
            return _written_softmax(wiring, step)
        case "Dropout":
            return _before(wiring, step.inputs[0], (step,), guarded=False)
        case "Where":
            test = wiring.written_by(step.inputs[0], "IsNaN")
            guards = test is not None and test.inputs[0] == step.inputs[2]
            if test is not None and guards and wiring.number(step.inputs[1]) == 0:
                return _before(wiring, step.inputs[2], (test, step), guarded=True)
    return None


def _before(
    wiring: Wiring, slot: int, members: tuple[Step, ...], *, guarded: bool
) -> Probabilities | None:
    found = _probabilities(wiring, slot)
    if found is None:
        return None
    return replace(found, members=(*found.members, *members), guarded=guarded or found.guarded)


def _written_softmax(wiring: Wiring, divide: Step) -> Probabilities | None:
    """exp(a - max a) over its sum."""
    exponential = wiring.written_by(divide.inputs[0], "Exp")
    total = wiring.written_by(divide.inputs[1], "ReduceSum")
    shift = wiring.written_by(exponential.inputs[0], "Sub") if exponential else None
    top = wiring.written_by(shift.inputs[1], "ReduceMax") if shift else None
    if exponential is None or total is None or shift is None or top is None:
        return None
    same = total.inputs[0] == divide.inputs[0] and top.inputs[0] == shift.inputs[0]
    if not same or not reduces_last(wiring, total) or not reduces_last(wiring, top):
        return None
    members = (top, shift, exponential, total, divide)
    return Probabilities(scores=shift.inputs[0], members=members)


def _is_last_axis(softmax: Step) -> bool:
    keywords = getattr(softmax.call, "keywords", {})
    flattens = "flattened" in getattr(softmax.call, "func", softmax.call).__name__
    return not flattens and keywords.get("axis", -1) == -1


def _scores(wiring: Wiring, slot: int) -> Iterator[Scores]:
    """Ways in which a slot is a product, scaled, then masked."""
    step = wiring.writer.get(slot)
    if step is None:
        return
    if step.what in ("MatMul", "Einsum"):
        yield Scores(product=step, members=(step,))
    elif step.what in ("Mul", "Div"):
        yield from _scaled(wiring, step)
    elif step.what == "Add":
        for position in (0, 1):
            mask = step.inputs[1 - position]
            yield from _masked(wiring, step, step.inputs[position], mask)
    elif step.what == "Where":
        low = wiring.number(step.inputs[2])
        if low is not None and low <= LOWEST:
            for found in _masked(wiring, step, step.inputs[1], step.inputs[0]):
                yield replace(found, low=low)


def _scaled(wiring: Wiring, step: Step) -> Iterator[Scores]:
    for position in (0, 1) if step.what == "Mul" else (0,):
        factor = wiring.number(step.inputs[1 - position])
        product = wiring.written_by(step.inputs[position], "MatMul", "Einsum")
        if factor is not None and product is not None:
            scale = factor if step.what == "Mul" else 1 / factor
            yield Scores(product=product, members=(product, step), scale=scale)


def _masked(wiring: Wiring, step: Step, slot: int, mask: int) -> Iterator[Scores]:
    for found in _scores(wiring, slot):
        if found.mask == ABSENT:
            yield replace(found, members=(*found.members, step), mask=mask)


def _axes(graph: Graph, found: Attention) -> Axes | None:
    """The turned axes of operands and result; None where the kernel computes something else.

    The kernel takes queries (..., S, D), keys (..., D, L), values (..., L, Dv).
    """
    scores = _product_axes(graph, found.scores, found.q.index, found.k.index)
    given = found.probabilities.index if found.probabilities is not None else 0
    mix = _product_axes(graph, found.mix, given, found.v.index)
    if scores is None or mix is None:
        return None
    (query, key, made), (probabilities, value, output) = scores, mix
    # Between both products nothing may be turned: scores come as probabilities are read.
    if not _is_plain(made) or not _is_plain(probabilities):
        return None
    return Axes(query=query, key=key, value=value, output=output)


Order = tuple[int, ...] | None
"""A permutation of axes; None leaves them as they are."""


def _is_plain(order: Order) -> bool:
    return order is None or order == tuple(range(len(order)))


def _product_axes(
    graph: Graph, node: Node, left: int, right: int
) -> tuple[Order, Order, Order] | None:
    """Both factors as (..., m, k) and (..., k, n), and the result out of (..., m, n)."""
    if node.op_type == "MatMul":
        return (None, None, None) if (left, right) == (0, 1) else None
    if node.op_type != "Einsum" or len(node.inputs) != 2:
        return None
    terms, output = einsum_terms(node, [rank(graph, node, index) for index in (0, 1)])
    return _einsum_axes(terms[left], terms[right], output)


def _einsum_axes(
    a: Sequence[str], b: Sequence[str], output: Sequence[str]
) -> tuple[Order, Order, Order] | None:
    if any(len(set(labels)) < len(labels) for labels in (a, b, output)):
        return None  # a diagonal
    summed = [label for label in a if label not in output]
    rows = [label for label in output if label not in b]
    columns = [label for label in output if label not in a]
    lead = [label for label in output if label in a and label in b]
    if not len(summed) == len(rows) == len(columns) == 1:
        return None
    orders = ((a, [*lead, *rows, *summed]), (b, [*lead, *summed, *columns]))
    if any(set(given) != set(wanted) for given, wanted in orders):
        return None
    made = [*lead, *rows, *columns]
    first, second = (tuple(given.index(label) for label in want) for given, want in orders)
    return first, second, tuple(made.index(label) for label in output)
