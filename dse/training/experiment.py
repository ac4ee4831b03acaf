"""Runs of several methods and seeds in one folder, in pieces that go on from each other."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import torch

from dse import __version__
from dse.errors import RunError
from dse.explore.measure.workers import check_room
from dse.files import write_atomically
from dse.training.checkpoint import step_on
from dse.training.method import Method
from dse.training.room import check_device, run_bytes
from dse.training.run import Outcome, Run, outcome_of
from dse.training.workers.piece import Piece
from dse.training.workers.together import run_together
from dse.training.workloads.workload import Workload

FORMAT = 1
"""Version of the folder."""
MANIFEST, METHOD = "training.json", "method.json"
CHECKPOINT, RESULT = "safetensors", "json"
"""Suffixes of a seed's file while it runs and when it has ended."""


class Listener(Protocol):
    """Takes the progress of an experiment."""

    def __call__(self, done: int, total: int, note: str) -> None:
        """Steps that are done, of how many, and the run in progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """Methods that are compared on one workload, seed by seed."""

    folder: Path
    workload: Workload
    methods: Mapping[str, Method]
    seeds: int
    steps: int
    rate_factor: float = 1.0
    """Multiple of the learning rate of each method."""
    device: str = "cpu"
    """The device of torch's that models and data are on."""

    def runs(self) -> Iterator[tuple[str, int]]:
        """Every method and seed: all methods of a seed before the next one."""
        for seed in range(self.seeds):
            yield from ((name, seed) for name in self.methods)


def open_folder(experiment: Experiment, *, workers: int = 1, on_ray: bool = False) -> None:
    """Makes the folder, or checks that it holds runs that these can be compared with.

    Args:
        experiment: Nothing is written where it cannot run.
        workers: Processes of this machine that will run it.
        on_ray: Whether machines of a cluster will instead.

    Raises:
        RunError: a folder of something else, or of another workload, data, length or method; a
            GPU that torch has not; more workers than there is memory for.
    """
    _check_workers(experiment, 1 if on_ray else workers)
    if not on_ray:
        check_device(experiment.device)
    manifest: dict[str, object] = {
        "format": FORMAT,
        "workload": experiment.workload.name,
        "data": experiment.workload.origin,
        "steps": experiment.steps,
    }
    if experiment.rate_factor != 1:
        manifest["rate_factor"] = experiment.rate_factor
    path = experiment.folder / MANIFEST
    if path.exists():
        _same(_read(path), manifest, path)
    else:
        if experiment.folder.exists() and any(experiment.folder.iterdir()):
            raise RunError(f"{experiment.folder}: holds something else; take another --out")
        experiment.folder.mkdir(parents=True, exist_ok=True)
        versions = {"dse": __version__, "torch": torch.__version__}
        write_atomically(path, json.dumps({**manifest, "versions": versions}, indent=1))
    for name, method in experiment.methods.items():
        kept = {"digest": digest(method), "method": asdict(method)}
        place = experiment.folder / name / METHOD
        if place.exists():
            if _read(place).get("digest") != kept["digest"]:
                raise RunError(
                    f"{place}: method {name!r} was another one when it was run; take another "
                    "--out, or delete the folder"
                )
        else:
            place.parent.mkdir(exist_ok=True)
            write_atomically(place, json.dumps(kept, indent=1))


def _check_workers(experiment: Experiment, workers: int) -> None:
    """Holds what processes will take against what the machine has.

    Raises:
        RunError: more workers than there is memory for.
    """
    ended = outcomes(experiment)
    left = [name for name, seed in experiment.runs() if (name, seed) not in ended]
    count = min(workers, len(left))
    if count > 1:
        methods = [experiment.methods[name] for name in dict.fromkeys(left)]
        each = run_bytes(experiment.workload, methods, device=experiment.device)
        check_room(count, each)


