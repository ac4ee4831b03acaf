"""`dse search` of a space of training methods: from its file to a finished run folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy
import optuna
import torch

import dse
from dse.errors import RunError, SpaceError, StorageError, WriteError
from dse.execute.memory import available_bytes
from dse.explore.measure.workers import check_room
from dse.explore.problem.progress import Progress, Status, silent
from dse.explore.run import default_folder
from dse.explore.study.storage import translated
from dse.explore.study.study import locked
from dse.run import files
from dse.run.folder import begin_folder, check_own
from dse.run.manifest import Status as RunStatus
from dse.run.training_run import (
    KIND,
    TrainingManifest,
    is_training_run,
    read_training_manifest,
    write_training_manifest,
)
from dse.space.relocate import located_target
from dse.training.load import method_name
from dse.training.room import check_device, run_bytes
from dse.training.search.cost import StepPrices, open_prices
from dse.training.search.load import load_training_space, problem_of_space, training_space
from dse.training.search.loop import MethodSearch
from dse.training.search.points import MethodProblem
from dse.training.search.pool import Places, pool_of
from dse.training.search.schema import TrainingSpace
from dse.training.search.split import seeds_of
from dse.training.search.write import write_found
from dse.training.workloads.catalogue import workload as opened_workload
from dse.training.workloads.workload import Workload

MOST_WORKERS = 8
"""Processes that are started where nobody says how many."""
LOCAL = Places()
EXTENDED = ("trials", "report_seeds", "contenders", "ablations")
"""Effort that may change when a run is continued."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodOverrides:
    """The command line's changes of a space; None means as the file says."""

    trials: int | None = None
    seed: int | None = None
    target: str | None = None
    quick: bool = False


def run_training_search(
    source: str | None,
    *,
    overrides: MethodOverrides | None = None,
    out: Path | None = None,
    resume: bool = False,
    places: Places = LOCAL,
    progress: Progress = silent,
) -> Path:
    """Search a space of training methods; the folder of the finished run.

    Args:
        source: A space file; None continues the run in `out` with its own space.
        overrides: Changes of the space.
        out: The run folder; `runs/<space>-<time>` by default.
        resume: Continue the run in `out`.
        places: Processes or tasks that train, with one thread each. By default as many processes
            as there are cores and memory for, at most `MOST_WORKERS`, and one for a GPU; tasks as
            many as the cluster has CPUs or GPUs. How many there are does not change what is found,
            other processors may.
        progress: Told of every step.

    Raises:
        DseError, HardwareError: something in the input is wrong.
        KeyboardInterrupt: passed on once the manifest says so; the run can be resumed.
    """
    # Optuna announces every study through its own handler.
    logging.getLogger("optuna").setLevel(logging.WARNING)
    progress(Status(stage="setup"))
    space, origin, folder = _source(source, out if resume else None)
    if source is not None:
        space = overridden(space, overrides or MethodOverrides())
    problem = problem_of_space(space, origin=origin, folder=folder)
    workload = opened_workload(space.workload.name)
    prices = open_prices(
        space.cost, space.target.device, space.target.runtime, origin=origin, folder=folder
    )
    out = out or default_folder(origin)
    steps = space.workload.steps or workload.steps
    manifest = _manifest(problem, prices, workload, steps, compute=places.device)
    places = placed(workload, places)
    _open_folder(out, manifest, resume=resume)
    with locked(out), translated(str(out)):
        write_training_manifest(out, manifest)
        with pool_of(workload, places) as pool:
            search = MethodSearch(
                problem=problem, prices=prices, steps=steps, folder=out, pool=pool,
                progress=progress,
            )  # fmt: skip
            try:
                found = search.run()
            except (KeyboardInterrupt, StorageError, WriteError, RunError):
                with suppress(WriteError):
                    write_training_manifest(out, _ended(manifest, search, "interrupted"))
                raise
        progress(Status(stage="write"))
        write_found(out, manifest, problem, found)
        write_training_manifest(out, _ended(manifest, search, "complete"))
    return out


