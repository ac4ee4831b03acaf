"""The main job: sensitivity -> solver -> uniforms and solutions measured -> sampler -> report."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import TrialState

import dse
from dse.errors import RunError, StorageError, WriteError
from dse.explore.manifest import session_manifest
from dse.explore.measure.on_hardware import near_front, on_all_hardware
from dse.explore.measure.parallelism import Parallelism
from dse.explore.measure.participant import Participant, taking_part
from dse.explore.measure.pruning import BASELINE, Pruner, pruned_of
from dse.explore.measure.records import (
    Wanted,
    failures_of,
    measure_report,
    records_of,
    stage_macs,
    trial_macs,
    unreported,
)
from dse.explore.measure.scores import sensitivity_macs, sensitivity_table
from dse.explore.measure.session import Effort, Session
from dse.explore.measure.trials import Trials
from dse.explore.problem.design import Design
from dse.explore.problem.feasible import check_front, check_measured, satisfied
from dse.explore.problem.first_trials import planned_on_grid, planned_points
from dse.explore.problem.hardware import Grid, grid_of
from dse.explore.problem.history import dominated_share, reference_point
from dse.explore.problem.progress import Progress, Stage, Status, silent
from dse.explore.problem.records import Record
from dse.explore.problem.selection import contenders, front_indices
from dse.explore.shadow_prices import hardware_answer
from dse.explore.solve.surrogate import Surrogate
from dse.explore.study.heartbeat import Heartbeat
from dse.explore.study.outside import corrected
from dse.explore.study.storage import lasting, shared
from dse.explore.study.study import enqueue, locked
from dse.explore.write import write_pruned, write_results
from dse.run.files import resume_command
from dse.run.folder import continued, open_folder
from dse.run.manifest import Status as RunStatus
from dse.run.write import write_failures, write_hardware, write_manifest
from dse.space.problem import Point
from dse.zoo.split import digest_of

LOGGER = logging.getLogger(__name__)


def run(
    session: Session,
    out: Path,
    *,
    resume: bool = False,
    parallelism: Parallelism | None = None,
    progress: Progress = silent,
) -> tuple[Record, ...]:
    """Run a search to its end in a run folder, or continue one.

    Args:
        session: what is searched.
        out: the run folder.
        resume: continue the run that is there.
        parallelism: who takes part; this process alone by default.
        progress: told of every step.

    Returns:
        The front, sorted by the first cost objective.

    Raises:
        RunError: the folder or the study exists, belongs to another version, space or model, or
            is in use; every trial failed.
        StorageError: the study's storage, or the disk, is not there any more.
        KeyboardInterrupt: passed on once the manifest says so; the run can be resumed.
    """
    parallelism = parallelism or Parallelism()
    if resume:
        parallelism = parallelism.resumed(out, continued(out))
    parallelism.check()
    design, effort, where = session.design, Effort(), parallelism.storage
    with shared(where, silence_s=parallelism.silence_s) if where else nullcontext() as storage:
        ours = {
            **identity(design),
            "data_digest": digest_of(session.evaluator.splits.arrays),
        }
        known = {
            **ours,
            "storage": lasting(where) if where else None,
            "study": parallelism.title(design.origin),
        }
        open_folder(out, known, resume=resume)

        def state(status: RunStatus, records: Sequence[Record] = ()) -> None:
            manifest = session_manifest(
                session, out, effort, known, status=status, records=records
            )
            write_manifest(out, manifest)

        with locked(out):
            state("running")
            try:
                with taking_part(
                    session, out, parallelism, storage, identity=ours, resume=resume
                ) as participant:
                    records, front = _run(session, effort, out, participant, progress)
            except (KeyboardInterrupt, StorageError, WriteError) as error:
                with suppress(WriteError):
                    state("interrupted")
                if isinstance(error, KeyboardInterrupt):
                    raise
                command = resume_command(out, *parallelism.options)
                raise type(error)(
                    f"{error}\nwhat is done is kept; go on with: {command}"
                ) from error
            state("complete", records)
    check_measured(design.constraints, records)
    check_front(front, records, design.objectives.costs)
    return front


def identity(design: Design) -> Mapping[str, object]:
    """The facts that two runs must share for one to continue the other, or to take part in it."""
    return {
        "dse": dse.__version__,
        "model_digest": design.model.graph.digest,
        "space": design.space.model_dump(mode="json"),
    }


def feasibility(design: Design, records: Sequence[Record]) -> np.ndarray:
    """Mask of the records that satisfy every constraint."""
    return satisfied(design.constraints, records)


def _run(
    session: Session, effort: Effort, out: Path, participant: Participant, progress: Progress
) -> tuple[list[Record], tuple[Record, ...]]:
    """All records, and the front."""
    study = participant.study
    with _stage(effort, "sensitivity", progress):
        surrogates = _surrogates(session, effort, out, participant, progress)
    session = replace(session, design=corrected(session.design, study.user_attrs))
    effort.stage_macs["sensitivity"] = sensitivity_macs(study)
    varies = session.design.varied is not None
    with _stage(effort, "hardware", progress) if varies else nullcontext():
        grid = grid_of(session.design, surrogates)
    with _stage(effort, "trials", progress):
        _trials(session, participant, surrogates, grid, progress)
    with _stage(effort, "report", progress):
        records = _decide(session.design, participant, grid, progress)
    effort.stage_macs.update(stage_macs(study))
    effort.trial_macs.update(trial_macs(study))
    front = _written(session, out, study, records)
    if grid is not None and front:
        write_hardware(out, hardware_answer(session.design, grid, surrogates, records, front))
    return records, front


def _surrogates(
    session: Session, effort: Effort, out: Path, participant: Participant, progress: Progress
) -> tuple[Surrogate, ...]:
    """Losses of every choice alone, measured now or before: of each loss that is an objective."""
    forward = session.evaluator.forward_macs("search")
    effort.stage_macs["calibration"] = session.evaluator.weights.macs
    if session.ranges.losses:
        effort.stage_macs["ranges"] = session.ranges.macs
    effort.stage_macs["reference"] = forward * participant.executor.replicas
    table = sensitivity_table(
        session,
        out,
        participant.study,
        participant.executor,
        participant=participant.name,
        shared=participant.storage is not None,
        progress=lambda done, total: progress(Status(stage="sensitivity", done=done, total=total)),
    )
    return session.design.losses(table)


def _written(
    session: Session, out: Path, study: optuna.Study, records: Sequence[Record]
) -> tuple[Record, ...]:
    """The front, written with everything else that the run folder says of its trials."""
    failures = failures_of(study)
    if not records:
        first = next(iter(failures.values()), "none was measured")
        raise RunError(f"all of {len(failures)} trials failed; the first: {first}")
    design = session.design
    feasible = feasibility(design, records)
    chosen = front_indices(records, design.objectives, feasible=feasible)
    front = tuple(records[index] for index in chosen)
    write_results(out, session, records, front)
    write_failures(out, failures)
    write_pruned(out, design, pruned_of(design, study))
    return front


@contextmanager
def _stage(effort: Effort, stage: Stage, progress: Progress) -> Iterator[None]:
    progress(Status(stage=stage))
    before = time.monotonic()
    yield
    effort.stage_seconds[stage] = time.monotonic() - before


def _trials(
    session: Session,
    participant: Participant,
    surrogates: Sequence[Surrogate],
    grid: Grid | None,
    progress: Progress,
) -> None:
    """Measure until the study has as many trials as asked for, or the space is spent."""
    design, study = session.design, participant.study
    search, problem = design.space.search, design.problem
    planned = _planned(design, surrogates, grid)
    uniforms = {point: name for name, point in problem.uniforms.items()}
    names = {
        point: uniforms[problem.on_start(point)]
        for point, source in planned.items()
        if source == "uniform"
    }
    enqueue(study, problem, planned, names=names)
    heartbeat = None
    if participant.storage is not None:
        heartbeat = Heartbeat(study, participant.storage, silence_s=participant.silence_s)
    trials = Trials(
        design,
        study,
        session.proposer(surrogates, grid),
        participant.executor,
        min(max(search.trials, len(planned)), problem.assignments),
        pruner=_pruner(session, study),
        heartbeat=heartbeat,
        participant=participant.name,
    )
    with heartbeat.beating() if heartbeat is not None else nullcontext():
        trials.run(lambda done, total: _show(study, progress, done, total))


def _pruner(session: Session, study: optuna.Study) -> Pruner | None:
    """Who ends trials after a first look; nobody where one trial is about several networks."""
    share = session.design.space.search.prune_at
    if share and session.design.objectives.searched:
        LOGGER.warning(
            "search.prune_at is not used: the objectives are of targets that execute different "
            "networks (%s)", ", ".join(session.design.objectives.losses)
        )  # fmt: skip
        return None
    return Pruner(session, study, share) if share else None


def _planned(
    design: Design, surrogates: Sequence[Surrogate], grid: Grid | None
) -> Mapping[Point, str]:
    """Assignments that are measured before any method speaks, with their source.

    Without solutions that some target cannot run: the solver sees limits, not infinities.
    """
    search, objectives = design.space.search, design.objectives
    if grid is not None:
        return planned_on_grid(design.problem, surrogates, grid, trials=search.trials)
    planned = planned_points(
        design.problem, [surrogates[objectives.place(column)] for column in objectives.costs],
        design.additive, design.budgets,
        trials=search.trials, budgets=search.solver_budgets,
    )  # fmt: skip
    costs = design.objective_costs(np.array(list(planned)))
    runs = np.isfinite(costs).all(axis=1).tolist()
    return {
        point: source
        for (point, source), running in zip(planned.items(), runs, strict=True)
        if running or source == "uniform"
    }


def _decide(
    design: Design, participant: Participant, grid: Grid | None, progress: Progress
) -> list[Record]:
    """Measure the contenders on the report split; what another run or process measured is kept.

    First what the objectives are about, then what other targets execute in place of the front's
    points and of the uniforms, which stand beside their costs in every table. Where hardware
    varies, what was measured is told of all hardware on which it is on the front.
    """
    records = records_of(design, participant.study)
    chosen = _contenders(design, records, grid)
    wanted = [
        (records[index].trial, network)
        for index in _neighbouring(records, chosen)
        for network in design.searched(records[index].point)
    ]
    _report(wanted, participant, progress)
    records = records_of(design, participant.study)
    if grid is not None:
        records = on_all_hardware(design, participant.study, grid)
    _report(beside(design, records), participant, progress)
    return records_of(design, participant.study)


def _contenders(design: Design, records: Sequence[Record], grid: Grid | None) -> list[int]:
    """Records that the report split decides on; where hardware varies, on any of it."""
    objectives = design.objectives
    if grid is None:
        return contenders(records, objectives, feasible=feasibility(design, records))
    return sorted(
        {
            index
            for priced in near_front(design, grid, records)
            for index in contenders(
                priced, objectives, feasible=satisfied(design.constraints, priced)
            )
        }
    )


def _report(wanted: Sequence[Wanted], participant: Participant, progress: Progress) -> None:
    """Measure networks on the report split, in this order.

    Where several processes do this at once, each takes them in another one.
    """
    wanted, study = list(wanted), participant.study
    if participant.storage is not None:
        random.Random(participant.name).shuffle(wanted)
    total = len({network.digest for _, network in wanted})
    while missing := unreported(study, wanted):
        progress(Status(stage="report", done=total - len(missing), total=total))
        measure_report(study, participant.executor, missing[: participant.executor.slots])
    if total:
        progress(Status(stage="report", done=total, total=total))


def beside(design: Design, records: Sequence[Record]) -> list[Wanted]:
    """The networks of targets without an objective, in place of the front and the uniforms."""
    front = front_indices(records, design.objectives, feasible=feasibility(design, records))
    uniform = [index for index, record in enumerate(records) if record.source in BASELINE]
    return [
        (records[index].trial, network)
        for index in _neighbouring(records, {*front, *uniform})
        for network in design.networks.elsewhere(
            records[index].point, design.networks.apart
        ).values()
    ]


def _neighbouring(records: Sequence[Record], chosen: Iterable[int]) -> list[int]:
    """Records in the order of their points: neighbours share most of what a network computes."""
    return sorted(chosen, key=lambda index: (records[index].point, index))


def _show(study: optuna.Study, progress: Progress, done: int, total: int) -> None:
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    values = np.array([trial.values for trial in trials])
    reference = reference_point(values, [trial.user_attrs["source"] for trial in trials])
    share = None if reference is None else dominated_share(values, reference)
    progress(Status(stage="trials", done=done, total=total, hypervolume=share))
