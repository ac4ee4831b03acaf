"""Runs of several methods and seeds side by side, each in a process of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from multiprocessing.sharedctypes import Synchronized
from typing import Protocol

from dse.explore.measure.workers import CONTEXT
from dse.training.workers.processes import ended, interruptible, processes

POLLED_S = 0.3
"""Seconds between two looks at the progress of workers."""
_counter: Synchronized[int] | None = None
"""Steps that all workers have taken, in a worker."""


class Job(Protocol):
    """One run, to its end or to that of the piece; pickled for another process."""

    def __call__(
        self, name: str, seed: int, *, told: Callable[[int], None], until: float | None
    ) -> bool:
        """Whether the run has ended; `told` takes the step after each one."""


def run_together(
    job: Job,
    left: Sequence[tuple[str, int]],
    *,
    workers: int,
    told: Callable[[int], None],
    until: float | None,
) -> bool:
    """Runs methods and seeds in processes of their own; whether all have ended.

    Args:
        job: Called with the name of a method and a seed.
        left: Methods and seeds.
        workers: Processes; each takes its share of the processor's cores.
        told: Takes the steps of all runs so far, a few times a second.
        until: Time of `time.monotonic`, which all processes of a machine share, to stop at.
    """
    counter = CONTEXT.Value("q", 0)
    threads = max((os.cpu_count() or 1) // workers, 1)
    with processes(workers, _begun, (counter,), threads=threads) as executor:
        futures = [executor.submit(_run, job, name, seed, until) for name, seed in left]
        ended(futures, lambda _: told(counter.value), every=POLLED_S)
        return all(future.result() for future in futures)


def _begun(counter: Synchronized[int]) -> None:
    global _counter  # noqa: PLW0603 (a pool hands its workers nothing else)
    _counter = counter


def _run(job: Job, name: str, seed: int, until: float | None) -> bool:
    """One run in a worker."""
    last: int | None = None

    def told(step: int) -> None:
        nonlocal last
        if _counter is not None:
            with _counter.get_lock():
                _counter.value += step - (step - 1 if last is None else last)
        last = step

    if until is not None and time.monotonic() >= until:
        return False
    with interruptible():
        return job(name, seed, told=told, until=until)
