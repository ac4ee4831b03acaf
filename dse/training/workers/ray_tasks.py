"""Runs on a Ray cluster: a task trains a piece and sends its checkpoint back.

Machines share no folder. What a task that dies has trained since its last checkpoint is lost, and
trained again by another one.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch

from dse.errors import RunError
from dse.explore.measure.ray_cluster import connected, places
from dse.training.workers.piece import Piece, TrainPiece

# Ray is an extra: `ray_cluster` comes first, since it says how to install it.
import ray  # isort: skip
from ray.exceptions import (  # isort: skip
    LocalRayletDiedError, NodeDiedError, OutOfMemoryError, RayError, RayTaskError,
    WorkerCrashedError,
)  # fmt: skip

Key = TypeVar("Key")
DIED = (LocalRayletDiedError, NodeDiedError, OutOfMemoryError, WorkerCrashedError)
PIECE_S = 30.0
"""Seconds of a piece: what is lost at most with a node, and how often the progress moves."""
MOST_DEATHS = 3
"""Tasks of one run that may die at the same checkpoint; it is taken for the run's fault then."""


class Tasks(Generic[Key]):
    """Trains runs on the cluster that is connected; keys are whatever names a run."""

    def __init__(self, train: TrainPiece[Key], *, count: int | None, on_gpu: bool) -> None:
        """Tasks of a cluster.

        Args:
            train: Called on a machine of the cluster, with one CPU, and one GPU where `on_gpu`
                says.
            count: Tasks side by side; by default one a GPU, else one a CPU of the cluster.
            on_gpu: Whether networks are trained on GPUs.
        """
        self._slots = count or places(on_gpu=on_gpu)
        self._task = ray.remote(_piece).options(num_cpus=1, num_gpus=int(on_gpu), max_retries=0)
        self._train = ray.put(train)

    def run(
        self,
        left: Sequence[Key],
        *,
        checkpoint: Callable[[Key], bytes | None],
        keep: Callable[[Key, Piece], None],
        title: Callable[[Key], str],
        told: Callable[[int], None] = lambda steps: None,
        until: float | None = None,
    ) -> bool:
        """Runs what is left; whether all have ended.

        Args:
            left: Runs.
            checkpoint: That of a run, if it has one; read on this machine.
            keep: Writes a checkpoint or a result, on this machine.
            title: That of a run, in an error.
            told: Takes the steps of all runs so far.
            until: Time of `time.monotonic`, here, to stop at.

        Raises:
            RunError: a run's tasks die again and again, or the cluster does.
        """
        doing: dict[Any, int] = {}
        waiting, died, steps = deque(range(len(left))), Counter[int](), 0
        try:
            while True:
                while waiting and len(doing) < self._slots and (seconds := _seconds(until)) > 0:
                    number = waiting.popleft()
                    key = left[number]
                    answer = self._task.remote(self._train, key, checkpoint(key), seconds)
                    doing[answer] = number
                if not doing:
                    return not waiting
                (answer, *_), _ = ray.wait(list(doing), num_returns=1)
                number = doing.pop(answer)
                piece = _answered(answer)
                died[number] = died[number] + 1 if piece is None else 0
                if died[number] == MOST_DEATHS:
                    raise RunError(
                        f"--executor ray: {MOST_DEATHS} tasks died that trained "
                        f"{title(left[number])}; what has ended is kept, go on with --resume"
                    )
                if piece is not None:
                    keep(left[number], piece)
                    steps += piece.steps
                    told(steps)
                if piece is None or not piece.ended:
                    # In front: a run that has begun ends before another one begins.
                    waiting.appendleft(number)
        finally:
            for answer in doing:
                ray.cancel(answer, force=True)


@contextmanager
def tasks(train: TrainPiece[Key], *, count: int | None, on_gpu: bool) -> Iterator[Tasks[Key]]:
    """Tasks on the cluster that `RAY_ADDRESS` names, else on one that is started here.

    Args:
        train: As in `Tasks`, as are the others.
        count: Of tasks.
        on_gpu: Whether they take a GPU each.

    Raises:
        RunError: there is no cluster.
    """
    started = connected()
    try:
        yield Tasks(train, count=count, on_gpu=on_gpu)
    finally:
        if started:
            ray.shutdown()


def _seconds(until: float | None) -> float:
    """Those of a piece that begins now."""
    return PIECE_S if until is None else min(PIECE_S, until - time.monotonic())


def _piece(train: TrainPiece[Key], key: Key, kept: bytes | None, seconds: float) -> Piece:
    """One task."""
    torch.set_num_threads(1)
    return train(key, kept, seconds)


def _answered(answer: Any) -> Piece | None:
    """The piece that a task sends back, or None where it has died."""
    try:
        piece: Piece = ray.get(answer)
    except RayTaskError as error:
        raise error.cause from None  # what the run itself raised
    except DIED:
        return None
    except RayError as error:
        raise RunError(f"--executor ray: {error}") from error
    return piece
