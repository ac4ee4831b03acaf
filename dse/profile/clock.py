"""Time and energy of one operator with cold caches.

A replay is a run of calls, each on operands of its own; before it the caches are filled with
something else, so that every call finds its operands in main memory. On a GPU the calls of a
replay are one CUDA graph: the time holds no launch by the processor. Reported is the median of
the replays, over the calls.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from dse.profile.arena import Arena
from dse.profile.operators import Work
from dse.profile.plan import Operator
from dse.profile.power import Meter
from hwmodels.errors import MeasurementError

WARM_CALLS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """Number and length of repetitions."""

    replays: int = 7
    replay_s: float = 3e-3
    """Calls are added to a replay until it takes this long, so that its start does not count."""
    slow_s: float = 0.3
    """A call that takes longer is timed once."""
    most_calls: int = 512
    cold_bytes: int = 2**28
    """Read between replays; more than the last-level cache of any GPU and most processors."""
    operand_bytes: int = 2**31
    """Operands of a replay's calls together; one call may need more."""
    energy_s: float = 1.3
    """A loop of replays this long is put to the energy counter, whose step is about 0.1 s; 0 for
    none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One operator, a call each."""

    median_us: float
    min_us: float
    max_us: float
    calls: int
    """In a replay."""
    energy_mj: float | None = None
    watts: float | None = None
    """Average over the loop that measured the energy."""
    clock_mhz: int | None = None
    """Of the GPU's cores while it was timed."""


class Clock:
    """Times work on one device."""

    def __init__(self, device: torch.device, repeats: Repeats | None = None) -> None:
        self.device = device
        self.repeats = repeats or Repeats()
        self.meter = Meter(device)
        self._arena = Arena(device)
        self._other = torch.ones(self.repeats.cold_bytes // 4, device=device)

    def measure(self, work: Work, *, energy: bool = False) -> Timing:
        """The time of a call, and its energy where it is asked for and can be read.

        Raises:
            RuntimeError: torch cannot run it: no such kernel, or not enough memory.
        """
        single_s = self._single_s(work)
        calls = self._calls(work, single_s)
        replay = self._replay(work, calls)
        if self._is_cuda and (more := self._calls(work, self._alone_s(replay) / calls)) > calls:
            # A single call is mostly its launch, which the graph does not have.
            calls = more
            replay = self._replay(work, calls)
        replays = 1 if single_s > self.repeats.slow_s else self.repeats.replays
        seconds, clock_mhz = self._timed(replay, replays)
        wanted = energy and self.repeats.energy_s > 0
        spent = self._energy(replay, statistics.median(seconds)) if wanted else None
        each_us = [one / calls * 1e6 for one in seconds]
        return Timing(
            median_us=statistics.median(each_us),
            min_us=min(each_us),
            max_us=max(each_us),
            calls=calls,
            energy_mj=spent.replay_mj / calls if spent else None,
            watts=spent.watts if spent else None,
            clock_mhz=clock_mhz,
        )

    def check_alive(self, operator: Operator) -> None:
        """After a failure: gives memory back, and finds out whether the device still works.

        Raises:
            MeasurementError: It does not: after a fault CUDA refuses everything else.
        """
        self._arena.release()
        try:
            self._synchronise()
            if self._is_cuda:
                torch.cuda.empty_cache()
        except RuntimeError as error:
            raise MeasurementError(
                f"the device failed at {operator.op} {operator.shape} {operator.dtype} "
                f"({operator.runtime}): {error}; measured rows are kept: run it again to go on"
            ) from error

    @property
    def _is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def _single_s(self, work: Work) -> float:
        """Seconds of one call after warming up: compilation, libraries, kernel choice."""
        operands = self._arena.sets(work.operands, 1)[0]
        work.function(*operands)
        seconds = math.inf
        for _ in range(WARM_CALLS):
            self._synchronise()
            start = time.perf_counter()
            work.function(*operands)
            self._synchronise()
            seconds = min(seconds, time.perf_counter() - start)
            if seconds > self.repeats.slow_s:
                break
        return seconds

    def _calls(self, work: Work, single_s: float) -> int:
        room = self.repeats.operand_bytes // max(sum(one.bytes for one in work.operands), 1)
        wanted = round(self.repeats.replay_s / max(single_s, 1e-7))
        return max(min(wanted, room, self.repeats.most_calls), 1)

    def _replay(self, work: Work, calls: int) -> Callable[[], None]:
        """Runs the work that often, each time on operands of its own."""
        sets = self._arena.sets(work.operands, calls)

        def run_all() -> None:
            for operands in sets:
                work.function(*operands)

        return self._captured(run_all) if self._is_cuda else run_all

    def _alone_s(self, replay: Callable[[], None]) -> float:
        """Seconds of one replay."""
        (seconds,), _ = self._timed(replay, 1)
        return seconds

    def _captured(self, run_all: Callable[[], None]) -> Callable[[], None]:
        """The calls as one launch, which has run once."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run_all()
        graph.replay()
        return graph.replay

    def _timed(self, replay: Callable[[], None], count: int) -> tuple[list[float], int | None]:
        """Seconds of each replay, and the clock while they ran."""
        if not self._is_cuda:
            return [self._timed_on_cpu(replay) for _ in range(count)], None
        starts, ends = ([_event() for _ in range(count)] for _ in range(2))
        for start, end in zip(starts, ends, strict=True):
            self._other.sum()
            start.record()
            replay()
            end.record()
        clock_mhz = self.meter.clock_mhz()
        self._synchronise()
        return [a.elapsed_time(b) * 1e-3 for a, b in zip(starts, ends, strict=True)], clock_mhz

    def _timed_on_cpu(self, replay: Callable[[], None]) -> float:
        self._other.sum()
        start = time.perf_counter()
        replay()
        return time.perf_counter() - start

    def _energy(self, replay: Callable[[], None], replay_s: float) -> _Energy | None:
        """Of one replay, over a loop of them."""
        before = self.meter.energy_mj()
        if before is None:
            return None
        count = max(round(self.repeats.energy_s / replay_s), 1)
        start = time.perf_counter()
        for _ in range(count):
            replay()
        self._synchronise()
        seconds = time.perf_counter() - start
        after = self.meter.energy_mj()
        if after is None:
            return None
        return _Energy(replay_mj=(after - before) / count, watts=(after - before) / seconds / 1e3)

    def _synchronise(self) -> None:
        if self._is_cuda:
            torch.cuda.synchronize(self.device)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Energy:
    replay_mj: float
    watts: float
