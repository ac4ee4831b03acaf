"""What is searched, priced and constrained: everything of a search but the measuring."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dse.errors import InfeasibleError, SpaceError, nearest
from dse.evaluate.costs import Costs, build_costs
from dse.explore.constraint import QUALITY, Constraint, parse_constraints
from dse.explore.objectives import Objectives
from dse.explore.solver import Budget, solve
from dse.graph.regions import regions
from dse.model import Model, open_model
from dse.space.build import build_problem
from dse.space.problem import Problem
from dse.space.schema import Space


@dataclass(kw_only=True)
class Design:
    """A space with its model, decision variables and cost tables."""

    space: Space
    origin: str
    """What errors call the space: its file."""
    folder: Path
    """What the space's relative paths are relative to."""
    model: Model
    cost_model: Model | None
    problem: Problem
    costs: Costs
    objectives: Objectives
    constraints: tuple[Constraint, ...]

    @property
    def additive(self) -> tuple[tuple[np.ndarray, ...], ...]:
        """Of each cost objective, what the choices add: one array a variable."""
        return tuple(self.costs.additive(column) for column in self.objectives.costs)

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """The constraints on costs that add up, for the solver."""
        return tuple(
            Budget(
                costs=self.costs.additive(constraint.column),
                limit=constraint.limit - self.costs.fixed(constraint.column),
            )
            for constraint in self.constraints
            if constraint.column != QUALITY and self.costs.is_additive(constraint.column)
        )


def open_design(space: Space, *, origin: str, folder: Path) -> Design:
    """The model, variables and cost tables that a space names; no data are read.

    Args:
        space: the space.
        origin: what errors call it.
        folder: what its relative paths are relative to.

    Raises:
        DseError, HardwareError: whatever in the space or the model cannot be used.
        InfeasibleError: no assignment satisfies the constraints on cost.
    """
    model = open_model(space.model, folder=folder)
    found = regions(model.graph)
    problem = build_problem(space, found, origin=origin)
    cost_model = open_model(space.cost_model, folder=folder) if space.cost_model else None
    costs = build_costs(
        space, problem, found, (cost_model or model).graph, origin=origin, folder=folder
    )
    objectives = _objectives(space, costs, origin)
    constraints = parse_constraints(space.constraints, costs.bounded_columns, origin=origin)
    _check_feasible(constraints, costs)
    return Design(
        space=space,
        origin=origin,
        folder=folder,
        model=model,
        cost_model=cost_model,
        problem=problem,
        costs=costs,
        objectives=objectives,
        constraints=constraints,
    )


def _objectives(space: Space, costs: Costs, origin: str) -> Objectives:
    first, *others = space.objectives
    if first != QUALITY:
        raise SpaceError(f"{origin}: objectives.0: expected {QUALITY!r}, got {first!r}")
    for number, column in enumerate(others, start=1):
        if column not in costs.bounded_columns:
            raise SpaceError(
                f"{origin}: objectives.{number}: unknown column {column!r}"
                f"{nearest(column, costs.bounded_columns)} "
                f"(known: {', '.join(costs.bounded_columns)})"
            )
    return Objectives(costs=tuple(others))


def _check_feasible(constraints: tuple[Constraint, ...], costs: Costs) -> None:
    """Each constraint on cost alone must have an assignment that satisfies it.

    For a column with couplings the least found is that of the solver's choice and the uniforms.
    """
    uniforms = list(costs.problem.uniforms.values())
    for constraint in constraints:
        if constraint.column == QUALITY:
            continue
        cheapest = solve(costs.additive(constraint.column), ())
        points = np.array([*uniforms, *([cheapest] if cheapest else [])])
        least = float(costs.totals(points, [constraint.column]).min())
        if least > constraint.limit:
            raise InfeasibleError(
                f"constraint {constraint}: the least that any assignment reaches is {least:.4g}; "
                f"raise the limit to at least that, or offer cheaper candidates"
            )
