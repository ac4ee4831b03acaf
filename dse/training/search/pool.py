"""Seeds trained one by one, right here, or side by side: by processes, or tasks of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from dse.training.search.seed_run import (
    Job,
    SeedRun,
    keep_piece,
    read_seed_run,
    train_piece,
    trained,
)
from dse.training.workers.piece import Piece
from dse.training.workers.processes import ended, interruptible, processes
from dse.training.workloads.workload import Workload

if TYPE_CHECKING:
    from dse.training.workers.ray_tasks import Tasks

Done = Callable[[], None]
_TRAINS: list[Callable[[Job], SeedRun]] = []
"""`trained` with the workload of a worker process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The places that seeds train at."""

    count: int | None = None
    """Of processes, or of tasks; None: as many as there is room for."""
    on_ray: bool = False
    """Tasks on a Ray cluster, no processes here."""
    device: str = "cpu"
    """The device of torch's that networks are on."""


class Pool(Protocol):
    """Trains jobs; the order of results is that of the jobs, whoever was first."""

    def run(self, jobs: Sequence[Job], done: Done = lambda: None) -> list[SeedRun]:
        """The runs of jobs.

        Args:
            jobs: In any order; none depends on another.
            done: Called once a job.

        Raises:
            RunError: a worker died.
            MethodError: a method does not fit the workload.
        """


@contextmanager
def pool_of(workload: Workload, places: Places) -> Iterator[Pool]:
    """A pool; where there is one place here, this process trains with one thread.

    Whatever ends the context ends the processes, too.

    Args:
        workload: Trained by all jobs.
        places: Without a count, this process, or as many tasks as the cluster has room for.

    Raises:
        RunError: there is no cluster.
    """
    train = partial(trained, workload=workload, device=places.device)
    if places.on_ray:
        from dse.training.workers.ray_tasks import tasks  # noqa: PLC0415 (an extra)

        piece = partial(train_piece, workload, places.device)
        with tasks(piece, count=places.count, on_gpu=places.device != "cpu") as found:
            yield _OnRay(found)
    elif places.count is None or places.count == 1:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield _Here(train)
        finally:
            torch.set_num_threads(before)
    else:
        with processes(places.count, _begun, (train,)) as executor:
            yield _Together(executor)


class _Here:
    """This process."""

    def __init__(self, train: Callable[[Job], SeedRun]) -> None:
        self._train = train

    def run(self, jobs: Sequence[Job], done: Done = lambda: None) -> list[SeedRun]:
        found = []
        for job in jobs:
            found.append(self._train(job))
            done()
        return found


class _Together:
    """Processes of this machine."""

    def __init__(self, executor: ProcessPoolExecutor) -> None:
        self._executor = executor

    def run(self, jobs: Sequence[Job], done: Done = lambda: None) -> list[SeedRun]:
        futures = [self._executor.submit(_trained, job) for job in jobs]

        def told(count: int) -> None:
            for _ in range(count):
                done()

        ended(futures, told)
        return [future.result() for future in futures]


class _OnRay:
    """Tasks of a cluster, which shares no folder with this machine."""

    def __init__(self, tasks: Tasks[Job]) -> None:
        self._tasks = tasks

    def run(self, jobs: Sequence[Job], done: Done = lambda: None) -> list[SeedRun]:
        found: dict[Path, SeedRun] = {}
        left = []
        for job in jobs:
            if job.place.exists():
                found[job.place] = read_seed_run(job.place)
                done()
            else:
                left.append(job)

        def keep(job: Job, piece: Piece) -> None:
            run = keep_piece(job, piece)
            if run is not None:
                found[job.place] = run
                done()

        self._tasks.run(left, checkpoint=_checkpoint, keep=keep, title=_title)
        return [found[job.place] for job in jobs]


def _checkpoint(job: Job) -> bytes | None:
    return job.checkpoint.read_bytes() if job.checkpoint.exists() else None


def _title(job: Job) -> str:
    return f"seed {job.seed} of the method in {job.folder}"


def _begun(train: Callable[[Job], SeedRun]) -> None:
    _TRAINS[:] = [train]


def _trained(job: Job) -> SeedRun:
    with interruptible():
        return _TRAINS[0](job)
