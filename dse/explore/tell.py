"""`dse tell`: measurements made outside into a run, which learns from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import optuna

from dse.bench.folder import partial_files, read_folder
from dse.bench.plan import read_plan
from dse.errors import RunError
from dse.evaluate.quality import Quality
from dse.explore.bench_results import folder_results
from dse.explore.measure.pruning import pruned_of
from dse.explore.measure.records import measured_attributes, objective_values
from dse.explore.problem.design import Design
from dse.explore.problem.feasible import check_measured, satisfied
from dse.explore.problem.records import Record
from dse.explore.problem.selection import front_indices
from dse.explore.propose import proposed
from dse.explore.restore import RestoredRun, restored_to_continue
from dse.explore.results_csv import Result, read_results
from dse.explore.scores import keep_reference, losses_of
from dse.explore.study.outside import (
    ATTRIBUTE,
    USER,
    OutsideMeasurement,
    corrected,
    outside_measurements,
)
from dse.explore.study.study import distributions, locked
from dse.explore.workload import Workload, workload
from dse.explore.write import write_tables
from dse.run.read import read_manifest
from dse.run.write import write_manifest
from dse.space.problem import Point


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """A lesson that measurements made outside have taught a run."""

    told: tuple[Result, ...]
    new: int
    """Trials that were not there before."""
    waiting: int
    """Assignments that were told and are no trials, since nothing says their loss yet."""
    ratios: Mapping[str, float]
    """Cost column -> median of measured over predicted, before the re-fit."""
    front: tuple[Record, ...]
    remarks: tuple[str, ...] = ()
    """Lines on what was measured and not told, and on what scores say of losses."""


def tell(
    run: str | Path, results: str | Path, *, storage: str | None = None, target: str = ""
) -> Update:
    """Take measurements into a run: re-fit what predicts, decide the front again, rewrite tables.

    Args:
        run: a run folder.
        results: a CSV with a column `digest` or `trial`, and any of the loss and cost columns of
            `trials.csv`, see `read_results`; or a folder of what tools wrote, see `read_folder`.
        storage: the URL of a shared study whose manifest hides a password.
        target: of a folder, the target that was measured on; by default the one that the
            proposals were written for, or the run's only one.

    Raises:
        StorageError: a shared study cannot be reached.
        RunError: the run or the results cannot be used; nothing is changed then.
        InfeasibleError: nothing that was measured satisfies the constraints.
    """
    run, results = Path(run), Path(results)
    read_manifest(run)
    with locked(run), restored_to_continue(run, storage) as past:
        before, ended = past.records, pruned_of(past.design, past.study)
        known = {record.digest: record.point for record in before}
        every = {**proposed(past), **{one.digest: one.point for one in ended}, **known}
        remarks: tuple[str, ...] = ()
        if target and not results.is_dir():
            raise RunError(f"--target: the columns of {results} say their targets")
        if results.is_dir():
            told, everything, remarks = _told_by_tools(past, results, every, target)
        else:
            told = read_results(
                results,
                every,
                trials={r.trial: r.digest for r in before} | {p.trial: p.digest for p in ended},
                columns=past.design.costs.columns,
                targets=[target.label for target in past.design.costs.targets],
                apart=past.design.networks.apart,
            )
            everything = _merged(past, told)
        _check_hardware(past.design, told)
        new = {digest: one for digest, one in everything.items() if digest not in known}
        lacking = tuple(_lacking(past.design, new))
        if lacking and not results.is_dir():
            raise RunError("\n".join(lacking))
        for digest, one in everything.items():
            _keep(past, digest, one, new=digest in new)
        design = corrected(past.design, past.study.user_attrs)
        taught = replace(past, design=design)
        records = taught.records
        front = _rewrite(taught, records)
    check_measured(design.constraints, records)
    return Update(
        told=told,
        new=len(records) - len(before),
        waiting=len({one.digest for one in told} - {record.digest for record in records}),
        ratios={column: one.ratio for column, one in design.corrections.items()},
        front=front,
        remarks=(*remarks, *lacking),
    )


def _check_hardware(design: Design, told: Sequence[Result]) -> None:
    """A cost that was measured is that of one chip, and is told by assignment.

    Raises:
        RunError: a cost, where hardware varies.
    """
    if design.varied is None:
        return
    columns = set(design.costs.columns)
    if found := sorted({name for one in told for name in one.values if name in columns}):
        raise RunError(
            f"{', '.join(found)}: hardware varies in this run, and what was measured on one chip "
            "is no cost of the others; tell losses and scores alone"
        )


def _merged(past: RestoredRun, told: Sequence[Result]) -> dict[str, OutsideMeasurement]:
    """Digest -> what is told of it now, over what was told before."""
    nothing = {one.digest: OutsideMeasurement(point=one.point, values={}) for one in told}
    earlier = nothing | outside_measurements(past.study.user_attrs, past.design.problem)
    return {
        one.digest: replace(
            earlier[one.digest], values={**earlier[one.digest].values, **one.values}
        )
        for one in told
    }


def _told_by_tools(
    past: RestoredRun, folder: Path, known: Mapping[str, Point], target: str
) -> tuple[tuple[Result, ...], dict[str, OutsideMeasurement], tuple[str, ...]]:
    """The results in a folder, what is known with them, with losses that scores tell of."""
    measured = read_folder(folder)
    work = _workload(past, folder, target)
    found = folder_results(measured, known, work)
    if not found.results and not found.reference:
        raise RunError("\n".join(found.remarks))
    keep_reference(past, found.reference)
    unended = tuple(f"{file}: was begun and not ended; not told" for file in partial_files(folder))
    everything, remarks = _merged(past, found.results), (*found.remarks, *unended)
    if work is not None and work.loss_prefix:
        # Predicted losses are those of the network that other targets execute.
        return found.results, everything, remarks
    scored = losses_of(past, everything)
    return found.results, {**everything, **scored.told}, (*remarks, *scored.remarks)


def _workload(past: RestoredRun, folder: Path, target: str) -> Workload | None:
    """Sizes and columns of the target that was measured on; None where nothing says which."""
    labels = [one.label for one in past.design.costs.targets]
    planned = "" if target else read_plan(folder).target
    label = target or planned or (labels[0] if len(labels) == 1 else "")
    origin = f"{folder}: was proposed for" if planned else "--target"
    return workload(past.design, label, origin=origin) if label else None


def _keep(past: RestoredRun, digest: str, told: OutsideMeasurement, *, new: bool) -> None:
    """Put what was told into the study; a quality of something new makes a trial."""
    design = past.design
    past.study.set_user_attr(f"{ATTRIBUTE}{digest}", told.to_json(design.problem))
    known = _told_qualities(design, told)
    main = design.networks.measured(told.point).digest
    if not new or main not in known or _missing(design, told):
        return
    quality = known[main]
    others = {network: one for network, one in known.items() if network != main}
    past.study.add_trial(
        optuna.trial.create_trial(
            params=design.problem.named(told.point),
            distributions=dict(distributions(design.problem)),
            values=objective_values(design, told.point, known),
            user_attrs={
                "source": USER,
                "digest": digest,
                "macs": 0,
                **dict(measured_attributes(design, told.point, quality, others)),
            },
        )
    )


def _told_qualities(design: Design, told: OutsideMeasurement) -> dict[str, Quality]:
    """Digest of a network -> the loss on the search split that was told of it."""
    networks = design.networks
    found = {networks.measured(told.point).digest: told.quality()}
    for label, network in networks.elsewhere(told.point, networks.apart).items():
        found[network.digest] = told.quality(label) or found.get(network.digest)
    return {digest: quality for digest, quality in found.items() if quality is not None}


def _missing(design: Design, told: OutsideMeasurement) -> list[str]:
    """The losses of networks that an objective is about and nothing was told of."""
    known = _told_qualities(design, told)
    networks = design.networks.elsewhere(told.point, design.objectives.searched)
    return [
        f"{label}.quality_loss"
        for label, network in networks.items()
        if network.digest not in known
    ]


def _lacking(design: Design, new: Mapping[str, OutsideMeasurement]) -> Iterator[str]:
    """A line for each assignment whose `quality_loss` makes no trial yet, with what it lacks."""
    for digest, told in new.items():
        missing = _missing(design, told)
        if told.quality() is not None and missing:
            yield (
                f"digest {digest}: quality_loss without {', '.join(missing)}: that target "
                "executes another network, and its loss is an objective; give both"
            )


def _rewrite(past: RestoredRun, records: Sequence[Record]) -> tuple[Record, ...]:
    """Decide the front again and write the tables; the manifest keeps what the run has taken."""
    design, manifest = past.design, past.manifest
    feasible = satisfied(design.constraints, records)
    front = tuple(records[i] for i in front_indices(records, design.objectives, feasible=feasible))
    write_tables(past.folder, design, records, front, metric=manifest.metric)
    update = {
        "updated": datetime.now(UTC).isoformat(timespec="seconds"),
        "told": sum(bool(record.measured_outside) for record in records),
    }
    write_manifest(past.folder, manifest.model_copy(update=update))
    return front
