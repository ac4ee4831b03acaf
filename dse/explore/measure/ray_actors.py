"""Workers on a Ray cluster: an actor each, with its own copy of the network, and a GPU if asked.

Ray starts actors again that died with their process or their node; the job that was lost with one
goes to whichever is free next.
"""

from __future__ import annotations

import pickle
import time
from collections import deque
from typing import Any

import torch

from dse.errors import RunError
from dse.evaluate.evaluator import Evaluator
from dse.explore.measure.executor import Deaths, Job, Outcome, measured
from dse.explore.measure.ray_cluster import connected, places

# Ray is an extra: `ray_cluster` comes first, since it says how to install it.
import ray  # isort: skip
from ray.exceptions import ActorUnavailableError, RayActorError, RayError  # isort: skip


RESTART_S = 0.2
"""Between questions whether an actor that is being started again is there."""


class Actor:
    """The actors on the cluster."""

    def __init__(self, evaluator: bytes) -> None:
        torch.set_num_threads(1)
        self._evaluator: Evaluator = pickle.loads(evaluator)
        self._evaluator.forward_macs("search")

    def ready(self) -> None:
        """Return once it is there."""

    def measure(self, job: Job) -> Outcome:
        """Measure a job."""
        return measured(self._evaluator, job)


class RayActors:
    """A pool of actors on the cluster that `RAY_ADDRESS` names, else on one of this machine.

    Args:
        evaluator: every actor gets a copy.
        count: how many actors; by default one a GPU for CUDA, else one a CPU of the cluster.
    """

    def __init__(self, evaluator: Evaluator, count: int | None = None) -> None:
        self._started = connected()
        on_gpu = evaluator.device != "cpu"
        self.slots = count or places(on_gpu=on_gpu)
        self.replicas = self.slots + 1
        # Kept as long as an actor may have to be started again.
        self._copied = ray.put(ray.cloudpickle.dumps(evaluator))
        remote = ray.remote(Actor).options(
            num_cpus=1, num_gpus=1 if on_gpu else 0, max_restarts=-1, max_task_retries=0
        )
        self._actors: list[Any] = [remote.remote(self._copied) for _ in range(self.slots)]
        self._jobs: deque[Job] = deque()
        self._given_up: deque[Outcome] = deque()
        self._deaths = Deaths()
        # What each actor is doing, by the reference of its answer; None: it is starting.
        self._doing: dict[Any, tuple[Any, Job | None]] = {}
        self._idle: list[Any] = []
        for actor in self._actors:
            self._await_start(actor)

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self._jobs.append(job)
        self._dispatch()

    def next(self) -> Outcome:
        """Wait for an outcome, in whatever order they come.

        Raises:
            RunError: an actor cannot be started, or the cluster is gone.
        """
        while not self._given_up:
            self._dispatch()
            (answer, *_), _ = ray.wait(list(self._doing), num_returns=1)
            actor, job = self._doing.pop(answer)
            outcome = self._answered(answer, actor, job)
            if outcome is not None:
                return outcome
        return self._given_up.popleft()

    def close(self) -> None:
        """End every actor, and the cluster if it was started for this search."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors.clear()
        if self._started:
            ray.shutdown()

    def _answered(self, answer: Any, actor: Any, job: Job | None) -> Outcome | None:
        """The outcome, or None where an actor has only started or has died."""
        try:
            outcome: Outcome | None = ray.get(answer)
        except RayActorError as error:
            if job is not None:
                self._blame(job)
            elif isinstance(error, ActorUnavailableError):
                time.sleep(RESTART_S)
            else:
                raise RunError(f"--executor ray: an actor cannot be started: {error}") from error
            self._await_start(actor)
            return None
        except RayError as error:
            raise RunError(f"--executor ray: {error}") from error
        self._idle.append(actor)
        return outcome

    def _await_start(self, actor: Any) -> None:
        self._doing[actor.ready.remote()] = (actor, None)

    def _dispatch(self) -> None:
        while self._idle and self._jobs:
            actor, job = self._idle.pop(), self._jobs.popleft()
            self._doing[actor.measure.remote(job)] = (actor, job)

    def _blame(self, job: Job) -> None:
        verdict = self._deaths.verdict(job, "actors")
        if verdict is None:
            self._jobs.appendleft(job)
        else:
            self._given_up.append(verdict)
