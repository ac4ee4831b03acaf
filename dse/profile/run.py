"""The profile itself: measures queue after queue until the time is up or nothing is left."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import torch

from dse.numerics.precision import float32_precision
from dse.profile.clock import Clock, Repeats, Timing
from dse.profile.lane import Lane, lanes_of
from dse.profile.operators import work_of
from dse.profile.plan import ONNX_RUNTIME, Operator, queues
from dse.profile.record import Recorder, Row
from dse.profile.session import SessionClock
from hwmodels.errors import MeasurementError

LOG = logging.getLogger(__name__)

ENERGY_EVERY, ENERGY_FIRST = 40, 5
"""Rows of a queue from one that is put to the energy counter to the next, and before the first:
it takes as long as twenty rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The measurements."""

    path: Path
    measured: int
    """Rows that this call added."""
    known: int
    """Operators of the plan that the file had before."""
    waiting: int
    """Operators of the plan that there was no time for."""
    refused: tuple[tuple[str, str], ...]
    """Operator, number type and runtime that torch could not run here, and why."""


Progress = Callable[[Operator, Timing], None]


def profile(
    operators: Iterable[Operator],
    path: Path,
    *,
    device_name: str,
    device: torch.device,
    seconds: float,
    repeats: Repeats | None = None,
    progress: Progress | None = None,
) -> Profile:
    """Measures operators into a table; what the table has is skipped.

    Time goes evenly to the queues (an operator, number type and runtime each): the one that has
    had the least is next, so that the first round covers them all.

    Raises:
        MeasurementError: No such device, a table of something else, or a device that failed.
        WriteError: The table cannot be written.
    """
    if device.type == "cuda" and not torch.cuda.is_available():
        raise MeasurementError(
            "--compute cuda: torch finds no CUDA device here; use --compute cpu"
        )
    end = monotonic() + seconds
    recorder = Recorder.open(path, device_name)
    session = _Session(
        recorder=recorder,
        clock=Clock(device, repeats),
        device_name=device_name,
        lanes=lanes_of(queues(operators), recorder),
    )
    known = sum(lane.known for lane in session.lanes)
    with torch.inference_mode():
        while monotonic() < end and (lane := session.next_lane()):
            session.step(lane, progress)
    return Profile(
        path=path,
        measured=session.measured,
        known=known,
        waiting=sum(len(lane.waiting) for lane in session.lanes),
        refused=tuple((" ".join(lane.key), lane.reason) for lane in session.lanes if lane.reason),
    )


@dataclass(slots=True, kw_only=True)
class _Session:
    """One call of `profile`."""

    recorder: Recorder
    clock: Clock
    device_name: str
    lanes: list[Lane]
    measured: int = 0
    software: str = field(default_factory=lambda: f"torch {torch.__version__}")
    sessions: SessionClock | None = None
    """Made when the first operator of ONNX Runtime comes."""

    def next_lane(self) -> Lane | None:
        """The queue that had the least time, of those with something left."""
        open_ = [lane for lane in self.lanes if lane.waiting]
        return min(open_, key=lambda lane: lane.spent_s, default=None)

    def step(self, lane: Lane, progress: Progress | None) -> None:
        """Measures the next operator of a queue and records it, or why it cannot be."""
        operator = lane.take()
        start = monotonic()
        try:
            timing = self._timed(operator, energy=lane.rows % ENERGY_EVERY == ENERGY_FIRST)
        except Exception as error:
            # torch has no one class for "no such kernel": NotImplementedError, RuntimeError and
            # the compiler's own. A device that is broken for good ends the profile.
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            LOG.info("%s: %s", operator, reason)
            self.clock.check_alive(operator)
            lane.failed(reason, spent_s=monotonic() - start)
            return
        spent = monotonic() - start
        lane.succeeded(operator, timing.median_us * 1e-6, spent_s=spent)
        self.recorder.add(operator, self._row(operator, timing, spent))
        self.measured += 1
        if progress:
            progress(operator, timing)

    def _timed(self, operator: Operator, *, energy: bool) -> Timing:
        if operator.runtime == ONNX_RUNTIME:
            self.sessions = self.sessions or SessionClock(self.clock.repeats)
            return self.sessions.measure(operator)
        with float32_precision(tf32=operator.dtype == "tf32"):
            work = work_of(operator, self.clock.device)
            return self.clock.measure(work, energy=energy)

    def _row(self, operator: Operator, timing: Timing, spent_s: float) -> Row:
        return Row(
            op=operator.op,
            shape=json.dumps(operator.shape),
            dtype=operator.dtype,
            median_us=timing.median_us,
            energy_mj=timing.energy_mj,
            runtime=operator.runtime,
            min_us=timing.min_us,
            max_us=timing.max_us,
            calls=timing.calls,
            watts=timing.watts,
            clock_mhz=timing.clock_mhz,
            spent_s=spent_s,
            device=self.device_name,
            software=self._software(operator),
        )

    def _software(self, operator: Operator) -> str:
        if operator.runtime == ONNX_RUNTIME and self.sessions:
            return self.sessions.software
        return self.software
