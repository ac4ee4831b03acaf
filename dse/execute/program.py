"""A graph that can be executed, with quantizers at its sites."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from dse.errors import GraphError
from dse.execute.block import Block, last_uses
from dse.execute.compiler import Compiler, problems
from dse.execute.feeds import checked
from dse.execute.fuse import Fusion, fusions
from dse.execute.hooks import Hook, Hooks, placed
from dse.execute.operators.operator import Value
from dse.execute.run import Record, run_steps
from dse.execute.step import ABSENT, Quantize, Step
from dse.execute.trace import Execution, Recorder, Trace
from dse.execute.weights import WeightCache
from dse.graph.graph import Graph

WEIGHT_CACHE_BYTES = 2 * 2**30
"""Quantised weights kept by default: all formats of a model with 100 M parameters or so."""

TRACE_BYTES = 2**30
"""Values kept by a trace by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which steps run, with which hooks, starting from which values."""

    steps: tuple[Step, ...]
    frees: tuple[tuple[int, ...], ...]
    hooks: Mapping[int, Hook]
    given: Mapping[int, Value]
    """Values that are known before the first step."""
    computed: frozenset[int]
    """Slots that the steps write."""


class Program:
    """A compiled graph. Runs do not change it, apart from the cache of quantised weights."""

    def __init__(
        self,
        graph: Graph,
        *,
        device: str | torch.device = "cpu",
        weight_cache_bytes: int = WEIGHT_CACHE_BYTES,
    ) -> None:
        """Compiles a graph: constants are folded and moved to the device.

        Raises:
            GraphError: operators that are not supported (all of them, with their nodes), or
                constants without data.
        """
        _check(graph)
        self.graph = graph
        self.device = torch.device(device)
        self._block = Compiler(graph, device=self.device).block()
        self._fusions = fusions(self._block.steps, self._block.host_constants, self._block.outputs)
        self._weights = WeightCache(weight_cache_bytes)
        self._by_name = {
            step.name: step for step in (*self._block.folded, *self._block.steps) if step.name
        }

    def __reduce__(self) -> tuple[Callable[[Graph], Program], tuple[Graph]]:
        """The graph and where it runs: another process compiles it again."""
        return partial(Program, device=str(self.device)), (self.graph,)

    def run(
        self, feeds: Mapping[str, Value], quantizers: Mapping[str, Quantize] | None = None
    ) -> Execution:
        """The outputs for the feeds; autograd works as the caller has set it.

        Args:
            feeds: A tensor by input name (a list of tensors for a sequence).
            quantizers: By site key. At `<node>/in<i>` one stands for that operand only, at
                `<node>/out<i>` for every reader of the value. Callables that are equal share their
                results; on weights these are kept between runs.

        Raises:
            DataError: the feeds do not fit the inputs.
            AssignmentError: a key names no operand.
            GraphError: a node cannot be executed on the values that it gets.
        """
        hooks = placed(quantizers or {}, self._by_name)
        return self._execute(self._plan(hooks), checked(self.graph, feeds, self.device))

    def trace(
        self,
        feeds: Mapping[str, Value],
        quantizers: Mapping[str, Quantize] | None = None,
        *,
        keep_bytes: int = TRACE_BYTES,
    ) -> Trace:
        """A run without gradients whose values, up to a budget, serve later `rerun`s."""
        quantizers = dict(quantizers or {})
        hooks = placed(quantizers, self._by_name)
        inputs = checked(self.graph, feeds, self.device)
        recorder = Recorder(keep_bytes)
        with torch.inference_mode():
            execution = self._execute(self._plan(hooks), inputs, record=recorder)
        return _trace(inputs, quantizers, execution, recorder)

    def rerun(self, trace: Trace, quantizers: Mapping[str, Quantize]) -> Execution:
        """What `run` would return for the trace's feeds, from the nodes that can differ.

        Only what lies downstream of a site whose quantizer is not the trace's is executed, and
        what the trace has dropped of its inputs; bit-identical to a full run.

        Raises:
            AssignmentError: a key names no operand.
        """
        plan = self._difference(trace, quantizers)
        with torch.inference_mode():
            return self._execute(plan, trace.feeds)

    def retrace(
        self,
        trace: Trace,
        quantizers: Mapping[str, Quantize],
        *,
        keep_bytes: int = TRACE_BYTES,
    ) -> Trace:
        """`rerun` that returns a trace of the new assignment; unchanged values are shared."""
        plan = self._difference(trace, quantizers)
        recorder = Recorder(keep_bytes)
        stale = self._dirty(trace, quantizers)
        for slot, value in trace.values.items():
            if slot not in stale:
                recorder.add(slot, value, trace.costs[slot])
        with torch.inference_mode():
            execution = self._execute(plan, trace.feeds, record=recorder)
        return _trace(trace.feeds, dict(quantizers), execution, recorder)

    def constant(self, value: str) -> Tensor | None:
        """The tensor of a value that depends on constants only; None for activations."""
        slot = self._block.slots.get(value)
        found = None if slot is None else self._block.constants.get(slot)
        return found if isinstance(found, Tensor) else None

    def _execute(
        self, plan: Plan, feeds: Mapping[str, Value], *, record: Record | None = None
    ) -> Execution:
        block = self._block
        values = block.base.copy()
        for slot, name in zip(block.inputs, self.graph.inputs, strict=True):
            values[slot] = feeds[name]
        for slot, value in plan.given.items():
            values[slot] = value
        hooks = None
        if plan.hooks:
            hooks = Hooks(
                plan.hooks,
                steps=plan.steps,
                constant=lambda slot: slot in block.constants and slot not in plan.computed,
                weights=self._weights,
            )
        macs = run_steps(plan.steps, plan.frees, values, hooks=hooks, record=record)
        outputs = {
            name: values[slot]
            for name, slot in zip(self.graph.outputs, block.outputs, strict=True)
        }
        return Execution(outputs=outputs, macs=macs)  # type: ignore[arg-type]

    def _plan(self, hooks: Mapping[int, Hook]) -> Plan:
        if not hooks:
            return self._plain
        steps, hooks = fused(self._active(hooks), hooks, self._fusions)
        return Plan(
            steps=steps,
            frees=last_uses(steps, self._kept),
            hooks=hooks,
            given={},
            computed=_written(steps),
        )

    @cached_property
    def _plain(self) -> Plan:
        """The plan without quantizers."""
        steps, _ = fused(self._block.steps, {}, self._fusions)
        return Plan(
            steps=steps,
            frees=last_uses(steps, self._kept),
            hooks={},
            given={},
            computed=_written(steps),
        )

    @property
    def _kept(self) -> set[int]:
        return {*self._block.constants, *self._block.outputs, ABSENT}

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

    def _dirty(self, trace: Trace, quantizers: Mapping[str, Quantize]) -> set[int]:
        """Slots whose values can differ from the trace's."""
        changed = self._changed(trace, quantizers)
        dirty: set[int] = set()
        for step in self._active(placed({**trace.quantizers, **quantizers}, self._by_name)):
            if step.index in changed or not dirty.isdisjoint(step.inputs):
                dirty.update(step.outputs)
        return dirty - {ABSENT}

    def _changed(self, trace: Trace, quantizers: Mapping[str, Quantize]) -> Mapping[int, Hook]:
        keys = {*trace.quantizers, *quantizers}
        different = {
            key: quantizers.get(key, trace.quantizers.get(key))
            for key in keys
            if quantizers.get(key) != trace.quantizers.get(key)
        }
        return placed(different, self._by_name)  # type: ignore[arg-type]

    def _difference(self, trace: Trace, quantizers: Mapping[str, Quantize]) -> Plan:
        """The steps that lead from the trace's values to the outputs of an assignment."""
        block = self._block
        dirty = self._dirty(trace, quantizers)
        universe = self._active(placed({**trace.quantizers, **quantizers}, self._by_name))
        computed = _written(universe)
        universe, hooks = fused(universe, placed(quantizers, self._by_name), self._fusions)
        wanted = set(block.outputs)
        given: dict[int, Value] = {}
        steps: list[Step] = []
        for step in reversed(universe):
            needed = wanted.intersection(step.outputs) - {ABSENT}
            if not needed:
                continue
            if needed.isdisjoint(dirty) and all(slot in trace.values for slot in needed):
                given.update((slot, trace.values[slot]) for slot in needed)
            else:
                steps.append(step)
                wanted.update(step.inputs)
        ordered = tuple(reversed(steps))
        return Plan(
            steps=ordered,
            frees=last_uses(ordered, self._kept),
            hooks=hooks,
            given=given,
            computed=computed,
        )


