"""Gradients at watched sites, a part of the run at a time, from the last part to the first.

A backward pass needs what the forward pass has made, and leaves a gradient of every weight. A run
that outgrows a budget lets go of all that it has made so far but the values that lead on, and runs
that part again when the backward pass comes to it. Gradients are the same.

Source: Chen et al., arXiv 1604.06174, section 3 (segments that are computed again).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from dse.execute.operators.operator import Value
from dse.execute.operators.step import ABSENT
from dse.execute.program.hooks import Hooks
from dse.execute.program.plan import Plan
from dse.execute.program.run import run_steps
from dse.numerics.precision import exact_float32


class Watch(Protocol):
    """Stands at a site like a quantizer, and sees what passes and its gradient."""

    def __call__(self, x: Tensor) -> Tensor:
        """The same values, as something that a gradient reaches."""

    @property
    def holds(self) -> bool:
        """Whether something has passed that it has not let go of."""

    def forget(self) -> None:
        """Lets go of all that has passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Some steps, and the values that they start from."""

    begin: int
    end: int
    entry: Mapping[int, Tensor]
    """By slot, constants apart."""


class Backward:
    """A forward pass that was watched, and its backward pass.

    Args:
        plan: The steps, with watches.
        watches: All of them.
        values: By slot: constants.
        feeds: By slot of an input.
        hooks: Makes those of one part.
        part_bytes: Of results and gradients of weights that are held for one part.
        device: Where it runs.
    """

    def __init__(
        self,
        plan: Plan,
        watches: Collection[Watch],
        values: Sequence[Value],
        feeds: Mapping[int, Value],
        *,
        hooks: Callable[[], Hooks | None],
        part_bytes: int,
        device: torch.device,
    ) -> None:
        self._plan, self._watches = plan, watches
        self._constants, self._feeds = values, feeds
        self._hooks, self._part_bytes, self._device = hooks, part_bytes, device
        self._parts: list[_Part] = []
        self.macs = 0
        """Of the forward pass; parts that run again add theirs."""
        with exact_float32(device):
            self.values = self._forward()
        """By slot, at the end."""

    def parts(self, scalar: Tensor) -> Iterator[tuple[Watch, ...]]:
        """The backward pass, once: what has passed each part's watches then has its gradients.

        Whoever takes them tells them to forget. With the last come those that nothing passes.

        Args:
            scalar: Made of values at the end.
        """
        self.values = []
        last = self._parts.pop()
        if scalar.requires_grad:
            with exact_float32(self._device):
                scalar.backward()  # type: ignore[no-untyped-call]
        gradients, ahead = _gradients(last.entry), list(self._watches)
        while self._parts:
            passed = tuple(watch for watch in ahead if watch.holds)
            ahead = [watch for watch in ahead if not watch.holds]
            yield passed
            gradients = self._again(self._parts.pop(), gradients)
        yield tuple(ahead)

    def _forward(self) -> list[Value]:
        """The run; beyond the budget parts end where few bytes lead on."""
        values, hooks = self._begun({})
        sizes = {slot: _bytes(value) for slot, value in self._feeds.items()}
        begin, entry = 0, dict[int, Tensor]()
        made, narrowest, last = 0, float("inf"), len(self._plan.steps) - 1
        for position, step in enumerate(self._plan.steps):
            made += self._gradient_bytes(position)
            self._run(position, position + 1, values, hooks)
            sizes |= {slot: _bytes(values[slot]) for slot in step.outputs if slot != ABSENT}
            made += sum(sizes[slot] for slot in step.outputs if slot != ABSENT)
            for slot in self._plan.frees[position]:
                sizes.pop(slot, None)
            ahead = sum(sizes.values())
            full = made >= (self._part_bytes / 2 if ahead <= narrowest else self._part_bytes)
            narrowest = min(narrowest, ahead)
            leaves = _leaves(values, sizes) if full and position < last else None
            if leaves is None:
                continue
            self._parts.append(_Part(begin=begin, end=position + 1, entry=entry))
            for watch in self._watches:
                watch.forget()
            begin, entry = position + 1, leaves
            values, hooks = self._begun(entry)
            made, narrowest = 0, float("inf")
        self._parts.append(_Part(begin=begin, end=len(self._plan.steps), entry=entry))
        return values

    def _again(self, part: _Part, gradients: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Runs a part again, and back from the gradients at its end to those at its entry."""
        entry = {slot: _leaf(value) for slot, value in part.entry.items()}
        values, hooks = self._begun(entry)
        with torch.enable_grad(), exact_float32(self._device):
            self._run(part.begin, part.end, values, hooks)
            ends = [(values[slot], gradient) for slot, gradient in gradients.items()]
            reached = [(x, g) for x, g in ends if isinstance(x, Tensor) and x.requires_grad]
            torch.autograd.backward([x for x, _ in reached], [g for _, g in reached])
        return _gradients(entry)

    def _begun(self, entry: Mapping[int, Tensor]) -> tuple[list[Value], Hooks | None]:
        values = list(self._constants)
        for slot, value in {**self._feeds, **entry}.items():
            values[slot] = value
        return values, self._hooks()

    def _run(self, begin: int, end: int, values: list[Value], hooks: Hooks | None) -> None:
        plan = self._plan
        self.macs += run_steps(plan.steps[begin:end], plan.frees[begin:end], values, hooks=hooks)

    def _gradient_bytes(self, position: int) -> int:
        """Of the gradients of constants that are watched at a step."""
        step = self._plan.steps[position]
        hook = self._plan.hooks.get(step.index)
        slots = [] if hook is None else [step.inputs[place] for place, _ in hook.inputs]
        return sum(
            _bytes(self._constants[slot]) for slot in slots if slot not in self._plan.computed
        )


def _leaves(values: Sequence[Value], alive: Collection[int]) -> dict[int, Tensor] | None:
    """The values that lead on, without what made them; None where one is a sequence."""
    found = {slot: values[slot] for slot in alive if values[slot] is not None}
    if not all(isinstance(value, Tensor) for value in found.values()):
        return None
    return {slot: _leaf(cast("Tensor", value)) for slot, value in found.items()}


def _leaf(value: Tensor) -> Tensor:
    return value.detach().requires_grad_(value.requires_grad)


def _gradients(leaves: Mapping[int, Tensor]) -> dict[int, Tensor]:
    return {slot: leaf.grad for slot, leaf in leaves.items() if leaf.grad is not None}


def _bytes(value: Value) -> int:
    return value.nbytes if isinstance(value, Tensor) else 0
