"""Seeds trained side by side, each by a process with one thread; or one by one, right here."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import torch

from dse.errors import RunError
from dse.explore.measure.workers import CONTEXT, end_with_parent
from dse.training.search.seed_run import Job, SeedRun, trained
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
        try:
            futures = [self._executor.submit(_trained, job) for job in jobs]
            waiting: set[Future[SeedRun]] = set(futures)
            while waiting:
                ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ended:
                    future.result()
                    done()
        except BrokenProcessPool as error:
            raise RunError(
                "--workers: a worker died while it trained (out of memory, or killed); what has "
                "ended is kept, go on with --resume"
            ) from error
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
    others = set(multiprocessing.active_children())
    CONTEXT.set_forkserver_preload([__name__])
    executor = ProcessPoolExecutor(
        workers, mp_context=CONTEXT, initializer=_begun, initargs=(workload,)
    )
    try:
        yield Pool(workload, executor)
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
            process.join()


def _begun(workload: Workload) -> None:
    """Begins a worker's life: Ctrl-C is the search's to act upon."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stopped)
    end_with_parent()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    _WORKLOAD[:] = [workload]


def _stopped(*_: Any) -> None:
    """Ends a run with a checkpoint."""
    raise KeyboardInterrupt


def _trained(job: Job) -> SeedRun:
    return trained(job, _WORKLOAD[0])
