"""`dse propose`: the next assignments, to be measured where the real system is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from dse.errors import RunError
from dse.explore.measure.pruning import pruned_of
from dse.explore.problem.design import Design
from dse.explore.problem.hardware import grid_of
from dse.explore.restore import RestoredRun, restored_to_continue
from dse.explore.results_csv import PREDICTED
from dse.explore.study.front_sampler import FrontSampler
from dse.explore.study.outside import OutsideMeasurement, outside_measurements
from dse.explore.study.proposer import SearchTask
from dse.explore.study.study import locked
from dse.graph.assignment_json import to_json
from dse.graph.ir.assignment import Assignment
from dse.run.files import HARDWARE_COLUMN
from dse.run.read import read_manifest
from dse.run.write import write_json, write_table
from dse.space.problem import Point, Problem

PROPOSED = "proposed."
"""Prefix of the study attributes that hold proposals, by digest."""
INDEX = "proposals.csv"
MOST_IN_VAIN = 64
"""Proposals in a row that may come out as what is known already, once they are changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """An assignment worth measuring."""

    point: Point
    digest: str
    file: Path
    losses: Mapping[str, float]
    """Predicted, by column: `quality_loss`, and those of targets with other networks."""
    costs: Mapping[str, float]
    """Predicted, every column."""


class Recipient(Protocol):
    """A taker of proposals that does more than write a file; it may refuse parts of them."""

    def refused(self, assignment: Assignment) -> Mapping[str, str]:
        """Site -> why it is not taken as it is; empty where all of it is."""

    def write(self, proposals: Sequence[Proposal], design: Design) -> None:
        """Write what it makes of proposals.

        Raises:
            DseError: it cannot; nothing is proposed then.
        """


def propose(
    run: str | Path,
    count: int,
    out: str | Path,
    *,
    storage: str | None = None,
    recipient: Recipient | None = None,
) -> tuple[Proposal, ...]:
    """The next assignments to measure, written as assignment files with an index.

    The same choice that a search makes: by predicted hypervolume gain, what was proposed before
    counting as if it came out as predicted. A region whose choice a recipient does not take gets
    the first one of the space that it takes.

    Args:
        run: a run folder.
        count: how many; fewer where the space has no more.
        out: where to: `proposals.csv` and one `<digest>.json` each.
        storage: the URL of a shared study whose manifest hides a password.
        recipient: what else proposals are written for.

    Raises:
        StorageError: a shared study cannot be reached.
        RunError: the run cannot be read, `out` has proposals already, or nothing is left.
        DseError: the recipient takes none, or cannot write them.
    """
    run, out = Path(run), Path(out)
    if (out / INDEX).exists():
        raise RunError(f"{out / INDEX}: exists already; choose another -o")
    read_manifest(run)
    with locked(run), restored_to_continue(run, storage) as past:
        points = _next_points(past, count, recipient)
        if not points:
            raise RunError(f"{run}: every assignment of the space is measured or proposed")
        found = _proposals(past, points, out)
        if recipient is not None:
            recipient.write(found, past.design)
        _write(past, found, out)
        for one in found:
            content = OutsideMeasurement(point=one.point, values={}).to_json(past.design.problem)
            past.study.set_user_attr(f"{PROPOSED}{one.digest}", content)
    return found


def proposed(past: RestoredRun) -> dict[str, Point]:
    """Digest -> point of everything that was proposed so far."""
    found = outside_measurements(past.study.user_attrs, past.design.problem, prefix=PROPOSED)
    return {digest: one.point for digest, one in found.items()}


