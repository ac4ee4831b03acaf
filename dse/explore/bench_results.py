"""Readings of tools as measurements of a run's assignments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dse.bench.folder import REFERENCE, Measured
from dse.bench.reading import (
    Call,
    Divergence,
    Figure,
    Generation,
    Load,
    Reading,
    Score,
)
from dse.errors import RunError, nearest
from dse.explore.problem.records import SCORE, STDERR
from dse.explore.results_csv import Result
from dse.explore.workload import Workload
from dse.queue import GPU_S
from dse.space.problem import Point
from hwmodels.tables.queueing import Traffic

DIGEST = re.compile(r"[0-9a-f]{16}")
NEAR = 0.05
"""Share by which mean lengths and contexts may differ from those that were priced."""
SAME = 1e-9
"""Share by which two results of one measurement may differ."""

Values = Iterator[tuple[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderResults:
    """A folder of results in terms of a run."""

    results: tuple[Result, ...]
    reference: Mapping[str, Score]
    """Scores of the unquantized model by column."""
    scores: Mapping[str, Score]
    """One score of each column: what it is."""
    remarks: tuple[str, ...]
    """Measurements that the run has no column for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One value with the file that says it."""

    value: float
    reading: Reading


def folder_results(
    measured: Sequence[Measured], known: Mapping[str, Point], workload: Workload | None
) -> FolderResults:
    """The readings of models as results of assignments.

    Args:
        measured: by model.
        known: digest -> point of what was measured or proposed.
        workload: of the target that was measured on; None: nothing was timed.

    Raises:
        RunError: a model that the run neither measured nor proposed, a tool that measured another
            model than its folder names, results that contradict; all in one message.
    """
    table = _Table(known=known, workload=workload)
    for one in measured:
        table.add(one)
    if table.problems:
        raise RunError("\n".join(table.problems))
    results = tuple(
        Result(
            digest=name,
            point=known[name],
            values={column: found.value for column, found in values.items()},
        )
        for name, values in table.values.items()
        if values and name != REFERENCE
    )
    return FolderResults(
        results=results,
        reference=table.reference,
        scores=table.scores,
        remarks=tuple(table.remarks),
    )


@dataclass(kw_only=True)
class _Table:
    """Values by model and column, with everything that is wrong."""

    known: Mapping[str, Point]
    workload: Workload | None
    values: dict[str, dict[str, Measurement]] = field(default_factory=dict)
    reference: dict[str, Score] = field(default_factory=dict)
    scores: dict[str, Score] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add(self, measured: Measured) -> None:
        """Take in one model's readings."""
        name = measured.name
        if name != REFERENCE and name not in self.known:
            files = ", ".join(str(reading.file) for reading in measured.readings[:2])
            self.problems.append(
                f"{files or name}: {name!r} belongs to no assignment that this run proposed or "
                f"measured{nearest(name, self.known)}"
            )
            return
        for reading in measured.readings:
            self._check_model(name, reading)
            for figure in reading.figures:
                self._take(name, reading, figure)
        self._take_steps(name, measured.readings)
        if self.workload is not None:
            self._add_up(name, self.workload)

    def _check_model(self, name: str, reading: Reading) -> None:
        """A result of one model in the folder of another is not to be told of the wrong one."""
        others = {*DIGEST.findall(reading.model)} & self.known.keys() - {name}
        if others:
            self.problems.append(
                f"{reading.file}: was measured of {', '.join(sorted(others))}, and lies in the "
                f"folder of {name}"
            )

    def _take(self, name: str, reading: Reading, figure: Figure, *, is_base: bool = False) -> None:
        """Take in a figure; a base of another one that belongs to no phase is no remark."""
        if isinstance(figure, Score) and name == REFERENCE:
            self.reference[f"{SCORE}{figure.name}"] = figure
        if name == REFERENCE or isinstance(figure, Generation):
            return  # generations are told from their differences
        if isinstance(figure, Score):
            self.scores[f"{SCORE}{figure.name}"] = figure
        found = list(_values(figure, self.workload))
        if not found and not is_base:
            self.remarks.append(f"{reading.file}: {_missed(figure, self.workload)}; not told")
        for column, value in found:
            self._put(name, column, Measurement(value=value, reading=reading))

    def _put(self, name: str, column: str, found: Measurement) -> None:
        values = self.values.setdefault(name, {})
        earlier = values.setdefault(column, found)
        if abs(earlier.value - found.value) > SAME * abs(earlier.value):
            self.problems.append(
                f"{name}: {column}: {earlier.reading.file} says {earlier.value:g}, "
                f"{found.reading.file} says {found.value:g}; keep one of them"
            )

    def _take_steps(self, name: str, readings: Sequence[Reading]) -> None:
        """Prefill and decoding from batches with one and with many generated tokens."""
        batches = [
            (figure, reading)
            for reading in readings
            for figure in reading.figures
            if isinstance(figure, Generation) and name != REFERENCE
        ]
        prompts = {
            (one.requests, one.prompt): one.seconds for one, _ in batches if one.generated == 1
        }
        steps = {(one.requests, one.prompt) for one, _ in batches if one.generated > 1}
        for one, reading in batches:
            prompt_s = prompts.get((one.requests, one.prompt))
            if one.generated == 1:
                call = Call(requests=one.requests, tokens=one.prompt, context=one.prompt,
                            seconds=one.seconds)  # fmt: skip
            elif prompt_s is None or one.seconds <= prompt_s:
                least = "" if prompt_s is None else f" that takes less than {one.seconds:g} s"
                self.problems.append(
                    f"{reading.file}: a time per token needs the same batch and prompt with one "
                    f"generated token{least}; measure that too: --output-len 1"
                )
                continue
            else:
                call = Call(requests=one.requests, tokens=1,
                            context=one.prompt + (one.generated + 1) / 2,
                            seconds=(one.seconds - prompt_s) / (one.generated - 1))  # fmt: skip
            is_base = one.generated == 1 and (one.requests, one.prompt) in steps
            self._take(name, reading, call, is_base=is_base)

    def _add_up(self, name: str, workload: Workload) -> None:
        """The latency of all phases, once each was measured."""
        values = self.values.get(name, {})
        parts = {phase: values.get(workload.latency_column(phase)) for phase in workload.shares}
        known = {phase: found for phase, found in parts.items() if found is not None}
        if len(parts) > 1 and len(known) == len(parts):
            total = sum(workload.shares[phase] * found.value for phase, found in known.items())
            reading = next(iter(known.values())).reading
            values[f"{workload.prefix}latency_s"] = Measurement(value=total, reading=reading)


