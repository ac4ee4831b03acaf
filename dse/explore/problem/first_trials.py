"""Assignments that are measured before any sampler speaks: uniforms and the solver's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dse.explore.problem.hardware import Grid
from dse.explore.solve.solver import Budget, sweep
from dse.explore.solve.surrogate import Surrogate
from dse.space.problem import Point, Problem

SOLVER_SHARE = 0.25
"""Of the trials that the uniforms leave, how many the solver may fill: its points come from the
prior alone, the sampler's from everything measured so far (studies/search_methods)."""


def planned_points(
    problem: Problem,
    surrogates: Sequence[Surrogate],
    additive: Sequence[Sequence[np.ndarray]],
    constraints: Sequence[Budget],
    *,
    trials: int,
    budgets: int,
) -> Mapping[Point, str]:
    """Points to measure, with their source, in order.

    Every uniform assignment comes first; then solutions of the knapsack, evenly over the budgets
    of each cost objective, as many as fit.

    Args:
        problem: the decision variables.
        surrogates: of each cost objective, the losses of choices where that cost is.
        additive: what each cost objective is made of.
        constraints: on costs that add up.
        trials: how many there will be.
        budgets: solutions of each cost objective.
    """
    planned: dict[Point, str] = dict.fromkeys(problem.uniforms.values(), "uniform")
    solutions: dict[Point, None] = {}
    for surrogate, costs in zip(surrogates, additive, strict=True):
        found = sweep(surrogate.losses, costs, budgets, constraints=constraints)
        solutions.update((point, None) for point in found if point not in planned)
    room = max(0, int((trials - len(planned)) * SOLVER_SHARE + 0.5))
    planned.update((point, "surrogate") for point in _spread(list(solutions), room))
    return planned


def planned_on_grid(
    problem: Problem, surrogates: Sequence[Surrogate], grid: Grid, *, trials: int
) -> Mapping[Point, str]:
    """As `planned_points` where hardware varies, each assignment with hardware that it is best on.

    Solutions lie evenly over the front of hardware and precision together.
    """
    planned: dict[Point, str] = {
        grid.running(point): "uniform" for point in problem.uniforms.values()
    }
    known = {problem.on_start(point) for point in planned}
    solutions: dict[Point, Point] = {}
    for row in grid.predicted(surrogates)[0].tolist():
        solutions.setdefault(problem.on_start(row), tuple(row))
    fresh = [point for same, point in solutions.items() if same not in known]
    room = max(0, int((trials - len(planned)) * SOLVER_SHARE + 0.5))
    planned.update((point, "surrogate") for point in _spread(fresh, room))
    return planned


def _spread(points: list[Point], room: int) -> list[Point]:
    """At most `room` points, evenly over the list."""
    if len(points) <= room:
        return points
    return [points[int(index)] for index in np.linspace(0, len(points) - 1, room).round()]
