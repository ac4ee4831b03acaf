"""One seed of a method: trained to its end, or to where it is clearly worse than a rival."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from dse.errors import RunError
from dse.files import write_atomically
from dse.training.checkpoint import step_on
from dse.training.method import Method
from dse.training.run import Run
from dse.training.search.split import SplitName, half
from dse.training.workloads.workload import Workload

LOOKS = (0.4, 0.6, 0.8, 1.0)
"""Shares of a run after which it is compared with its rival."""
WINDOW = 0.2
"""Share of a run's steps over which losses are averaged for a comparison."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """A run on the same data that a run is compared with while it goes on."""

    losses: tuple[float, ...]
    """Of every step of the rival."""
    margins: tuple[float, ...]
    """At each of `LOOKS`: the difference from which on a run is clearly worse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A seed to train."""

    folder: Path
    """The folder of the method's runs."""
    method: Method
    split: SplitName
    seed: int
    steps: int
    rival: Rival | None = None
    """None: the run goes to its end."""

    @property
    def place(self) -> Path:
        """The file of the result."""
        return self.folder / f"{self.split}-{self.seed}.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedRun:
    """A seed that has ended."""

    seed: int
    first_loss: float
    """Held-out, before the first step."""
    loss: float | None
    """Held-out, at the end; None where it diverged or was ended."""
    diverged_at: int | None
    """Step at which something was no number; the last where it ended no better than it began."""
    ended_at: int | None
    """Step at which it was clearly worse than its rival; None: it went to its end."""
    seconds: float
    losses: tuple[float, ...]
    """Training loss of every step."""


def trained(job: Job, workload: Workload) -> SeedRun:
    """The run of a job: what an earlier process has done of it is not done again.

    Raises:
        KeyboardInterrupt: passed on, with a checkpoint written.
        MethodError: the method does not fit the workload.
    """
    if job.place.exists():
        return read_seed_run(job.place)
    job.folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    run = Run(job.method, half(workload, job.split), job.seed, steps=job.steps)
    checkpoint = job.place.with_suffix(".safetensors")
    if checkpoint.exists():
        run.resume(checkpoint)
    ended_at = _advanced(run, job, checkpoint)
    outcome = run.outcome()
    found = SeedRun(
        seed=job.seed,
        first_loss=outcome.first.loss,
        loss=outcome.last.loss if outcome.last and outcome.diverged_at is None else None,
        diverged_at=outcome.diverged_at if ended_at is None else None,
        ended_at=ended_at,
        seconds=time.monotonic() - started,
        losses=tuple(outcome.curve.loss),
    )
    if ended_at is None:
        write_atomically(job.place, json.dumps(asdict(found)))
    checkpoint.unlink(missing_ok=True)
    return found


def _advanced(run: Run, job: Job, checkpoint: Path) -> int | None:
    """Steps to the end, or to where the rival is clearly better: that step."""
    looks = {max(round(share * job.steps), 1): index for index, share in enumerate(LOOKS)}
    ended_at: int | None = None

    def stop(_: None) -> bool:
        nonlocal ended_at
        if job.rival is not None and run.step in looks:
            ahead = windowed(run.curve.loss) - windowed(job.rival.losses[: run.step])
            if ahead > job.rival.margins[looks[run.step]]:
                ended_at = run.step
        return ended_at is not None

    step_on(run, save=partial(run.save, checkpoint), stop=stop)
    return ended_at


def windowed(losses: Sequence[float]) -> float:
    """Mean of the last steps so far."""
    count = max(round(WINDOW * len(losses)), 1)
    return float(np.mean(losses[-count:]))


def margins(references: Sequence[SeedRun], steps: int) -> tuple[float, ...]:
    """The spread of bf16 over seeds at each look: what is worse by more is clearly worse."""
    found = []
    for share in LOOKS:
        step = max(round(share * steps), 1)
        values = [windowed(one.losses[:step]) for one in references if one.loss is not None]
        found.append(max(values) - min(values) if values else float("inf"))
    return tuple(found)


def read_seed_run(path: Path) -> SeedRun:
    """A run that has ended.

    Raises:
        RunError: the file is torn.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return SeedRun(**{**content, "losses": tuple(content["losses"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path}: no run of a seed: {error}; delete it to run it again") from error
