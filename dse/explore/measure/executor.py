"""The seam between a search, which asks and tells, and whoever runs the network."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from dse.evaluate.evaluator import Evaluator, SplitName
from dse.evaluate.hurdle import Hurdle
from dse.evaluate.quality import Quality
from dse.graph.ir.assignment import Assignment

MAX_DEATHS = 3
"""A measurement during which so many workers died is given up: it is what kills them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One measurement."""

    key: int
    """The key that tells outcomes apart."""
    assignment: Assignment
    split: SplitName = "search"
    samples: int | None = None
    """The first so many of the split; all by default."""
    hurdle: Hurdle | None = None
    """The hurdle to clear for more than a first look."""
    others: tuple[Assignment, ...] = ()
    """Further networks that the same trial is about, measured alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a job."""

    key: int
    quality: Quality | None
    """None where it failed."""
    macs: int = 0
    """Executed for it, the full-precision reference apart."""
    seconds: float = 0.0
    error: str = ""
    """The reason why it failed."""
    others: Mapping[str, Quality] = field(default_factory=dict)
    """Of the further networks, by their digest."""


class Deaths:
    """Who died while measuring what: a job that keeps killing is given up."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def verdict(self, job: Job, who: str, how: str = "") -> Outcome | None:
        """The outcome of a job that is given up after one more death; None: measure it again."""
        count = self._counts[job.key] = self._counts.get(job.key, 0) + 1
        if count < MAX_DEATHS:
            return None
        last = f", the last with {how}" if how else ""
        error = f"{count} {who} died while they measured it{last}"
        return Outcome(key=job.key, quality=None, error=error)

    def forget(self, key: int) -> None:
        """A job was measured after all."""
        self._counts.pop(key, None)


class Executor(Protocol):
    """Takes jobs and gives outcomes, in any order, each exactly once."""

    @property
    def slots(self) -> int:
        """Jobs that run at the same time."""

    @property
    def replicas(self) -> int:
        """Copies of the network that run the full-precision reference, the session's included."""

    def submit(self, job: Job) -> None:
        """Queue a job; returns at once."""

    def next(self) -> Outcome:
        """Wait for an outcome.

        Raises:
            RunError: no worker can be started.
        """

    def close(self) -> None:
        """Stop, whatever runs; no process stays behind."""


class InProcess:
    """Measures in the search's own process, one job after the other."""

    slots = 1
    replicas = 1

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._jobs: deque[Job] = deque()

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self._jobs.append(job)

    def next(self) -> Outcome:
        """Measure the oldest job."""
        return measured(self._evaluator, self._jobs.popleft())

    def close(self) -> None:
        """Forget what is queued."""
        self._jobs.clear()


def measured(evaluator: Evaluator, job: Job) -> Outcome:
    """The outcome of a job; whatever the measurement raises becomes its error."""
    try:
        evaluator.forward_macs(job.split)
        before, started = evaluator.macs, time.monotonic()
        quality = evaluator.measure(
            job.assignment, job.split, samples=job.samples, hurdle=job.hurdle
        )
        others = {
            other.digest: evaluator.measure(other, job.split, samples=job.samples)
            for other in job.others
        }
    except Exception as error:
        return Outcome(key=job.key, quality=None, error=f"{type(error).__name__}: {error}")
    return Outcome(
        key=job.key,
        quality=quality,
        macs=evaluator.macs - before,
        seconds=time.monotonic() - started,
        others=others,
    )


def outcomes(executor: Executor, jobs: Sequence[Job]) -> Iterator[Outcome]:
    """The outcomes of jobs that depend on nothing else, as they come."""
    for job in jobs:
        executor.submit(job)
    for _ in jobs:
        yield executor.next()
