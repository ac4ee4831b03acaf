"""The main job: sensitivity -> solver -> uniforms and solutions measured -> sampler -> report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import TrialState

from dse.explore import folder as run_folder
from dse.explore.decision import contenders, decide
from dse.explore.history import dominated_share, reference_point
from dse.explore.measure import measure_report, measure_trial, records_of, trial_macs
from dse.explore.plan import plan
from dse.explore.progress import Progress, Stage, Status, silent
from dse.explore.records import Record
from dse.explore.sampler import FrontSampler, named_sampler
from dse.explore.session import Session
from dse.explore.study import enqueue, locked, open_study, trial_point
from dse.explore.surrogate import Surrogate
from dse.explore.write import write_manifest, write_results
from dse.files import write_atomically
from dse.sensitivity.score import score
from dse.sensitivity.table import Sensitivity, finite
from dse.space.problem import Point, Problem

SENSITIVITY_MACS = "sensitivity_macs"
ATTEMPTS_PER_TRIAL = 20
"""A sampler that only repeats measured points is given up after this many tries a trial."""


def run(
    session: Session, out: Path, *, resume: bool = False, progress: Progress = silent
) -> tuple[Record, ...]:
    """Run a search to its end in a run folder, or continue one.

    Returns:
        The front, sorted by the first cost objective.

    Raises:
        RunError: the folder exists, belongs to another space or model, or is in use.
        KeyboardInterrupt: passed on once the manifest says so; the run can be resumed.
    """
    run_folder.open_folder(out, identity(session), resume=resume)
    with locked(out):
        write_manifest(out, session, identity(session), status="running")
        try:
            return _run(session, out, progress)
        except KeyboardInterrupt:
            write_manifest(out, session, identity(session), status="interrupted")
            raise


def identity(session: Session) -> Mapping[str, object]:
    """What two runs must share for one to continue the other."""
    return {
        "space": session.space.model_dump(mode="json"),
        "model_digest": session.model.graph.digest,
    }


def feasibility(session: Session, records: Sequence[Record]) -> np.ndarray:
    """Mask of the records that satisfy every constraint."""
    rows = [{**record.costs, "quality_loss": record.search.loss} for record in records]
    return np.array(
        [all(constraint.holds(row) for constraint in session.constraints) for row in rows],
        dtype=bool,
    )


def _run(session: Session, out: Path, progress: Progress) -> tuple[Record, ...]:
    with _stage(session, "sensitivity", progress):
        session.stage_macs["reference"] = session.evaluator.forward_macs("search")
        sensitivity, spent = _sensitivity(session, out, progress)
    prior = Surrogate(losses=finite(sensitivity.losses(session.problem)))
    study = open_study(out, ["quality_loss", *session.objectives.costs], _sampler(session, prior))
    if spent:
        study.set_user_attr(SENSITIVITY_MACS, spent)
    session.stage_macs["sensitivity"] = int(study.user_attrs.get(SENSITIVITY_MACS, 0))
    with _stage(session, "trials", progress):
        _trials(session, study, prior, progress)
    with _stage(session, "report", progress):
        records = _decide(session, study, progress)
    session.stage_macs.update(trial_macs(study))
    chosen = decide(records, session.objectives, feasible=feasibility(session, records))
    front = tuple(records[index] for index in chosen)
    write_results(out, session, records, front)
    write_manifest(out, session, identity(session), status="complete", records=records)
    return front


@contextmanager
def _stage(session: Session, stage: Stage, progress: Progress) -> Iterator[None]:
    progress(Status(stage=stage))
    before = time.monotonic()
    yield
    session.stage_seconds[stage] = time.monotonic() - before


def _sensitivity(session: Session, out: Path, progress: Progress) -> tuple[Sensitivity, int]:
    """The table of the run folder if there is one, else measured now; and the MACs that took."""
    path = out / run_folder.SENSITIVITY
    if path.exists():
        return Sensitivity.read(path), 0
    evaluator, search = session.evaluator, session.space.search
    before = evaluator.macs
    table = score(
        evaluator,
        session.problem,
        search.sensitivity,
        samples=search.sensitivity_samples,
        seed=search.seed,
        progress=lambda done, total: progress(Status(stage="sensitivity", done=done, total=total)),
    )
    write_atomically(path, table.to_csv())
    return table, evaluator.macs - before


def _sampler(session: Session, prior: Surrogate) -> optuna.samplers.BaseSampler:
    search = session.space.search
    if search.sampler != "front":
        return named_sampler(search.sampler, search.seed)
    columns = session.objectives.costs
    return FrontSampler(
        session.problem,
        prior,
        lambda points: session.costs.totals(points, columns),
        session.additive,
        seed=search.seed,
    )


def _trials(session: Session, study: optuna.Study, prior: Surrogate, progress: Progress) -> None:
    """Measure until the study has as many trials as asked for, or the space is spent."""
    search, problem = session.space.search, session.problem
    planned = plan(
        problem, prior, session.additive, session.budgets,
        trials=search.trials, budgets=search.solver_budgets,
    )  # fmt: skip
    names = {point: name for name, point in problem.uniforms.items()}
    enqueue(study, problem, planned, names=names)
    known = _settled(study, problem)
    total = min(max(search.trials, len(planned)), problem.size)
    for _ in range(ATTEMPTS_PER_TRIAL * total):
        _show(study, progress, len(known), total)
        if len(known) >= total:
            return
        trial = study.ask()
        # NSGA-II puts a trial into a generation only when its relative parameters are read.
        _ = trial.relative_params
        point = _suggested(trial, problem)
        if point in known:
            study.tell(trial, state=TrialState.PRUNED)
            continue
        measure_trial(session, study, trial, point)
        known.add(point)


def _suggested(trial: optuna.Trial, problem: Problem) -> Point:
    names = {
        variable.name: trial.suggest_categorical(
            variable.name, [choice.name for choice in variable.choices]
        )
        for variable in problem.variables
    }
    return problem.point(names)


def _settled(study: optuna.Study, problem: Problem) -> set[Point]:
    """Points that need no further trial: complete, or failed for a reason of their own."""
    return {
        trial_point(trial, problem)
        for trial in study.get_trials(deepcopy=False)
        if trial.state == TrialState.COMPLETE
        or (trial.state == TrialState.FAIL and "error" in trial.user_attrs)
    }


def _decide(session: Session, study: optuna.Study, progress: Progress) -> list[Record]:
    """Measure the contenders on the report split; what an earlier run measured is kept."""
    records = records_of(session, study)
    chosen = contenders(records, session.objectives, feasible=feasibility(session, records))
    for done, index in enumerate(chosen):
        progress(Status(stage="report", done=done, total=len(chosen)))
        if records[index].report is None:
            measure_report(session, study, records[index])
    progress(Status(stage="report", done=len(chosen), total=len(chosen)))
    return records_of(session, study)


def _show(study: optuna.Study, progress: Progress, done: int, total: int) -> None:
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    values = np.array([trial.values for trial in trials])
    reference = reference_point(values, [trial.user_attrs["source"] for trial in trials])
    share = None if reference is None else dominated_share(values, reference)
    progress(Status(stage="trials", done=done, total=total, hypervolume=share))