def _values(figure: Figure, workload: Workload | None) -> Values:
    """The columns that a figure belongs to."""
    if isinstance(figure, Divergence):
        prefix = "" if workload is None else workload.loss_prefix
        yield f"{prefix}quality_loss", figure.loss
        yield f"{prefix}quality_stderr", figure.stderr
    elif isinstance(figure, Score):
        yield f"{SCORE}{figure.name}", figure.value
        if figure.stderr is not None:
            yield f"{SCORE}{figure.name}{STDERR}", figure.stderr
    elif workload is None:
        return
    elif isinstance(figure, Call):
        yield from _call_values(figure, workload)
    elif isinstance(figure, Load):
        yield from _load_values(figure, workload)


def _call_values(figure: Call, workload: Workload) -> Values:
    for phase, call in workload.calls.items():
        same = (call.requests, call.tokens) == (figure.requests, figure.tokens)
        # Positions cost little each, so that a decoding step stands for its neighbours.
        if same and abs(call.context - figure.context) <= max(1, NEAR * call.context):
            yield workload.latency_column(phase), figure.seconds


def _load_values(figure: Load, workload: Workload) -> Values:
    demand = workload.demand
    gpus = demand.ways if demand is not None else 1
    if demand is None or not _is_priced(figure, workload) or (figure.gpus or gpus) != gpus:
        return
    queue = workload.target.queue
    if queue is not None and not queue.bounds and _is_offered(figure, queue.traffic):
        yield from ((f"{workload.prefix}{key}", one) for key, one in _queue_values(figure, gpus))
    if figure.rate is not None:
        return  # requests that come by themselves fill no batch
    if figure.requests is None:
        found = {"full_tokens_per_s_per_gpu": _each(figure.tokens_per_s, gpus)}
    elif figure.requests == demand.decode.requests:
        found = {"ttft_s": figure.ttft_s, "tpot_s": figure.tpot_s,
                 "tokens_per_s_per_gpu": _each(figure.tokens_per_s, gpus)}  # fmt: skip
    else:
        return
    for column, value in found.items():
        if value is not None and f"{workload.prefix}{column}" in workload.columns:
            yield f"{workload.prefix}{column}", value


def _is_offered(figure: Load, traffic: Traffic) -> bool:
    """Whether requests came as the scenario's load says."""
    if traffic.rate is None:
        return figure.rate is None and figure.requests == traffic.clients
    held = figure.requests is None
    return held and figure.rate is not None and abs(figure.rate / traffic.rate - 1) <= NEAR


def _queue_values(figure: Load, gpus: int) -> Values:
    """The columns of requests that wait for one another."""
    found = {
        "ttft_mean_s": figure.ttft_s,
        "ttft_p50_s": figure.ttft_p50_s,
        "ttft_p99_s": figure.ttft_p99_s,
        "tpot_mean_s": figure.tpot_s,
        "tpot_p99_s": figure.tpot_p99_s,
        "rate": figure.answered,
        GPU_S: None if figure.answered is None else gpus / figure.answered,
    }
    yield from ((column, value) for column, value in found.items() if value is not None)


def _each(value: float | None, gpus: int) -> float | None:
    return None if value is None else value / gpus


def _is_priced(figure: Load, workload: Workload) -> bool:
    """Whether prompts and answers are as long as those of the scenario."""
    demand = workload.demand
    assert demand is not None, "asked before"
    pairs = ((figure.prompt, demand.prefill.tokens), (figure.generated, demand.generated))
    return all(abs(found - priced) <= NEAR * priced for found, priced in pairs)


def _missed(figure: Figure, workload: Workload | None) -> str:
    """The reason why a figure has no column, with the sizes that would have one."""
    if workload is None:
        return "times belong to a target: which one? give --target"
    if isinstance(figure, Call):
        priced = "; ".join(
            f"{phase} is {call.requests} x {call.tokens} tokens with {call.context} positions"
            for phase, call in workload.calls.items()
        )
        return (
            f"{figure.requests} x {figure.tokens} tokens with {figure.context:g} positions is no "
            f"phase of the run ({priced})"
        )
    assert isinstance(figure, Load), "others have columns"
    demand = workload.demand
    if demand is None:
        return "the run's scenario is no prefill with a decoding phase, so it has no such column"
    requests = "as many requests as fit" if figure.requests is None else figure.requests
    come = f"{requests} at once" if figure.rate is None else f"{figure.rate:g} requests a second"
    return (
        f"{come}, {figure.prompt:g} + {figure.generated:g} tokens on "
        f"{figure.gpus or 'its'} GPUs is not the run's load ({demand.decode.requests} at once, "
        f"{demand.prefill.tokens} + {demand.generated:g} tokens on {demand.ways})"
    )
