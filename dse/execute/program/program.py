"""A graph that can be executed, with quantizers at its sites."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from dse.errors import GraphError
from dse.execute.operators.operator import Value
from dse.execute.operators.step import Quantize
from dse.execute.program.backward import Backward, Watch
from dse.execute.program.compiler import Compiler, problems
from dse.execute.program.feeds import checked
from dse.execute.program.hooks import Hooks
from dse.execute.program.in_step import Passing, in_step, stops
from dse.execute.program.inner import entered
from dse.execute.program.passage import Kept
from dse.execute.program.plan import Plan, Planner
from dse.execute.program.run import Record
from dse.execute.program.trace import Execution, Recorder, Trace
from dse.execute.program.weight_store import WeightCache
from dse.graph.ir.graph import Graph
from dse.graph.ir.operators import INTEGER_FORM, WRITE_PAIRS
from dse.graph.patterns.analysis import Analysis
from dse.numerics.precision import exact_float32

WEIGHT_CACHE_BYTES = 2 * 2**30
"""Quantised weights kept by default: all formats of a model with 100 M parameters or so."""

TRACE_BYTES = 2**30
"""Values kept by a trace by default."""


class Program:
    """A compiled graph. Runs do not change it, apart from the cache of quantised weights."""

    def __init__(
        self,
        graph: Graph,
        *,
        analysis: Analysis | None = None,
        device: str | torch.device = "cpu",
        weight_cache_bytes: int = WEIGHT_CACHE_BYTES,
        streams: bool = False,
    ) -> None:
        """Compiles a graph: constants are folded and moved to the device.

        `analysis` is that of the graph, where there is one already. With `streams`, large weights
        stay on the host (mapped, where they are in a file of their own), and are copied to the
        device when they are read.

        Raises:
            GraphError: operators that are not supported (all of them, with their nodes), or
                constants without data.
        """
        _check(graph)
        self.graph = graph
        self.analysis = analysis or Analysis(graph)
        self.device = torch.device(device)
        self.streams = streams
        self._block = Compiler(graph, device=self.device, streams=streams).block()
        self._planner = Planner(self._block, self.analysis)
        self._weights = WeightCache(weight_cache_bytes, self.device if streams else None)

    def __reduce__(self) -> tuple[Callable[[Graph], Program], tuple[Graph]]:
        """The graph and where it runs: another process compiles it again."""
        return partial(Program, device=str(self.device), streams=self.streams), (self.graph,)

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
        plan = self._planner.whole(quantizers or {})
        return self._execute(plan, checked(self.graph, feeds, self.device))

    def watched(
        self, feeds: Mapping[str, Value], watches: Mapping[str, Watch], *, part_bytes: int
    ) -> tuple[Mapping[str, Value], Backward]:
        """The outputs of a run in full precision, and the way back from them.

        Args:
            feeds: As in `run`.
            watches: By site key, each another one.
            part_bytes: Of results and gradients of weights that are held at once; beyond it a part
                of the run is done again on the way back.

        Raises:
            DataError: the feeds do not fit the inputs.
            AssignmentError: a key names no operand.
        """
        plan = _unwritten(self._planner.whole(watches))
        inputs = checked(self.graph, feeds, self.device)
        names = zip(self.graph.inputs, self._block.inputs, strict=True)
        with torch.enable_grad():
            back = Backward(
                plan, watches.values(), self._block.base,
                {slot: inputs[name] for name, slot in names}, hooks=lambda: self._hooks(plan),
                part_bytes=part_bytes, device=self.device,
            )  # fmt: skip
        return self._outputs(back.values), back

    def trace(
        self,
        feeds: Mapping[str, Value],
        quantizers: Mapping[str, Quantize] | None = None,
        *,
        keep_bytes: int = TRACE_BYTES,
    ) -> Trace:
        """A run without gradients whose values, up to a budget, serve later `rerun`s."""
        quantizers = dict(quantizers or {})
        plan = self._planner.whole(quantizers)
        inputs = checked(self.graph, feeds, self.device)
        recorder = Recorder(keep_bytes)
        with torch.inference_mode():
            execution = self._execute(_unwritten(plan), inputs, record=recorder)
        return _trace(inputs, quantizers, execution, recorder)

    def trace_each(
        self, feeds: Sequence[Mapping[str, Value]], *, keep_bytes: int, ends: bool = False
    ) -> Iterator[tuple[int, Trace]]:
        """Traces in full precision, in step: each large constant is read once for all feeds.

        Args:
            feeds: of every run.
            keep_bytes: of one trace.
            ends: in place of the outputs a trace keeps what alone leads to them, which is smaller
                and from which they are soon made again.

        Yields:
            The place of the feeds and their trace, as soon as it is there.
        """
        plan = _unwritten(self._planner.whole({}))
        pinned = self._planner.last_passage if ends else None
        without = frozenset() if pinned is None else frozenset(self._block.outputs)
        recorders = [Recorder(keep_bytes, pinned=pinned, without=without) for _ in feeds]
        inputs = [checked(self.graph, one, self.device) for one in feeds]
        runs = [
            self._passing(plan, one, record=recorder)
            for one, recorder in zip(inputs, recorders, strict=True)
        ]
        for number, execution in self._in_step([plan] * len(runs), runs):
            yield number, _trace(inputs[number], {}, execution, recorders[number])

    def rerun(
        self, trace: Trace, quantizers: Mapping[str, Quantize], *, kept: Kept | None = None
    ) -> Execution:
        """The result of `run` for the trace's feeds, from the nodes that can differ.

        Only what lies downstream of a site whose quantizer is not the trace's is executed, and
        what the trace has dropped of its inputs; bit-identical to a full run.

        Args:
            trace: where to start.
            quantizers: by site key.
            kept: what earlier reruns of this trace's feeds have left, to start from where that is
                further on; takes what this one leaves.

        Raises:
            AssignmentError: a key names no operand.
        """
        plan = self._planner.difference(trace, quantizers, kept)
        record = None if kept is None else _taking(plan, kept)
        with torch.inference_mode():
            return self._execute(plan, trace.feeds, record=record)

    def rerun_each(
        self, traces: Sequence[Trace], quantizers: Mapping[str, Quantize], kept: Sequence[Kept]
    ) -> Iterator[tuple[int, Execution]]:
        """`rerun` of several traces in step: a weight is quantised once for all of them.

        Args:
            traces: where to start.
            quantizers: by site key.
            kept: of each trace, as in `rerun`.

        Yields:
            The place of a trace and its result, as soon as it is there: outputs may be large.

        Raises:
            AssignmentError: a key names no operand.
        """
        plans = [
            self._planner.difference(trace, quantizers, own)
            for trace, own in zip(traces, kept, strict=True)
        ]
        runs = [
            self._passing(plan, trace.feeds, record=_taking(plan, own))
            for plan, trace, own in zip(plans, traces, kept, strict=True)
        ]
        yield from self._in_step(plans, runs)

    def retrace(
        self,
        trace: Trace,
        quantizers: Mapping[str, Quantize],
        *,
        keep_bytes: int = TRACE_BYTES,
    ) -> Trace:
        """`rerun` that returns a trace of the new assignment; unchanged values are shared."""
        plan = self._planner.difference(trace, quantizers)
        recorder = Recorder(keep_bytes)
        stale = self._planner.stale(trace, quantizers)
        for slot, value in trace.values.items():
            if slot not in stale:
                recorder.add(slot, value, trace.costs[slot])
        with torch.inference_mode():
            execution = self._execute(_unwritten(plan), trace.feeds, record=recorder)
        return _trace(trace.feeds, dict(quantizers), execution, recorder)

    def constant(self, value: str) -> Tensor | None:
        """The tensor of a value that depends on constants only; None for activations."""
        found = self._block.constant(value)
        return found if isinstance(found, Tensor) else None

    def _execute(
        self, plan: Plan, feeds: Mapping[str, Value], *, record: Record | None = None
    ) -> Execution:
        run = self._passing(plan, feeds, record=record)
        with exact_float32(self.device):
            run.go()
        return self._ended(run)

    def _passing(
        self, plan: Plan, feeds: Mapping[str, Value], *, record: Record | None
    ) -> Passing:
        """A run before its first step."""
        block = self._block
        values = block.base.copy()
        for slot, name in zip(block.inputs, self.graph.inputs, strict=True):
            values[slot] = feeds[name]
        for slot, value in plan.given.items():
            values[slot] = value
        hooks = self._hooks(plan)
        return Passing(
            steps=plan.steps, frees=plan.frees, values=values, hooks=hooks, record=record
        )

    def _hooks(self, plan: Plan) -> Hooks | None:
        """The quantizers of a run that begins."""
        if not plan.hooks:
            return None
        constants = self._block.constants
        return Hooks(
            plan.hooks,
            readings=plan.readings,
            constant=lambda slot: slot in constants and slot not in plan.computed,
            weights=self._weights,
            enter=lambda step, sites: entered(step, sites, self._weights),
            own=plan.own,
        )

    def _in_step(
        self, plans: Sequence[Plan], runs: list[Passing]
    ) -> Iterator[tuple[int, Execution]]:
        for plan, run in zip(plans, runs, strict=True):
            run.stops = stops(plan.steps, self._block, plan.computed)
        ended = in_step(runs)
        while True:
            with torch.inference_mode(), exact_float32(self.device):
                number = next(ended, None)
            if number is None:
                return
            yield number, self._ended(runs[number])

    def _ended(self, run: Passing) -> Execution:
        """The outputs of a run, which forgets its values."""
        values, run.values = run.values, []
        return Execution(outputs=self._outputs(values), macs=run.macs)  # type: ignore[arg-type]

    def _outputs(self, values: Sequence[Value]) -> dict[str, Value]:
        names = zip(self.graph.outputs, self._block.outputs, strict=True)
        return {name: values[slot] for name, slot in names}


def _taking(plan: Plan, kept: Kept) -> Record:
    """Leaves what a run makes at narrow passages to later ones."""
    return lambda step, _, outputs, __: kept.take(step, outputs, plan.origins)


def _unwritten(plan: Plan) -> Plan:
    """The plan without results that take the memory of a value: all are kept as they were."""
    return replace(plan, own=frozenset())


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
        made_bytes=recorder.made_bytes,
    )


def _check(graph: Graph) -> None:
    where = f"{graph.path}: " if graph.path else ""
    found: dict[str, list[str]] = {}
    for what, node in problems(graph):
        found.setdefault(what, []).append(node)
    if found:
        lines = [f"{what}: {', '.join(names)}" for what, names in sorted(found.items())]
        message = f"{where}{len(found)} unsupported operators (docs/onnx.md lists the supported)"
        integers = any(name.rpartition(".")[2].startswith(INTEGER_FORM) for name in found)
        raise GraphError("\n  ".join([message, *lines, *([WRITE_PAIRS] if integers else [])]))
    missing = [name for name, constant in graph.initializers.items() if not constant.has_data]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        message = f"{where}{len(missing)} of {len(graph.initializers)} constants have no data"
        raise GraphError(f"{message} ({shown}); costs can be predicted, values need the weights")
