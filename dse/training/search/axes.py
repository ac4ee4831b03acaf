"""Single axes: each turned alone from the start, combined, and turned back from what was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dse.run.training_run import AxisChange
from dse.training.search.cost import StepPrice
from dse.training.search.gaps import Runs, gap
from dse.training.search.points import Choices, MethodProblem, Point
from dse.training.search.records import Record

ALONE, COMBINED = "alone", "combined"
"""Sources of trials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turned:
    """A method with an axis turned."""

    runs: Runs
    price: StepPrice


def alone(problem: MethodProblem) -> Iterator[tuple[str, str, Point]]:
    """Every other option of every variable, alone on the start: variable, option, point."""
    start = problem.start.choices
    for name, options in problem.options.items():
        for option in options:
            if option != start[name]:
                yield name, option, problem.point({**start, name: option})


def sensitivity(problem: MethodProblem, records: Sequence[Record]) -> list[AxisChange]:
    """The effect of every axis alone, on the search's seeds; those that cannot be turned say why.

    What `quick.fixed` leaves out has no row.
    """
    known = {one.point.digest: one for one in records}
    base = known.get(problem.start.digest)
    if base is None:
        return []
    found = []
    for name, option, point in alone(problem):
        refusal = problem.refusal(point)
        turned = known.get(point.digest)
        before = problem.start.choices[name]
        if refusal or point.digest == problem.start.digest:
            reason = refusal or "changes nothing here"
            found.append(_refused(base, name, before, option, reason))
        elif turned is not None and turned.rival is None:
            there = Turned(runs=turned.runs, price=turned.price)
            found.append(_change(base, base.runs, there, (name, before, option)))
    return found


def combinations(
    problem: MethodProblem, changes: Sequence[AxisChange], bases: Sequence[Point]
) -> list[Point]:
    """Axes that lost less alone, taken together on each base.

    Of every variable the option with the smallest loss; once those whose interval is below zero,
    once all whose mean is, each kept where the method is one with it.
    """
    best: dict[str, AxisChange] = {}
    for change in sorted(changes, key=lambda one: one.mean or 0.0):
        if change.mean is not None and change.mean < 0 and not change.diverged:
            best.setdefault(change.variable, change)
    sure = {name: one for name, one in best.items() if one.is_resolved}
    found = []
    for base in bases:
        for taken in (sure, best):
            point = _together(problem, base, taken)
            if point.digest != base.digest:
                found.append(point)
    return found


def _together(problem: MethodProblem, base: Point, taken: Mapping[str, AxisChange]) -> Point:
    point = base
    for name, change in taken.items():
        if base.choices[name] != change.before:
            continue  # the base differs from the start there already
        wider = problem.point({**point.choices, name: change.after})
        if not problem.refusal(wider):
            point = wider
    return point


def turned_back(problem: MethodProblem, point: Point) -> Iterator[tuple[str, Point]]:
    """The axes in which a point differs from the start, each turned back alone."""
    start: Choices = problem.start.choices
    for name, option in point.choices.items():
        if option != start[name]:
            yield name, problem.point({**point.choices, name: start[name]})


def ablation(
    problem: MethodProblem, record: Record, turned: Mapping[str, Turned]
) -> list[AxisChange]:
    """The effect of turning single axes of a method back, on the report's seeds.

    Args:
        problem: The space.
        record: The method, on the report's seeds.
        turned: The turned methods by digest.
    """
    assert record.report_runs is not None, "what is on the front was reported"
    found = []
    for name, point in turned_back(problem, record.point):
        before, after = record.point.choices[name], problem.start.choices[name]
        refusal = problem.refusal(point)
        if refusal or point.digest == record.point.digest:
            reason = refusal or "changes nothing here"
            found.append(_refused(record, name, before, after, reason))
        elif point.digest in turned:
            axis = (name, before, after)
            found.append(_change(record, record.report_runs, turned[point.digest], axis))
    return found


def _refused(base: Record, name: str, before: str, after: str, reason: str) -> AxisChange:
    return AxisChange(base=base.trial, variable=name, before=before, after=after, refused=reason)


def _change(
    base: Record, base_runs: Runs, turned: Turned, axis: tuple[str, str, str]
) -> AxisChange:
    found = gap(turned.runs, base_runs)
    interval = found.interval
    name, before, after = axis
    return AxisChange(
        base=base.trial,
        variable=name,
        before=before,
        after=after,
        mean=found.mean,
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
        pairs=len(found.pairs),
        diverged=found.diverged,
        step_ratio=turned.price.step_s / base.price.step_s,
        memory_ratio=turned.price.memory_bytes / base.price.memory_bytes,
    )