def fused(
    steps: tuple[Step, ...], hooks: Mapping[int, Hook], fusions: Sequence[Fusion]
) -> tuple[tuple[Step, ...], Mapping[int, Hook]]:
    """The steps with every chain replaced in which no quantizer stands, and the hooks moved along.

    What stands at the operands and at the output of a chain stays there.
    """
    moved = dict(hooks)
    replaced: dict[int, Step | None] = {}
    for fusion in fusions:
        inside = [index for index in fusion.members if index in hooks]
        hook = Hook()
        for index in inside:
            inputs, outputs = hooks[index].inputs, hooks[index].outputs
            if any((index, position) not in fusion.operands for position, _ in inputs):
                break
            if outputs and index != fusion.index:
                break
            pairs = tuple((fusion.operands[index, place], q) for place, q in inputs)
            hook = Hook(inputs=(*hook.inputs, *pairs), outputs=hook.outputs or outputs)
        else:
            replaced.update(dict.fromkeys(fusion.members))
            replaced[fusion.index] = fusion.step
            for index in inside:
                del moved[index]
            if inside:
                moved[fusion.index] = hook
    kept = (replaced.get(step.index, step) for step in steps)
    return tuple(step for step in kept if step is not None), moved


def _written(steps: tuple[Step, ...]) -> frozenset[int]:
    return frozenset(slot for step in steps for slot in step.outputs)


def _copy_to(block: Block) -> Callable[[Tensor], Tensor]:
    return lambda value: value.to(block.device)


def _trace(
    feeds: Mapping[str, Value],
    quantizers: Mapping[str, Quantize],
    execution: Execution,
    recorder: Recorder,
) -> Trace:
    return Trace(
        feeds=feeds,
        quantizers=quantizers,
        execution=execution,
        values=recorder.values,
        costs=recorder.costs,
    )


def _check(graph: Graph) -> None:
    where = f"{graph.path}: " if graph.path else ""
    found: dict[str, list[str]] = {}
    for what, node in problems(graph):
        found.setdefault(what, []).append(node)
    if found:
        lines = [f"{what}: {', '.join(names)}" for what, names in sorted(found.items())]
        message = f"{where}{len(found)} unsupported operators (docs/onnx.md lists the supported)"
        raise GraphError("\n  ".join([message, *lines]))
    missing = [name for name, constant in graph.initializers.items() if not constant.has_data]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        message = f"{where}{len(missing)} of {len(graph.initializers)} constants have no data"
        raise GraphError(f"{message} ({shown}); costs can be predicted, values need the weights")
