"""The steps of a run, with their quantizers and first values."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Lock

from torch import Tensor

from dse.execute.operators.operator import Value
from dse.execute.operators.step import ABSENT, Quantize, Step, overwrites
from dse.execute.program.block import Block, last_uses
from dse.execute.program.fusion import fused, fusions
from dse.execute.program.hooks import Hook, Readings, placed
from dse.execute.program.passage import Kept, Origin, Origins, passages
from dse.execute.program.trace import Trace
from dse.graph.patterns.analysis import Analysis

RECENT = 4
"""Plans that are kept: an assignment meets batch after batch."""

_Pair = tuple[Mapping[str, Quantize], Mapping[str, Quantize]]
"""The quantizers of a trace, and those of a run that starts from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps of a run, with their hooks and first values."""

    steps: tuple[Step, ...]
    frees: tuple[tuple[int, ...], ...]
    hooks: Mapping[int, Hook]
    readings: Readings
    given: Mapping[int, Value]
    """Values that are known before the first step."""
    computed: frozenset[int]
    """Slots that the steps write."""
    own: frozenset[int]
    """Slots that are read through equal quantizers only, so that results may take their memory."""
    origins: Mapping[int, Origin] = field(default_factory=dict)
    """Of slots whose values serve later runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """The change that an assignment makes of a trace, whatever the trace's feeds and values."""

    steps: tuple[Step, ...]
    """All of a run, fused where they can be."""
    hooks: Mapping[int, Hook]
    computed: frozenset[int]
    stale: frozenset[int]
    """Slots whose values can differ from the trace's."""
    origins: Mapping[int, Origin]
    """Of the passages among them."""


