"""Compiled steps with their slots: the model itself, or the body of a control-flow node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from dse.execute.operators.operator import Value
from dse.execute.operators.step import ABSENT, Step
from dse.execute.program.hooks import Hooks
from dse.execute.program.run import run_steps

LARGE_BYTES = 1 << 20
"""Constants from this size on are worth waiting for, and worth copying when they are read."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Steps in order, and the slots that they read and write.

    Slot 0 holds None. Constants are in `constants`, folded results among them; a step whose inputs
    are all constant is in `folded` instead of `steps`.
    """

    steps: tuple[Step, ...]
    folded: tuple[Step, ...]
    slots: Mapping[str, int]
    """Slot by value name."""
    size: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    captures: tuple[str, ...]
    """Values of the surrounding graph that this one reads."""
    constants: Mapping[int, Value]
    copies: Mapping[int, int]
    """On an accelerator: the slot of the copy of a value, by the slot of the original."""
    device: torch.device

    @cached_property
    def nodes(self) -> Mapping[str, Step]:
        """The steps of nodes by name; those in bodies lead to the step that runs their body."""
        found: dict[str, Step] = {}
        for step in (*self.folded, *self.steps):
            if isinstance(step.call, Nested):
                found |= {name: step for b in step.call.bodies.values() for name in b.nodes}
        return found | {step.name: step for step in (*self.folded, *self.steps) if step.name}

    def constant(self, value: str) -> Value:
        """A value that depends on constants only, in a body too; None for others."""
        slot = self.slots.get(value)
        if slot is not None and slot in self.constants:
            return self.constants[slot]
        for step in (*self.folded, *self.steps):
            for body in step.call.bodies.values() if isinstance(step.call, Nested) else ():
                if (found := body.constant(value)) is not None:
                    return found
        return None

    @cached_property
    def base(self) -> list[Value]:
        """The values before the first step: constants, and None for the rest."""
        values: list[Value] = [None] * self.size
        for slot, value in self.constants.items():
            values[slot] = value
        return values

    @property
    def host_constants(self) -> Mapping[int, Value]:
        """The constants with their values on the host, copies on a device included."""
        on_device = {
            copy: self.constants[slot]
            for slot, copy in self.copies.items()
            if slot in self.constants
        }
        return {**self.constants, **on_device}

    @cached_property
    def frees(self) -> tuple[tuple[int, ...], ...]:
        """For each step the slots that no later step reads."""
        return last_uses(self.steps, keep={*self.constants, *self.outputs, ABSENT})


def is_large(value: Value) -> bool:
    """Whether a constant is worth a wait or a copy of its own."""
    return isinstance(value, Tensor) and value.numel() * value.element_size() >= LARGE_BYTES


class Course(Protocol):
    """The steps of a body under quantizers, and the slots that each frees."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """In order."""

    @property
    def frees(self) -> tuple[tuple[int, ...], ...]:
        """For each step the slots that no later step reads."""


class Guests(Protocol):
    """The quantizers in a body."""

    @property
    def plan(self) -> Course:
        """The steps that a pass executes."""

    def hooks(self) -> Hooks:
        """Those of one pass."""


def last_uses(steps: Sequence[Step], keep: set[int]) -> tuple[tuple[int, ...], ...]:
    """For each step the slots, other than those to keep, that no later step reads."""
    seen = set(keep)
    found: list[tuple[int, ...]] = []
    for step in reversed(steps):
        last = {*step.inputs, *step.outputs} - seen
        seen |= last
        found.append(tuple(last))
    return tuple(reversed(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Nested:
    """The call of a control-flow node: its function with its bodies bound to outer values."""

    function: Callable[..., object]
    bodies: Mapping[str, Block]
    """By keyword."""
    own_inputs: int
    captures: tuple[str, ...]
    inside: Mapping[str, Guests] = field(default_factory=dict)
    """Quantizers in the bodies, by keyword."""

    def __call__(self, *inputs: Value) -> tuple[tuple[Value, ...], int]:
        """The node's outputs and the MACs spent in the bodies."""
        outer = dict(zip(self.captures, inputs[self.own_inputs :], strict=True))
        running = {
            name: Running(block=block, outer=outer, guests=self.inside.get(name))
            for name, block in self.bodies.items()
        }
        result = self.function(*inputs[: self.own_inputs], **running)
        outputs: tuple[Value, ...] = result if isinstance(result, tuple) else (result,)
        return outputs, sum(body.macs for body in running.values())


@dataclass(slots=True, kw_only=True)
class Running:
    """A body during one call of its node; it counts its MACs."""

    block: Block
    outer: Mapping[str, Value]
    guests: Guests | None = None
    macs: int = 0

    def __call__(self, *inputs: Value) -> tuple[Value, ...]:
        """The outputs of one pass."""
        block = self.block
        values = block.base.copy()
        for slot, value in zip(block.inputs, inputs, strict=True):
            on_device = isinstance(value, Tensor) and value.device != block.device
            values[slot] = value.to(block.device) if on_device else value  # type: ignore[union-attr]
        for name in block.captures:
            if block.slots[name] not in block.constants:
                values[block.slots[name]] = self.outer[name]
        if self.guests is None:
            self.macs += run_steps(block.steps, block.frees, values)
        else:
            plan = self.guests.plan
            self.macs += run_steps(plan.steps, plan.frees, values, hooks=self.guests.hooks())
        return tuple(values[slot] for slot in block.outputs)
