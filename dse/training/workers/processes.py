"""Processes that train side by side: they end with what started them, and leave checkpoints."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import torch

from dse.errors import RunError
from dse.explore.measure.workers import CONTEXT, end_with_parent

_ending: list[bool] = []
"""Not empty in a process that is to end: a pool hands out a job more than it has processes."""


@contextmanager
def processes(
    count: int, begin: Callable[..., None], arguments: tuple[object, ...], *, threads: int = 1
) -> Iterator[ProcessPoolExecutor]:
    """So many processes; whatever ends the context ends them, and what they train saves itself.

    Args:
        count: Of processes.
        begin: Called in each of them before anything else; its module is imported once for all.
        arguments: Those of `begin`.
        threads: Of torch, each.

    Raises:
        RunError: a process died.
    """
    others = set(multiprocessing.active_children())
    CONTEXT.set_forkserver_preload([begin.__module__])
    executor = ProcessPoolExecutor(
        count, mp_context=CONTEXT, initializer=_begun, initargs=(begin, arguments, threads)
    )
    try:
        yield executor
    except BrokenProcessPool as error:
        raise RunError(
            "--workers: a worker died while it trained (out of memory, or killed); what has "
            "ended is kept, go on with --resume"
        ) from error
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        mine = set(multiprocessing.active_children()) - others
        for process in mine:
            process.terminate()
        for process in mine:  # which each wait for what the others do
            process.join()


def ended(
    futures: Collection[Future[Any]], told: Callable[[int], None], *, every: float | None = None
) -> None:
    """Waits for all of them.

    Args:
        futures: Of an executor of `processes`.
        told: Takes how many more have ended.
        every: Seconds after which it is told in any case; None: only when one has ended.
    """
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, timeout=every, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
        told(len(done))


@contextmanager
def interruptible() -> Iterator[None]:
    """An interruption, no kill, of what one of the processes trains meanwhile, when it is to end.

    Raises:
        KeyboardInterrupt: it is to end; at once where an earlier job in it was ended.
    """
    if _ending:
        raise KeyboardInterrupt
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(*_: Any) -> None:
    _ending.append(True)
    raise KeyboardInterrupt


def _begun(begin: Callable[..., None], arguments: tuple[object, ...], threads: int) -> None:
    """Begins a process's life: Ctrl-C is its parent's to act upon."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    begin(*arguments)
