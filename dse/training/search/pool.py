"""Seeds trained side by side, each by a process with one thread; or one by one, right here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import torch

from dse.training.search.seed_run import Job, SeedRun, trained
from dse.training.workers.processes import ended, interruptible, processes
from dse.training.workloads.workload import Workload

Done = Callable[[], None]
_WORKLOAD: list[Workload] = []
"""The workload of a worker process."""


class Pool:
    """Trains jobs; the order of results is that of the jobs, whoever was first."""

    def __init__(self, workload: Workload, executor: ProcessPoolExecutor | None) -> None:
        self._workload = workload
        self._executor = executor

    def run(self, jobs: Sequence[Job], done: Done = lambda: None) -> list[SeedRun]:
        """The runs of jobs.

        Args:
            jobs: In any order; none depends on another.
            done: Called once a job.

        Raises:
            RunError: a worker died.
            MethodError: a method does not fit the workload.
        """
        if self._executor is None:
            found = []
            for job in jobs:
                found.append(trained(job, self._workload))
                done()
            return found
        futures = [self._executor.submit(_trained, job) for job in jobs]

        def told(count: int) -> None:
            for _ in range(count):
                done()

        ended(futures, told)
        return [future.result() for future in futures]


@contextmanager
def pool_of(workload: Workload, workers: int) -> Iterator[Pool]:
    """A pool of so many processes; with one, this process trains with one thread.

    Whatever ends the context ends the processes, too.
    """
    if workers == 1:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield Pool(workload, None)
        finally:
            torch.set_num_threads(before)
        return
    with processes(workers, _begun, (workload,)) as executor:
        yield Pool(workload, executor)


def _begun(workload: Workload) -> None:
    _WORKLOAD[:] = [workload]


def _trained(job: Job) -> SeedRun:
    with interruptible():
        return trained(job, _WORKLOAD[0])
