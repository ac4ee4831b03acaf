"""Chains of steps that one kernel can replace, as long as no quantizer stands inside."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from torch import Tensor
from torch.nn import functional

from dse.execute.operators.fused import fused_attention, fused_attention_macs, fused_rms_norm
from dse.execute.operators.operator import Value
from dse.execute.step import ABSENT, Step

Place = tuple[int, int]
"""(index of a step, position of an operand)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """A step that stands for several, at the place of the last of them."""

    step: Step
    members: frozenset[int]
    operands: Mapping[Place, int]
    """For operands of the members that are operands of the fused step: which."""

    @property
    def index(self) -> int:
        """Index of the fused step and of the last member."""
        return self.step.index


@dataclass(frozen=True)
class Wiring:
    """Who writes and who reads each slot."""

    steps: Sequence[Step]
    constants: Mapping[int, Value]
    outputs: frozenset[int]

    @cached_property
    def writer(self) -> Mapping[int, Step]:
        """The step that writes each slot."""
        return {slot: step for step in self.steps for slot in step.outputs if slot != ABSENT}

    @cached_property
    def readers(self) -> Mapping[int, list[tuple[Step, int]]]:
        """Steps and operand positions that read each slot."""
        found: dict[int, list[tuple[Step, int]]] = {}
        for step in self.steps:
            for position, slot in enumerate(step.inputs):
                found.setdefault(slot, []).append((step, position))
        return found

    def written_by(self, slot: int, *whats: str) -> Step | None:
        """The writer of a slot, if it is one of these operators."""
        step = self.writer.get(slot)
        return step if step is not None and step.what in whats else None

    def reader(self, slot: int, *whats: str) -> tuple[Step, int] | None:
        """The only reader of a slot, if it is one of these operators."""
        readers = self.readers.get(slot, [])
        if len(readers) != 1 or slot in self.outputs or readers[0][0].what not in whats:
            return None
        return readers[0]

    def number(self, slot: int) -> float | None:
        """The value of a constant with one element."""
        value = self.constants.get(slot)
        return float(value.item()) if isinstance(value, Tensor) and value.numel() == 1 else None

    def vector(self, slot: int) -> bool:
        """Whether the slot holds a constant with one axis."""
        value = self.constants.get(slot)
        return isinstance(value, Tensor) and value.dim() == 1


def fusions(
    steps: Sequence[Step], constants: Mapping[int, Value], outputs: Sequence[int]
) -> tuple[Fusion, ...]:
    """All chains, none with a step of another."""
    wiring = Wiring(steps, constants, frozenset(outputs))
    found: list[Fusion] = []
    taken: set[int] = set()
    for step in steps:
        for match in MATCHERS.get(step.what, ()):
            fusion = match(wiring, step)
            if fusion is not None and taken.isdisjoint(fusion.members):
                found.append(fusion)
                taken |= fusion.members
                break
    return tuple(found)


def _fusion(
    wiring: Wiring,
    members: Sequence[Step],
    inputs: Sequence[int],
    call: Callable[..., object],
    *,
    what: str,
    macs: Callable[..., int] | None = None,
) -> Fusion | None:
    """The fusion, unless an inner value is read outside."""
    last = max(members, key=lambda step: step.index)
    indices = frozenset(step.index for step in members)
    inner = {slot for step in members if step is not last for slot in step.outputs}
    for slot in inner - {ABSENT}:
        reading = {step.index for step, _ in wiring.readers.get(slot, ())}
        if slot in wiring.outputs or not reading <= indices:
            return None
    places: dict[int, list[Place]] = {}
    for step in members:
        for position, slot in enumerate(step.inputs):
            places.setdefault(slot, []).append((step.index, position))
    return Fusion(
        step=Step(
            index=last.index, name=last.name, what=what, call=call,
            inputs=tuple(inputs), outputs=last.outputs, macs=macs,
        ),
        members=indices,
        operands={
            places[slot][0]: position
            for position, slot in enumerate(inputs)
            if slot != ABSENT and len(places[slot]) == 1
        },
    )  # fmt: skip


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