class Planner:
    """Plans for one block, whatever the assignment."""

    def __init__(self, block: Block, analysis: Analysis | None) -> None:
        """Takes from the graph's findings the chains that run as one step; none in a body."""
        self._block = block
        self.fusions = fusions(block, analysis) if analysis else ()
        self._by_name = block.nodes
        self._recent: deque[tuple[Mapping[str, Quantize], Plan]] = deque(maxlen=RECENT)
        self._changes: deque[tuple[_Pair, _Change]] = deque(maxlen=RECENT)
        self._origins = Origins()
        self._lock = Lock()

    def whole(self, quantizers: Mapping[str, Quantize]) -> Plan:
        """The steps from the inputs to the outputs.

        Raises:
            AssignmentError: a key names no operand.
        """
        if not quantizers:
            return self._plain
        for known, plan in self._recent:
            if known == quantizers:
                return plan
        given = placed(quantizers, self._by_name)
        steps, hooks = fused(self._active(given), given, self.fusions)
        plan = self._plan(steps, hooks, given={}, computed=_written(steps))
        self._recent.appendleft((dict(quantizers), plan))
        return plan

    def difference(
        self, trace: Trace, quantizers: Mapping[str, Quantize], kept: Kept | None = None
    ) -> Plan:
        """The steps that lead from the trace's values to the outputs of an assignment.

        Where `kept` has the value of a passage, they start there.

        Raises:
            AssignmentError: a key names no operand.
        """
        change = self._change(trace.quantizers, quantizers)
        wanted = set(self._block.outputs)
        given: dict[int, Value] = {}
        steps: list[Step] = []

        for step in reversed(change.steps):
            needed = wanted.intersection(step.outputs) - {ABSENT}
            found = _known(needed, trace, change, kept)
            if len(found) == len(needed):
                given |= found
            else:
                steps.append(step)
                wanted.update(step.inputs)
        plan = self._plan(
            tuple(reversed(steps)), change.hooks, given=given, computed=change.computed
        )
        if kept is None:
            return plan
        return replace(plan, own=plan.own - change.origins.keys(), origins=change.origins)

    def stale(self, trace: Trace, quantizers: Mapping[str, Quantize]) -> frozenset[int]:
        """Slots whose values can differ from the trace's."""
        return self._change(trace.quantizers, quantizers).stale

    def _change(
        self, before: Mapping[str, Quantize], quantizers: Mapping[str, Quantize]
    ) -> _Change:
        """The change from one assignment to another; an assignment meets batch after batch."""
        pair = (before, quantizers)
        with self._lock:
            for known, change in self._changes:
                if known == pair:
                    return change
            change = self._made(before, quantizers)
            self._changes.appendleft(((dict(before), dict(quantizers)), change))
            return change

    def _made(self, before: Mapping[str, Quantize], quantizers: Mapping[str, Quantize]) -> _Change:
        hooks = placed(quantizers, self._by_name)
        whole = self._active(placed({**before, **quantizers}, self._by_name))
        stale = self._stale(whole, before, quantizers)
        steps, moved = fused(whole, hooks, self.fusions)
        ways = passages(steps, stale - self._block.constants.keys(), self._block.outputs)
        return _Change(
            steps=steps,
            hooks=moved,
            computed=_written(whole),
            stale=stale,
            origins=self._origins.of(ways, whole, hooks),
        )

    def _stale(
        self,
        steps: Sequence[Step],
        before: Mapping[str, Quantize],
        quantizers: Mapping[str, Quantize],
    ) -> frozenset[int]:
        changed = self._changed(before, quantizers)
        found: set[int] = set()
        for step in steps:
            if step.index in changed or not found.isdisjoint(step.inputs):
                found.update(step.outputs)
        return frozenset(found - {ABSENT})

    @cached_property
    def last_passage(self) -> int | None:
        """The slot that alone leads to the outputs in full precision; None where several do."""
        plan = self._plain
        found = passages(plan.steps, plan.computed, self._block.outputs)
        return found[-1] if found else None

    @cached_property
    def _plain(self) -> Plan:
        """The plan without quantizers."""
        steps, _ = fused(self._block.steps, {}, self.fusions)
        return self._plan(steps, {}, given={}, computed=_written(steps))

    def _plan(
        self,
        steps: tuple[Step, ...],
        hooks: Mapping[int, Hook],
        *,
        given: Mapping[int, Value],
        computed: frozenset[int],
    ) -> Plan:
        kept = {*self._block.constants, *self._block.outputs, ABSENT}
        return Plan(
            steps=steps,
            frees=last_uses(steps, kept),
            hooks=hooks,
            readings=Readings.of(steps, hooks),
            given=given,
            computed=computed,
            own=_own(steps, hooks) - kept,
        )

    def _active(self, hooks: Mapping[int, Hook]) -> tuple[Step, ...]:
        """The steps of a run: folded ones too where a quantizer changes what they compute."""
        block = self._block
        changed: set[int] = set()
        again: list[Step] = []
        for step in block.folded:
            if step.index in hooks or not changed.isdisjoint(step.inputs):
                again.append(step)
                changed.update(step.outputs)
        if not again:
            return block.steps
        copies = [
            Step(
                index=-slot, name="", what="copy", call=_copy_to(block),
                inputs=(slot,), outputs=(block.copies[slot],),
            )
            for slot in sorted(changed & block.copies.keys())
        ]  # fmt: skip
        return (*again, *copies, *block.steps)

    def _changed(
        self, before: Mapping[str, Quantize], quantizers: Mapping[str, Quantize]
    ) -> Mapping[int, Hook]:
        different = {
            key: quantizers.get(key, before.get(key))
            for key in {*before, *quantizers}
            if quantizers.get(key) != before.get(key)
        }
        return placed(different, self._by_name)  # type: ignore[arg-type]


def _known(
    slots: Iterable[int], trace: Trace, change: _Change, kept: Kept | None
) -> dict[int, Value]:
    """The values of slots that need no step: unchanged ones, and passages met before."""
    found: dict[int, Value] = {}
    for slot in slots:
        if slot not in change.stale and slot in trace.values:
            found[slot] = trace.values[slot]
        elif kept is not None and slot in change.origins:
            value = kept.get(change.origins[slot])
            if value is not None:
                found[slot] = value
    return found


def _written(steps: tuple[Step, ...]) -> frozenset[int]:
    return frozenset(slot for step in steps for slot in step.outputs)


def _copy_to(block: Block) -> Callable[[Tensor], Tensor]:
    return lambda value: value.to(block.device)


def _own(steps: tuple[Step, ...], hooks: Mapping[int, Hook]) -> frozenset[int]:
    """Slots that a step alone writes and that are read through equal quantizers only."""
    made = {step.outputs[0] for step in steps if len(step.outputs) == 1 and not step.nested}
    through: dict[int, Quantize | None] = {}
    for step in steps:
        at = dict(hooks[step.index].inputs) if step.index in hooks else {}
        # Scales of a sum are made of what its operands were before they are quantized.
        total = hooks[step.index].total if step.index in hooks else None
        totals = total is not None and any(scale is not None for scale in total.scales)
        for position, slot in enumerate(step.inputs):
            quantize = at.get(position)
            same = through.get(slot, quantize) == quantize and not totals
            through[slot] = quantize if same else None
    return frozenset(
        slot for slot, quantize in through.items() if slot in made and overwrites(quantize)
    )
