"""Narrow passages of a run: values that all that follows depends on, and what made them so.

Two assignments that agree on every site before a passage agree on its value, bit by bit: what one
run has left there, another starts from. In a residual network that is the stream between layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from dse.execute.operators.operator import Value
from dse.execute.operators.step import ABSENT, Step
from dse.execute.program.hooks import Hook
from dse.execute.program.recent import RecentTensors

Origin = tuple[int, tuple[int, ...]]
"""A slot, and the numbers of the hooks that stand before it."""


def passages(
    steps: Sequence[Step], changed: Collection[int], outputs: Collection[int]
) -> tuple[int, ...]:
    """Slots that alone lead on: after one, no other changed value is read or given out.

    Of several without a contraction between them the last: the others cost nothing to make again.
    Outputs are none: they lead nowhere, and are the largest values of a language model.
    """
    left = Counter(slot for step in steps for slot in step.inputs)
    left.update(outputs)
    ahead: set[int] = set()
    found: list[int] = []
    contracted = True
    for step in steps:
        left.subtract(step.inputs)
        ahead.update(slot for slot in step.outputs if slot in changed)
        ahead = {slot for slot in ahead if left[slot] > 0}
        contracted |= step.macs is not None or step.nested
        if len(ahead) != 1 or ahead <= {*found[-1:]}:
            continue
        if not contracted:
            found.pop()
        found += ahead
        contracted = False
    return tuple(slot for slot in found if slot not in outputs)


class Origins:
    """Names of what stands before a slot; hooks that are equal have one number."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, Hook], int] = {}

    def of(
        self, slots: Collection[int], steps: Iterable[Step], hooks: Mapping[int, Hook]
    ) -> dict[int, Origin]:
        """The origins of some slots that steps, none of them fused, write."""
        before: dict[int, frozenset[int]] = {}
        found: dict[int, Origin] = {}
        for step in steps:
            hook = hooks.get(step.index)
            own = () if hook is None else (self._number(step.index, hook),)
            seen = frozenset(own).union(*(before.get(slot, ()) for slot in step.inputs))
            before.update(dict.fromkeys(step.outputs, seen))
            for slot in step.outputs:
                if slot != ABSENT and slot in slots:
                    found[slot] = (slot, tuple(sorted(seen)))
        return found

    def _number(self, index: int, hook: Hook) -> int:
        return self._numbers.setdefault((index, hook), len(self._numbers))


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Values at the passages of earlier runs on the same feeds."""

    tensors: RecentTensors[Origin]

    def get(self, origin: Origin) -> Tensor | None:
        """The value that a run has left."""
        return self.tensors.get(origin)

    def take(self, step: Step, outputs: Sequence[Value], origins: Mapping[int, Origin]) -> None:
        """Keeps the results of a step that are passages."""
        for slot, value in zip(step.outputs, outputs, strict=False):
            if slot in origins and isinstance(value, Tensor):
                self.tensors.keep(origins[slot], value)