def _next_points(past: RestoredRun, count: int, recipient: Recipient | None) -> list[Point]:
    """Points that are neither measured nor proposed, the most promising first."""
    design, records = past.design, past.records
    if not records:
        raise RunError(f"{past.folder}: nothing is measured yet; begin with: dse search")
    points = np.array([record.point for record in records])
    losses = design.objectives.search_values(records)[:, : len(design.objectives.losses)]
    values = np.column_stack([losses, design.objective_costs(points)])
    grid = grid_of(design, past.surrogates)
    sampler = FrontSampler(SearchTask.of(design, past.surrogates, grid))
    settled = {one.point for one in pruned_of(design, past.study)}
    as_measured = design.problem.on_start
    measured = {as_measured(one) for one in (*(record.point for record in records), *settled)}
    pending = [one for one in proposed(past).values() if as_measured(one) not in measured]
    left = design.problem.assignments - len(measured) - len(set(pending))
    fitting = None if recipient is None else _Fitting(problem=design.problem, recipient=recipient)
    found: list[Point] = []
    vain = 0
    while len(found) < min(count, left) and vain < MOST_IN_VAIN:
        drawn = sampler.proposal(points, values, pending, settled)
        point = drawn if fitting is None else fitting.fitted(drawn)
        if point is None or as_measured(point) in measured or point in pending:
            if fitting is None:
                break
            settled, vain = {*settled, drawn}, vain + 1
            continue
        found.append(point)
        pending.append(point)
    if not found and fitting is not None and fitting.reasons:
        raise RunError(
            f"{past.folder}: nothing new can be proposed that is taken as it is: "
            + "; ".join(fitting.reasons)
        )
    return found


@dataclass(kw_only=True)
class _Fitting:
    """Points changed to what a recipient takes, with what is known of it so far."""

    problem: Problem
    recipient: Recipient
    forbidden: set[tuple[int, int]] = field(default_factory=set)
    """Variable and choice."""
    reasons: dict[str, None] = field(default_factory=dict)

    def fitted(self, point: Point) -> Point | None:
        """The point with other choices where its own are refused; None where there are none."""
        while True:
            changed = self._allowed(point)
            if changed is None:
                return None
            point = changed
            refused = self.recipient.refused(self.problem.assignment(point))
            if not refused:
                return point
            self.reasons |= dict.fromkeys(refused.values())
            fresh = self._blamed(point, refused) - self.forbidden
            if not fresh:
                return None
            self.forbidden |= fresh

    def _blamed(self, point: Point, refused: Mapping[str, str]) -> set[tuple[int, int]]:
        return {
            (place, point[place])
            for place, variable in enumerate(self.problem.variables)
            if any(site.key in refused for site in variable.every_site)
        }

    def _allowed(self, point: Point) -> Point | None:
        found = []
        for place, (variable, choice) in enumerate(
            zip(self.problem.variables, point, strict=True)
        ):
            wanted = (choice, *range(len(variable.choices)))
            kept = next((c for c in wanted if (place, c) not in self.forbidden), None)
            if kept is None:
                return None
            found.append(kept)
        return tuple(found)


def _proposals(past: RestoredRun, points: Sequence[Point], out: Path) -> tuple[Proposal, ...]:
    design, records = past.design, past.records
    measured = np.array([record.point for record in records])
    values = design.objectives.search_values(records)
    columns = [
        surrogate.refitted(measured, values[:, place]).predict(np.array(points)).tolist()
        for place, surrogate in enumerate(past.surrogates)
    ]
    found = []
    for point, *losses in zip(points, *columns, strict=True):
        digest = design.problem.assignment(point).digest
        found.append(
            Proposal(
                point=point,
                digest=digest,
                file=out / f"{digest}.json",
                losses=dict(zip(design.objectives.losses, losses, strict=True)),
                costs=design.total(point),
            )
        )
    return tuple(found)


def _write(past: RestoredRun, proposals: Sequence[Proposal], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    problem, graph = past.design.problem, past.design.model.graph
    for one in proposals:
        write_json(one.file, to_json(problem.assignment(one.point), graph))
    rows = [
        {
            "digest": one.digest,
            "file": one.file.name,
            **{
                f"{HARDWARE_COLUMN}{name}": value
                for name, value in past.design.hardware_labels(one.point).items()
            },
            **{
                f"{PREDICTED}{column}": value
                for column, value in (*one.losses.items(), *one.costs.items())
            },
        }
        for one in proposals
    ]
    write_table(out / INDEX, rows, list(rows[0]))
