"""Attention that is written out: scores, a softmax, a weighted sum of values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from dse.execute.operators.fused import fused_attention, fused_attention_macs
from dse.execute.operators.step import ABSENT, Step
from dse.execute.program.wiring import Fusion, Wiring, chain


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """How the input of a softmax comes from a product."""

    product: Step
    members: tuple[Step, ...]
    scale: float = 1.0
    mask: int = ABSENT


def _scores(wiring: Wiring, slot: int) -> Iterator[Scores]:
    """Ways in which a slot is a product, scaled, then masked."""
    step = wiring.writer.get(slot)
    if step is None:
        return
    if step.what == "MatMul":
        yield Scores(product=step, members=(step,))
    elif step.what in ("Mul", "Div"):
        yield from _scaled(wiring, step)
    elif step.what == "Add":
        for position in (0, 1):
            mask = step.inputs[1 - position]
            yield from _masked(wiring, step, step.inputs[position], mask)
    elif step.what == "Where" and wiring.number(step.inputs[2]) == -math.inf:
        yield from _masked(wiring, step, step.inputs[1], step.inputs[0])


def _scaled(wiring: Wiring, step: Step) -> Iterator[Scores]:
    for position in (0, 1) if step.what == "Mul" else (0,):
        factor = wiring.number(step.inputs[1 - position])
        product = wiring.written_by(step.inputs[position], "MatMul")
        if factor is not None and product is not None:
            scale = factor if step.what == "Mul" else 1 / factor
            yield Scores(product=product, members=(product, step), scale=scale)


def _masked(wiring: Wiring, step: Step, slot: int, mask: int) -> Iterator[Scores]:
    for found in _scores(wiring, slot):
        if found.mask == ABSENT:
            yield Scores(
                product=found.product, members=(*found.members, step), scale=found.scale, mask=mask
            )


def attention_chain(wiring: Wiring, softmax: Step) -> Fusion | None:
    """MatMul, scale, mask, Softmax (and a guard against NaN), MatMul."""
    if not _is_last_axis(softmax):
        return None
    guard = _guard(wiring, softmax)
    probabilities = (guard[-1] if guard else softmax).outputs[0]
    reader = wiring.reader(probabilities, "MatMul")
    if reader is None or reader[1] != 0:
        return None
    mix = reader[0]
    for scores in _scores(wiring, softmax.inputs[0]):
        query, key = scores.product.inputs
        call = partial(fused_attention, scale=scores.scale, guarded=bool(guard))
        fusion = chain(
            wiring,
            (*scores.members, softmax, *guard, mix),
            (query, key, mix.inputs[1], scores.mask),
            call,
            what="attention",
            macs=fused_attention_macs,
            inner={(mix.index, 0): "quantize"},
        )
        if fusion is not None:
            return fusion
    return None


def _is_last_axis(softmax: Step) -> bool:
    keywords = getattr(softmax.call, "keywords", {})
    flattens = "flattened" in getattr(softmax.call, "func", softmax.call).__name__
    return not flattens and keywords.get("axis", -1) == -1


def _guard(wiring: Wiring, softmax: Step) -> tuple[Step, ...]:
    """The steps of Where(IsNaN(p), 0, p), as torch's exporter writes after a softmax."""
    readers = {step.what: step for step, _ in wiring.readers.get(softmax.outputs[0], ())}
    if set(readers) != {"IsNaN", "Where"}:
        return ()
    test, choice = readers["IsNaN"], readers["Where"]
    expected = choice.inputs[0] == test.outputs[0] and choice.inputs[2] == softmax.outputs[0]
    return (test, choice) if expected and wiring.number(choice.inputs[1]) == 0 else ()
