"""Writers and readers of values among steps, and chains of them as one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from dse.execute.operators.operator import Value
from dse.execute.operators.step import ABSENT, Step

Place = tuple[int, int]
"""(index of a step, position of an operand)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """A step that stands for several, at the place of the last of them."""

    step: Step
    members: frozenset[int]
    operands: Mapping[Place, int]
    """For operands of the members that are operands of the fused step: which."""
    inner: Mapping[Place, str]
    """Operands inside the chain that may be quantised: the call's keyword for the quantizer."""

    @property
    def index(self) -> int:
        """Index of the fused step and of the last member."""
        return self.step.index


@dataclass(frozen=True)
class Wiring:
    """The writer and the readers of each slot."""

    steps: Sequence[Step]
    constants: Mapping[int, Value]
    outputs: frozenset[int]
    slots: Mapping[str, int]
    """Slot by value name."""

    @cached_property
    def by_name(self) -> Mapping[str, Step]:
        """Steps by the name of their node."""
        return {step.name: step for step in self.steps if step.name}

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


def reduces_last(wiring: Wiring, step: Step) -> bool:
    """Whether a reduction is over the last axis, and keeps it."""
    keywords = getattr(step.call, "keywords", {})
    axes = keywords.get("axes")
    if axes is None and len(step.inputs) > 1:
        axes = (wiring.number(step.inputs[1]),)
    return tuple(axes or ()) == (-1,) and keywords.get("keepdims", 1) == 1


def chain(
    wiring: Wiring,
    members: Sequence[Step],
    inputs: Sequence[int],
    call: Callable[..., object],
    *,
    what: str,
    macs: Callable[..., int] | None = None,
    inner: Mapping[Place, str] | None = None,
) -> Fusion | None:
    """The fusion, unless an inner value is read outside."""
    last = max(members, key=lambda step: step.index)
    indices = frozenset(step.index for step in members)
    between = {slot for step in members if step is not last for slot in step.outputs}
    for slot in between - {ABSENT}:
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
        inner=inner or {},
        operands={
            places[slot][0]: position
            for position, slot in enumerate(inputs)
            if slot != ABSENT and len(places[slot]) == 1
        },
    )  # fmt: skip
