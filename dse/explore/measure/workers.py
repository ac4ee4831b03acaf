"""Worker processes on this machine: each has its own copy of the network and one torch thread.

The search's process asks and tells; workers only measure. So nothing is lost with a worker: its
job goes to another, and a new process takes its place.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from dse.errors import RunError
from dse.evaluate.evaluator import Evaluator
from dse.execute.memory import GIGA, available_bytes
from dse.explore.measure.executor import MAX_DEATHS, Deaths, Job, Outcome, measured

CONTEXT = multiprocessing.get_context("forkserver")
"""A child of the search itself would inherit the locks of its thread pools, and CUDA refuses one.
The server has imported all that a worker needs and has run nothing: a worker starts in a moment
and shares the memory of libraries with the others."""
PRELOADED = ["dse.explore.measure.workers"]
WORKER_BYTES = 300 * 10**6
"""Of a worker apart from its network; one of the smoke space holds 0.35 GB, with libraries that
workers share."""
GRACE_S = 2.0
"""A worker that was asked to end is killed after this time."""


@dataclass(slots=True, kw_only=True)
class _Seat:
    """A worker and what it is doing."""

    number: int
    process: BaseProcess
    pipe: Connection
    job: Job | None = None


class Workers:
    """A pool of processes; one that dies is replaced and its job done again.

    Args:
        evaluator: every worker gets a copy.
        count: how many workers.
        threads: of torch, each.

    Raises:
        RunError: more workers than the machine has memory for; none is started.
    """

    def __init__(self, evaluator: Evaluator, count: int, *, threads: int = 1) -> None:
        self.slots = count
        self.replicas = count + 1
        self._evaluator = _pickled(evaluator)
        check_room(count, WORKER_BYTES + len(self._evaluator))
        self._threads = threads
        self._jobs: deque[Job] = deque()
        self._given_up: deque[Outcome] = deque()
        self._deaths = Deaths()
        self._idle_deaths = 0
        self._seats = [self._seated(number) for number in range(count)]

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self._jobs.append(job)
        self._dispatch()

    def next(self) -> Outcome:
        """Wait for an outcome, in whatever order they come.

        Raises:
            RunError: workers die before they get to a job.
        """
        while True:
            if self._given_up:
                return self._given_up.popleft()
            self._dispatch()
            seats = {seat.pipe: seat for seat in self._seats}
            for pipe in wait(list(seats)):
                seat = seats[pipe]  # type: ignore[index]
                try:
                    outcome: Outcome = seat.pipe.recv()
                except (EOFError, OSError):
                    self._replace(seat)
                    break
                seat.job = None
                self._deaths.forget(outcome.key)
                self._idle_deaths = 0
                return outcome

    def close(self) -> None:
        """End every worker, whatever it does."""
        for seat in self._seats:
            seat.process.terminate()
        for seat in self._seats:
            seat.process.join(GRACE_S)
            if seat.process.is_alive():
                seat.process.kill()
                seat.process.join()
            seat.pipe.close()
        self._seats.clear()

    def _dispatch(self) -> None:
        for seat in self._seats:
            if seat.job is None and self._jobs:
                seat.job = self._jobs.popleft()
                try:
                    seat.pipe.send(seat.job)
                except OSError:
                    # It died idle; `next` finds the pipe closed, and puts the job back.
                    continue

    def _replace(self, seat: _Seat) -> None:
        """A new worker in a dead one's place; its job is queued again, in front."""
        seat.pipe.close()
        seat.process.join()
        if seat.job is None:
            self._idle_deaths += 1
            if self._idle_deaths >= MAX_DEATHS:
                raise RunError(
                    f"--workers: {MAX_DEATHS} workers ended before they measured anything (the "
                    f"last with code {seat.process.exitcode}); see what they printed above"
                )
        else:
            self._blame(seat.job, f"exit code {seat.process.exitcode}")
        self._seats[self._seats.index(seat)] = self._seated(seat.number)

    def _blame(self, job: Job, how: str) -> None:
        verdict = self._deaths.verdict(job, "workers", how)
        if verdict is None:
            self._jobs.appendleft(job)
        else:
            self._given_up.append(verdict)

    def _seated(self, number: int) -> _Seat:
        ours, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(
            target=serve,
            args=(self._evaluator, theirs, number, self._threads),
            name=f"dse worker {number}",
            daemon=True,
        )
        with _interrupts_held():
            CONTEXT.set_forkserver_preload(PRELOADED)
            process.start()
        theirs.close()
        return _Seat(number=number, process=process, pipe=ours)


def serve(evaluator: bytes, pipe: Connection, number: int, threads: int) -> None:
    """Measure what comes through a pipe until it is closed; the worker's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    torch.set_num_threads(threads)
    _choose_gpu(number)
    copy: Evaluator = pickle.loads(evaluator)
    copy.forward_macs("search")  # the full-precision reference, while nothing is asked for yet
    while True:
        try:
            job: Job = pipe.recv()
        except (EOFError, OSError):  # reset, where the search was killed
            return
        pipe.send(measured(copy, job))


def end_with_parent() -> None:
    """Leave no orphan: a search that is killed takes its workers along, whatever they do."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_ended_with, args=(parent.sentinel,), daemon=True).start()


def _ended_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _choose_gpu(number: int) -> None:
    """One GPU a worker, in turn; torch reads the variable when it first touches CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    devices = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    if len(devices) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """A process started meanwhile never sees Ctrl-C: it is the search's to end it.

    The mask is inherited, so that it holds before the server has run a line of Python.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def check_room(count: int, each: int) -> None:
    """Refuses so many workers that they would take the machine's memory, and with it the machine.

    Args:
        count: Of workers; one alone is not refused.
        each: Bytes that a worker takes.

    Raises:
        RunError: they take more than is free.
    """
    free = available_bytes()
    if count > 1 and count * each > free:
        raise RunError(
            f"--workers {count}: each takes about {each / GIGA:.2g} GB, and the machine has "
            f"{free / GIGA:.2g} GB free; expected at most {max(free // each, 1)}"
        )


def _pickled(evaluator: Evaluator) -> bytes:
    try:
        return pickle.dumps(evaluator)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise RunError(
            f"workers: the search cannot be copied to other processes: {error}; an `evaluate` "
            "function must stand at the top level of a module"
        ) from error
