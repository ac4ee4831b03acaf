"""One seed of a method: trained to its end, or to where it is clearly worse than a rival."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from dse.errors import RunError
from dse.files import write_atomically
from dse.training.checkpoint import step_on
from dse.training.method import Method
from dse.training.run import Run
from dse.training.search.split import SplitName, half
from dse.training.workers.piece import Piece
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

    @property
    def checkpoint(self) -> Path:
        """The file that a run goes on from."""
        return self.place.with_suffix(".safetensors")


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


def trained(job: Job, workload: Workload, *, device: str = "cpu") -> SeedRun:
    """The run of a job: what an earlier process has done of it is not done again.

    Args:
        job: Its folder is made.
        workload: Whole; the job has its half of what is held out.
        device: Of torch's, on which the network is trained.

    Raises:
        KeyboardInterrupt: passed on, with a checkpoint written.
        MethodError: the method does not fit the workload.
    """
    found, _ = _part(job, workload, device)
    assert found is not None, "time is never up"
    return found


def train_piece(
    workload: Workload, device: str, key: Job, kept: bytes | None, seconds: float
) -> Piece:
    """Trains a piece of a job in a folder that is gone then, on whatever machine.

    Args:
        workload: As in `trained`.
        device: As in `trained`.
        key: The job; its own folder is not touched.
        kept: The checkpoint to go on from.
        seconds: After which the piece stops; it takes one step at least.
    """
    with TemporaryDirectory() as scratch:
        here = replace(key, folder=Path(scratch))
        if kept is not None:
            here.checkpoint.write_bytes(kept)
        found, steps = _part(here, workload, device, until=time.monotonic() + seconds)
        if found is None:
            return Piece(ended=False, content=here.checkpoint.read_bytes(), steps=steps)
        return Piece(ended=True, content=_written(found), steps=steps)


def keep_piece(job: Job, piece: Piece) -> SeedRun | None:
    """Writes what a piece has come to into the job's folder; its result where it has ended."""
    job.folder.mkdir(parents=True, exist_ok=True)
    if not piece.ended:
        write_atomically(job.checkpoint, piece.content)
        return None
    found = _read(piece.content)
    _keep(job, found)
    return found


def _keep(job: Job, found: SeedRun) -> None:
    """Writes a result; one that a rival has ended depends on that, and is told to the study."""
    if found.ended_at is None:
        write_atomically(job.place, _written(found))
    job.checkpoint.unlink(missing_ok=True)


def _part(
    job: Job, workload: Workload, device: str, *, until: float = math.inf
) -> tuple[SeedRun | None, int]:
    """The result, None where time was up and a checkpoint is left, and the steps taken."""
    if job.place.exists():
        return read_seed_run(job.place), 0
    job.folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    run = Run(job.method, half(workload, job.split), job.seed, steps=job.steps, device=device)
    if job.checkpoint.exists():
        run.resume(job.checkpoint)
    before = run.step
    ended_at = _advanced(run, job, until)
    if ended_at is None and not run.done:
        run.save(job.checkpoint)
        return None, run.step - before
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
    _keep(job, found)
    return found, run.step - before


def _advanced(run: Run, job: Job, until: float) -> int | None:
    """Steps to the end, until time is up, or to where the rival is clearly better: that step."""
    looks = {max(round(share * job.steps), 1): index for index, share in enumerate(LOOKS)}
    ended_at: int | None = None

    def stop(_: None) -> bool:
        nonlocal ended_at
        if job.rival is not None and run.step in looks:
            ahead = windowed(run.curve.loss) - windowed(job.rival.losses[: run.step])
            if ahead > job.rival.margins[looks[run.step]]:
                ended_at = run.step
        return ended_at is not None or time.monotonic() >= until

    step_on(run, save=partial(run.save, job.checkpoint), stop=stop)
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
        return _read(path.read_bytes())
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path}: no run of a seed: {error}; delete it to run it again") from error


def _written(found: SeedRun) -> bytes:
    return json.dumps(asdict(found)).encode()


def _read(content: bytes) -> SeedRun:
    fields = json.loads(content)
    return SeedRun(**{**fields, "losses": tuple(fields["losses"])})