def digest(method: Method) -> str:
    """16 hex digits that are the same for equal methods."""
    text = json.dumps(asdict(method), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def outcomes(experiment: Experiment) -> dict[tuple[str, int], Outcome]:
    """The runs that have ended so far."""
    places = {key: _place(experiment, *key, RESULT) for key in experiment.runs()}
    return {key: outcome_of(_read(path)) for key, path in places.items() if path.exists()}


def advance(
    experiment: Experiment,
    *,
    listener: Listener | None = None,
    until: float | None = None,
    workers: int | None = None,
    on_ray: bool = False,
) -> bool:
    """Runs what is left; whether everything has ended.

    Args:
        experiment: Its folder is open.
        listener: Told of the progress.
        until: Time of `time.monotonic` at which a piece stops, with a checkpoint.
        workers: What runs methods and seeds side by side; None: this process alone, or a task
            for each place of the cluster.
        on_ray: Tasks on a Ray cluster, no processes here.

    Raises:
        RunError: a worker died, or there is no cluster.
    """
    ended = outcomes(experiment)
    left = [key for key in experiment.runs() if key not in ended]
    total = experiment.steps * len(list(experiment.runs()))
    done = experiment.steps * len(ended)

    def told(
        step: int, before: int = done, note: str = "tasks" if on_ray else f"{workers} workers"
    ) -> None:
        if listener is not None:
            listener(min(before + step, total), total, note)

    if on_ray and left:
        from dse.training.workers import ray_tasks  # noqa: PLC0415 (an extra)

        train = partial(train_piece, experiment)
        on_gpu = experiment.device != "cpu"
        with ray_tasks.tasks(train, count=workers, on_gpu=on_gpu) as tasks:
            return tasks.run(
                left,
                checkpoint=partial(_checkpoint, experiment),
                keep=partial(_keep, experiment),
                title=lambda key: f"seed {key[1]} of {key[0]!r}",
                told=told,
                until=until,
            )
    if workers is not None and workers > 1 and len(left) > 1:
        job, count = partial(finish, experiment), min(workers, len(left))
        return run_together(job, left, workers=count, told=told, until=until)
    for name, seed in left:
        note = f"{name}, seed {seed}"
        one = partial(told, before=done, note=note)
        if not finish(experiment, name, seed, told=one, until=until):
            return False
        done += experiment.steps
    return True


def finish(
    experiment: Experiment,
    name: str,
    seed: int,
    *,
    told: Callable[[int], None],
    until: float | None = None,
) -> bool:
    """Runs one method and seed from where it was left; whether it has ended.

    Args:
        experiment: Its folder is open.
        name: Of the method.
        seed: Of model and data.
        told: Called with the step after each one.
        until: As in `advance`.
    """
    run = Run(
        experiment.methods[name],
        experiment.workload,
        seed,
        steps=experiment.steps,
        rate_factor=experiment.rate_factor,
        device=experiment.device,
    )
    kept = _place(experiment, name, seed, CHECKPOINT)
    if kept.exists():
        run.resume(kept)
    if not _finish(run, kept, told, until):
        return False
    result = json.dumps(run.outcome().as_dict())
    write_atomically(_place(experiment, name, seed, RESULT), result)
    kept.unlink(missing_ok=True)
    return True


def train_piece(
    experiment: Experiment, key: tuple[str, int], kept: bytes | None, seconds: float
) -> Piece:
    """Trains a piece of a run in a folder that is gone then, on whatever machine.

    Args:
        experiment: Its own folder is not touched.
        key: Name of the method, and seed.
        kept: The checkpoint to go on from.
        seconds: After which the piece stops; it takes one step at least.
    """
    steps = 0

    def told(_: int) -> None:
        nonlocal steps
        steps += 1

    with TemporaryDirectory() as scratch:
        here = replace(experiment, folder=Path(scratch))
        place = _place(here, *key, CHECKPOINT)
        place.parent.mkdir()
        if kept is not None:
            place.write_bytes(kept)
        ended = finish(here, *key, told=told, until=time.monotonic() + seconds)
        made = _place(here, *key, RESULT) if ended else place
        return Piece(ended=ended, content=made.read_bytes(), steps=steps)


def _checkpoint(experiment: Experiment, key: tuple[str, int]) -> bytes | None:
    path = _place(experiment, *key, CHECKPOINT)
    return path.read_bytes() if path.exists() else None


def _keep(experiment: Experiment, key: tuple[str, int], piece: Piece) -> None:
    """Writes what a piece has come to."""
    checkpoint = _place(experiment, *key, CHECKPOINT)
    if piece.ended:
        write_atomically(_place(experiment, *key, RESULT), piece.content)
        checkpoint.unlink(missing_ok=True)
    else:
        write_atomically(checkpoint, piece.content)


def _finish(run: Run, kept: Path, told: Callable[[int], None], until: float | None) -> bool:
    """Steps to the end of a run, or to that of the piece: False, with a checkpoint."""

    def stop(_: None) -> bool:
        told(run.step)
        return until is not None and time.monotonic() >= until

    if step_on(run, save=partial(run.save, kept), stop=stop):
        return True
    run.save(kept)
    return False


def _place(experiment: Experiment, name: str, seed: int, suffix: str) -> Path:
    return experiment.folder / name / f"seed-{seed}.{suffix}"


def _read(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read: {error}; delete it to run it again") from error
    if not isinstance(found, dict):
        raise RunError(f"{path}: expected a JSON object, got {type(found).__name__}")
    return found


def _same(kept: Mapping[str, object], wanted: Mapping[str, object], path: Path) -> None:
    for key, value in wanted.items():
        if kept.get(key) != value:
            raise RunError(
                f"{path}: {key}: the runs there have {kept.get(key)!r}, these would have "
                f"{value!r}; take another --out"
            )
