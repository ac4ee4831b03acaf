"""The main job: sensitivity -> solver -> uniforms and solutions measured -> sampler -> report."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import TrialState

import dse
from dse.errors import RunError, StorageError, WriteError
from dse.explore.manifest import write_manifest
from dse.explore.measure.parallelism import Scale
from dse.explore.measure.participant import Peer, taking_part
from dse.explore.measure.pruning import Pruner, pruned_of
from dse.explore.measure.records import (
    failures_of,
    measure_report,
    records_of,
    reported,
    stage_macs,
    trial_macs,
)
from dse.explore.measure.scores import sensitivity_macs, sensitivity_table
from dse.explore.measure.trials import Trials
from dse.explore.problem.design import Design
from dse.explore.problem.feasible import check_measured, satisfied
from dse.explore.problem.first_trials import plan
from dse.explore.problem.history import dominated_share, reference_point
from dse.explore.problem.progress import Progress, Stage, Status, silent
from dse.explore.problem.records import Record
from dse.explore.problem.selection import contenders, decide
from dse.explore.problem.session import Session
from dse.explore.solve.surrogate import Surrogate
from dse.explore.study.heartbeat import Pulse
from dse.explore.study.outside import corrections, told_of
from dse.explore.study.sampler import FrontSampler, named_sampler
from dse.explore.study.storage import lasting, shared
from dse.explore.study.study import (
    enqueue,
    locked,
)
from dse.explore.write import write_pruned, write_results
from dse.run import folder as run_folder
from dse.sensitivity.table import finite


def run(
    session: Session,
    out: Path,
    *,
    resume: bool = False,
    scale: Scale | None = None,
    progress: Progress = silent,
) -> tuple[Record, ...]:
    """Run a search to its end in a run folder, or continue one.

    Args:
        session: what is searched.
        out: the run folder.
        resume: continue the run that is there.
        scale: who takes part; this process alone by default.
        progress: told of every step.

    Returns:
        The front, sorted by the first cost objective.

    Raises:
        RunError: the folder or the study exists, belongs to another version, space or model, or
            is in use; every trial failed.
        StorageError: the study's storage, or the disk, is not there any more.
        KeyboardInterrupt: passed on once the manifest says so; the run can be resumed.
    """
    scale = scale or Scale()
    scale.check()
    where = scale.storage
    with shared(where, silence_s=scale.silence_s) if where else nullcontext() as storage:
        known = {
            **identity(session),
            "storage": lasting(where) if where else None,
            "study": scale.title(session.origin),
        }
        run_folder.open_folder(out, known, resume=resume)
        with locked(out):
            write_manifest(out, session, known, status="running")
            try:
                with taking_part(
                    session, out, scale, storage, identity=identity(session), resume=resume
                ) as peer:
                    records, front = _run(session, out, peer, progress)
            except (KeyboardInterrupt, StorageError, WriteError) as error:
                with suppress(WriteError):
                    write_manifest(out, session, known, status="interrupted")
                if isinstance(error, KeyboardInterrupt):
                    raise
                raise type(error)(
                    f"{error}\nwhat is done is kept; go on with --out {out} --resume"
                ) from error
            write_manifest(out, session, known, status="complete", records=records)
    check_measured(session.constraints, records)
    return front


def identity(session: Design) -> Mapping[str, object]:
    """What two runs must share for one to continue the other, or to take part in it."""
    return {
        "dse": dse.__version__,
        "model_digest": session.model.graph.digest,
        "space": session.space.model_dump(mode="json"),
    }


def feasibility(session: Session, records: Sequence[Record]) -> np.ndarray:
    """Mask of the records that satisfy every constraint."""
    return satisfied(session.constraints, records)


def _run(
    session: Session, out: Path, peer: Peer, progress: Progress
) -> tuple[list[Record], tuple[Record, ...]]:
    """All records, and the front."""
    study = peer.study
    with _stage(session, "sensitivity", progress):
        forward = session.evaluator.forward_macs("search")
        session.stage_macs["calibration"] = session.evaluator.weights.macs
        session.stage_macs["reference"] = forward * peer.executor.replicas
        sensitivity = sensitivity_table(
            session,
            out,
            study,
            peer.executor,
            peer=peer.name,
            shared=peer.storage is not None,
            progress=lambda done, total: progress(
                Status(stage="sensitivity", done=done, total=total)
            ),
        )
    prior = Surrogate(losses=finite(sensitivity.losses(session.problem)))
    session.corrections = corrections(session, told_of(study.user_attrs, session.problem))
    study.sampler = _sampler(session, prior)
    session.stage_macs["sensitivity"] = sensitivity_macs(study)
    with _stage(session, "trials", progress):
        _trials(session, peer, prior, progress)
    with _stage(session, "report", progress):
        records = _decide(session, peer, progress)
    session.stage_macs.update(stage_macs(study))
    session.trial_macs.update(trial_macs(study))
    failures = failures_of(study)
    if not records:
        first = next(iter(failures.values()), "none was measured")
        raise RunError(f"all of {len(failures)} trials failed; the first: {first}")
    chosen = decide(records, session.objectives, feasible=feasibility(session, records))
    front = tuple(records[index] for index in chosen)
    write_results(out, session, records, front)
    run_folder.write_failures(out, failures)
    write_pruned(out, session, pruned_of(session, study))
    return records, front


@contextmanager
def _stage(session: Session, stage: Stage, progress: Progress) -> Iterator[None]:
    progress(Status(stage=stage))
    before = time.monotonic()
    yield
    session.stage_seconds[stage] = time.monotonic() - before


def _sampler(session: Session, prior: Surrogate) -> optuna.samplers.BaseSampler:
    search = session.space.search
    if search.sampler != "front":
        return named_sampler(search.sampler, search.seed)
    return FrontSampler(
        session.problem,
        prior,
        session.objective_costs,
        session.additive,
        seed=search.seed,
        fronts=session.objectives.split,
        allowed=session.allowed,
    )


def _trials(session: Session, peer: Peer, prior: Surrogate, progress: Progress) -> None:
    """Measure until the study has as many trials as asked for, or the space is spent."""
    search, problem = session.space.search, session.problem
    planned = plan(
        problem, prior, session.additive, session.budgets,
        trials=search.trials, budgets=search.solver_budgets,
    )  # fmt: skip
    names = {point: name for name, point in problem.uniforms.items()}
    enqueue(peer.study, problem, planned, names=names)
    total = min(max(search.trials, len(planned)), problem.size)
    pulse = None
    if peer.storage is not None:
        pulse = Pulse(peer.study, peer.storage, silence_s=peer.silence_s)
    pruner = Pruner(session, peer.study, search.prune_at) if search.prune_at else None
    trials = Trials(
        session, peer.study, peer.executor, total, pruner=pruner, pulse=pulse, peer=peer.name
    )
    with pulse.beating() if pulse is not None else nullcontext():
        trials.run(lambda done: _show(peer.study, progress, done, total))


def _decide(session: Session, peer: Peer, progress: Progress) -> list[Record]:
    """Measure the contenders on the report split; what another run or process measured is kept.

    Where several processes do this at once, each takes them in another order.
    """
    records = records_of(session, peer.study)
    chosen = contenders(records, session.objectives, feasible=feasibility(session, records))
    if peer.storage is not None:
        random.Random(peer.name).shuffle(chosen)
    while missing := [i for i in chosen if not reported(peer.study, records[i])]:
        progress(Status(stage="report", done=len(chosen) - len(missing), total=len(chosen)))
        batch = [records[index] for index in missing[: peer.executor.slots]]
        measure_report(session, peer.study, peer.executor, batch)
    progress(Status(stage="report", done=len(chosen), total=len(chosen)))
    return records_of(session, peer.study)


def _show(study: optuna.Study, progress: Progress, done: int, total: int) -> None:
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    values = np.array([trial.values for trial in trials])
    reference = reference_point(values, [trial.user_attrs["source"] for trial in trials])
    share = None if reference is None else dominated_share(values, reference)
    progress(Status(stage="trials", done=done, total=total, hypervolume=share))