def placed(workload: Workload, places: Places) -> Places:
    """The places, with as many processes here as cores and memory have room for.

    Raises:
        RunError: more are wanted than there is memory for; a GPU that torch has not.
    """
    if places.on_ray:
        return places  # machines whose room is not known here
    check_device(places.device)
    wanted = places.count
    if wanted is None and places.device != "cpu":
        wanted = 1
    if wanted == 1:
        return replace(places, count=1)  # never refused: the network is not made for it
    each = run_bytes(workload, (), device=places.device)
    if wanted is None:
        fitting = max(available_bytes() // each, 1)
        return replace(places, count=min(len(os.sched_getaffinity(0)), MOST_WORKERS, fitting))
    check_room(wanted, each)
    return places


def overridden(space: TrainingSpace, overrides: MethodOverrides) -> TrainingSpace:
    """The space with what the command line changes.

    Raises:
        DeviceError: a target of another form.
    """
    if overrides.quick:
        space = space.quickened()
    given = {"trials": overrides.trials, "seed": overrides.seed}
    said = {key: value for key, value in given.items() if value is not None}
    changes: dict[str, object] = {"search": space.search.model_copy(update=said)}
    if overrides.target is not None:
        target = type(space.target).model_validate(overrides.target)
        changes["target"] = located_target(target, Path())
    return space.model_copy(update=changes)


def _source(source: str | None, run: Path | None) -> tuple[TrainingSpace, str, Path]:
    """The space, its name in errors, and the folder that its paths are relative to."""
    if source is not None:
        path = Path(source)
        space = load_training_space(path)
        target = located_target(space.target, path.parent)
        return space.model_copy(update={"target": target}), source, path.parent
    if run is None:
        raise SpaceError("give a space to search, or the run to continue")
    manifest = read_training_manifest(run)
    content = {"question": manifest.question, **manifest.space}
    origin = manifest.space_file
    return training_space(content, origin=origin), origin, Path(origin).parent


def _manifest(
    problem: MethodProblem, prices: StepPrices, workload: Workload, steps: int, *, compute: str
) -> TrainingManifest:
    space, effort = problem.space, problem.space.search
    parameters = sum(one.numel() for one in workload.model(0).parameters())
    return TrainingManifest(
        format=files.FORMAT,
        kind=KIND,  # type: ignore[arg-type]
        dse=dse.__version__,
        versions={
            "torch": torch.__version__, "optuna": optuna.__version__, "numpy": numpy.__version__,
        },
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        status="running",
        question=space.question,
        space_file=problem.origin,
        space=space.model_dump(mode="json"),
        workload=workload.name,
        data=workload.origin,
        steps=steps,
        compute=compute,
        parameters=parameters,
        search_seeds=seeds_of("search", effort.seeds),
        report_seeds=seeds_of("report", effort.report_seeds),
        cost_model=space.cost.model,
        dims=space.cost.dims,
        target=space.target.label,
        device=prices.platform.device.name,
        runtime=prices.platform.runtime.name,
        objectives=space.objectives,
        start=method_name(space.start),
        named=tuple(problem.named),
        variables=problem.options,
        remarks=tuple(prices.work.notes),
    )  # fmt: skip


def _open_folder(folder: Path, manifest: TrainingManifest, *, resume: bool) -> None:
    """Creates the folder, or checks that its run can be continued.

    Raises:
        RunError: a run is there and `resume` is false, or none is; or it is another one's.
    """
    if not resume:
        begin_folder(folder)
        return
    if not (folder / files.MANIFEST).is_file() or not is_training_run(folder):
        raise RunError(f"--resume: {folder}: no search over training methods is there")
    check_own(folder)
    known = read_training_manifest(folder)
    if other := _mismatch(known, manifest):
        raise RunError(f"{folder}: cannot be resumed: {other}; choose another --out")


def _mismatch(known: TrainingManifest, now: TrainingManifest) -> str:
    """The first difference that makes two runs different searches."""
    for key in ("dse", "data", "steps", "compute", "space"):
        before, after = getattr(known, key), getattr(now, key)
        if key == "space":
            before, after = _fixed(before), _fixed(after)
        if before != after:
            return f"its {key} differs from the one given now"
    return ""


def _fixed(space: Mapping[str, object]) -> Mapping[str, object]:
    """The part of a space that makes runs comparable, as this version writes it.

    What follows the trials may be extended, and `quick` has been applied.
    """
    content = TrainingSpace.model_validate(space).model_dump(mode="json", exclude={"quick"})
    search = {key: value for key, value in content["search"].items() if key not in EXTENDED}
    return {**content, "search": search}


def _ended(
    manifest: TrainingManifest, search: MethodSearch, status: RunStatus
) -> TrainingManifest:
    return manifest.model_copy(
        update={"status": status, "runs": search.runs, "elapsed_s": dict(search.elapsed_s)}
    )
