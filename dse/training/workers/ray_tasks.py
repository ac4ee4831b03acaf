"""Runs on a Ray cluster: a task trains a piece and sends its checkpoint back.

Machines share no folder. What a task that dies has trained since its last checkpoint is lost, and
trained again by another one.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

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

DIED = (LocalRayletDiedError, NodeDiedError, OutOfMemoryError, WorkerCrashedError)
PIECE_S = 30.0
"""Seconds of a piece: what is lost at most with a node, and how often the progress moves."""
MOST_DEATHS = 3
"""Tasks of one run that may die at the same checkpoint; it is taken for the run's fault then."""

Key = tuple[str, int]


def run_on_ray(
    train: TrainPiece,
    left: Sequence[Key],
    *,
    checkpoint: Callable[[str, int], bytes | None],
    keep: Callable[[str, int, Piece], None],
    count: int | None,
    on_gpu: bool,
    told: Callable[[int], None],
    until: float | None,
) -> bool:
    """Runs methods and seeds on the cluster; whether all have ended.

    Args:
        train: Called on a machine of the cluster, with one CPU, and one GPU where `on_gpu` says.
        left: Methods and seeds.
        checkpoint: That of a run, if it has one; read on this machine.
        keep: Writes a checkpoint or a result, on this machine.
        count: Tasks side by side; by default one a GPU, else one a CPU of the cluster.
        on_gpu: Whether networks are trained on GPUs.
        told: Takes the steps of all runs so far.
        until: Time of `time.monotonic`, here, to stop at.

    Raises:
        RunError: there is no cluster, or a run's tasks die again and again.
    """
    started = connected()
    doing: dict[Any, Key] = {}
    try:
        slots = count or places(on_gpu=on_gpu)
        task = ray.remote(_piece).options(num_cpus=1, num_gpus=int(on_gpu), max_retries=0)
        copied = ray.put(train)
        waiting, died, steps = deque(left), Counter[Key](), 0
        while True:
            while waiting and len(doing) < slots and (seconds := _seconds(until)) > 0:
                key = waiting.popleft()
                doing[task.remote(copied, *key, checkpoint(*key), seconds)] = key
            if not doing:
                return not waiting
            (answer, *_), _ = ray.wait(list(doing), num_returns=1)
            key = doing.pop(answer)
            piece = _answered(answer, key, died)
            if piece is not None:
                keep(*key, piece)
                steps += piece.steps
                told(steps)
            if piece is None or not piece.ended:
                # In front: a run that has begun ends before another one begins.
                waiting.appendleft(key)
    finally:
        for answer in doing:
            ray.cancel(answer, force=True)
        if started:
            ray.shutdown()


def _seconds(until: float | None) -> float:
    """Those of a piece that begins now."""
    return PIECE_S if until is None else min(PIECE_S, until - time.monotonic())


def _piece(train: TrainPiece, name: str, seed: int, kept: bytes | None, seconds: float) -> Piece:
    """One task."""
    torch.set_num_threads(1)
    return train(name, seed, kept, seconds)


def _answered(answer: Any, key: Key, died: Counter[Key]) -> Piece | None:
    """The piece that a task sends back, or None where it has died."""
    try:
        piece: Piece = ray.get(answer)
    except RayTaskError as error:
        raise error.cause from None  # what the run itself raised
    except DIED as error:
        died[key] += 1
        if died[key] == MOST_DEATHS:
            name, seed = key
            raise RunError(
                f"--executor ray: {MOST_DEATHS} tasks died that trained seed {seed} of {name!r} "
                f"({type(error).__name__}); what has ended is kept, go on with --resume"
            ) from error
        return None
    except RayError as error:
        raise RunError(f"--executor ray: {error}") from error
    died[key] = 0
    return piece