def _attention(wiring: Wiring, softmax: Step) -> Fusion | None:
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
        fusion = _fusion(
            wiring,
            (*scores.members, softmax, *guard, mix),
            (query, key, mix.inputs[1], scores.mask),
            call,
            what="attention",
            macs=fused_attention_macs,
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


def _rms_norm(wiring: Wiring, mean: Step) -> Fusion | None:
    """X times the reciprocal root of its mean square, then times a gain."""
    square = wiring.written_by(mean.inputs[0], "Pow", "Mul")
    if square is None or not _is_square(wiring, square) or not _reduces_last(wiring, mean):
        return None
    x = square.inputs[0]
    total = wiring.reader(mean.outputs[0], "Add")
    epsilon = wiring.number(total[0].inputs[1 - total[1]]) if total else None
    root = wiring.reader(total[0].outputs[0], "Sqrt") if total else None
    if total is None or epsilon is None or root is None:
        return None
    divided = wiring.reader(root[0].outputs[0], "Reciprocal", "Div")
    if divided is None:
        return None
    members = [square, mean, total[0], root[0], divided[0]]
    if divided[0].what == "Reciprocal":
        scaled = wiring.reader(divided[0].outputs[0], "Mul")
        if scaled is None or x not in scaled[0].inputs:
            return None
        members.append(scaled[0])
    elif divided[1] != 1 or divided[0].inputs[0] != x:
        return None
    gain = wiring.reader(members[-1].outputs[0], "Mul")
    weight = gain[0].inputs[1 - gain[1]] if gain else ABSENT
    call = partial(fused_rms_norm, epsilon=epsilon)
    if gain is not None and wiring.vector(weight):
        whole = _fusion(wiring, (*members, gain[0]), (x, weight), call, what="rms_norm")
        if whole is not None:
            return whole
    return _fusion(wiring, members, (x,), call, what="rms_norm")


def _is_square(wiring: Wiring, step: Step) -> bool:
    if step.what == "Mul":
        return step.inputs[0] == step.inputs[1]
    return wiring.number(step.inputs[1]) == 2


def _reduces_last(wiring: Wiring, mean: Step) -> bool:
    keywords = getattr(mean.call, "keywords", {})
    axes = keywords.get("axes")
    if axes is None and len(mean.inputs) > 1:
        axes = (wiring.number(mean.inputs[1]),)
    return tuple(axes or ()) == (-1,) and keywords.get("keepdims", 1) == 1


def _silu(wiring: Wiring, sigmoid: Step) -> Fusion | None:
    """X times sigmoid(x)."""
    product = wiring.reader(sigmoid.outputs[0], "Mul")
    if product is None or product[0].inputs[1 - product[1]] != sigmoid.inputs[0]:
        return None
    return _fusion(wiring, (sigmoid, product[0]), sigmoid.inputs, functional.silu, what="silu")


def _gelu(wiring: Wiring, erf: Step) -> Fusion | None:
    """X (1 + erf(x / sqrt 2)) / 2, the products in any order."""
    scaled = wiring.written_by(erf.inputs[0], "Div", "Mul")
    factor = wiring.number(scaled.inputs[1]) if scaled else None
    if scaled is None or factor is None:
        return None
    inverse = 1 / factor if scaled.what == "Div" else factor
    shifted = wiring.reader(erf.outputs[0], "Add")
    if abs(inverse - math.sqrt(0.5)) > 1e-6 or shifted is None:
        return None
    x = scaled.inputs[0]
    if wiring.number(shifted[0].inputs[1 - shifted[1]]) != 1:
        return None
    members, left = [scaled, erf, shifted[0]], {"x", "half"}
    while left:
        product = wiring.reader(members[-1].outputs[0], "Mul")
        if product is None:
            return None
        other = product[0].inputs[1 - product[1]]
        kind = "x" if other == x else "half" if wiring.number(other) == 0.5 else ""
        half = wiring.written_by(other, "Mul")
        if not kind and half is not None and x in half.inputs and _halves(wiring, half):
            members, kind = [half, *members], "both"
        if not (left == {"x", "half"} if kind == "both" else kind in left):
            return None
        left = set() if kind == "both" else left - {kind}
        members.append(product[0])
    return _fusion(wiring, members, (x,), functional.gelu, what="gelu")


def _halves(wiring: Wiring, step: Step) -> bool:
    return any(wiring.number(slot) == 0.5 for slot in step.inputs)


MATCHERS: Mapping[str, tuple[Callable[[Wiring, Step], Fusion | None], ...]] = {
    "Erf": (_gelu,),
    "ReduceMean": (_rms_norm,),
    "Sigmoid": (_silu,),
    "Softmax": (_attention,),
}
"""What to try at which operator."""
