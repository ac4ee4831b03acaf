"""`dse solve`: the best assignment within a budget by its scores alone; nothing is measured."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dse.errors import InfeasibleError, SpaceError
from dse.explore.problem.constraint import is_loss
from dse.explore.problem.design import Design
from dse.explore.problem.proxy_scores import scores_from_proxy
from dse.explore.restore import restored_to_read
from dse.explore.solve.solver import optimum
from dse.explore.solve.surrogate import Surrogate
from dse.sensitivity.table import Sensitivity, finite
from dse.space.constraint import Constraint
from dse.space.problem import Point, Problem

GAP = 1e-3
"""Between the loss of a solution and the least that any could have, as a share of it."""
ROUNDS = 20
"""Solutions that couplings put over a budget are solved again, with less, so often."""
TOLERANCE = 1e-6
"""Excess of a limit that the solver's own tolerance can make."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """The assignment of least predicted loss within the constraints."""

    point: Point
    digest: str
    loss: float
    """Predicted: scores added up."""
    bound: float | None
    """No assignment within the constraints is predicted to lose less; None where the tables
    couple regions in a way that the solver's sums do not bound."""
    costs: Mapping[str, float]
    """Every column, couplings included."""
    seconds: float
    """Of solving; opening and pricing the model come before."""

    @property
    def gap(self) -> float | None:
        """Distance of loss and bound, as a share of the loss."""
        if self.bound is None:
            return None
        return max(0.0, self.loss - self.bound) / self.loss if self.loss else 0.0


def solve(design: Design, surrogate: Surrogate, *, gap: float = GAP) -> Solution:
    """The assignment of least predicted loss that satisfies the constraints on cost.

    The knapsack is solved with what choices add to costs; its solution is priced with all
    couplings. Sums count what regions share in equal parts and conversions between neighbours as
    if they agreed, so never more than it costs: what no sum allows, no assignment does, and the
    loss of the first solution bounds all. One that costs more than its sum is solved again with
    a budget that is smaller by the excess.

    Args:
        design: what is searched, with at least one constraint on cost.
        surrogate: losses of choices.
        gap: between loss and bound that is near enough.

    Raises:
        SpaceError: no constraint on a cost that adds up.
        InfeasibleError: no assignment was found that satisfies them all.
    """
    started = time.perf_counter()
    added = [one for one in _priced(design) if design.costs.is_additive(one.column)]
    budgets = list(design.budgets)
    if not budgets:
        raise SpaceError(
            f"{design.origin}: nothing limits a cost, and without a limit full precision loses "
            "least; give a constraint, e.g. --constraint 'weight_bytes<=40e9'"
        )
    bound: float | None = None
    for _ in range(ROUNDS):
        found = optimum(surrogate.losses, budgets, gap=gap)
        if found is None:
            break
        bound = found.bound if bound is None else bound
        costs = design.total(found.point)
        excess = [max(0.0, one.excess(costs[one.column])) for one in added]
        if max(excess) <= TOLERANCE:
            losses = dict.fromkeys(design.objectives.losses, _predicted(surrogate, found.point))
            _check(design, {**costs, **losses})
            return Solution(
                point=found.point,
                digest=design.problem.assignment(found.point).digest,
                loss=_predicted(surrogate, found.point),
                bound=bound if _is_relaxed(design, found.point) else None,
                costs=costs,
                seconds=time.perf_counter() - started,
            )
        budgets = [
            replace(one, limit=one.limit - beyond * abs(constraint.limit))
            for one, beyond, constraint in zip(budgets, excess, added, strict=True)
        ]
    raise InfeasibleError(
        f"constraints {', '.join(map(str, added))}: what regions share puts every solution over "
        "a limit; relax the tightest"
    )


def _priced(design: Design) -> list[Constraint]:
    return [one for one in design.constraints if not is_loss(one.column)]


def _predicted(surrogate: Surrogate, point: Point) -> float:
    return float(surrogate.predict(np.array([point]))[0])


def _check(design: Design, values: Mapping[str, float]) -> None:
    """A check of whatever is no sum; it must hold as well."""
    broken = [one for one in design.constraints if one.excess(values[one.column]) > TOLERANCE]
    if broken:
        shown = ", ".join(f"{one.column} {values[one.column]:.4g}" for one in broken)
        raise InfeasibleError(
            f"constraints {', '.join(map(str, broken))}: the assignment of least predicted loss "
            f"within the others has {shown}; relax them"
        )


def _is_relaxed(design: Design, point: Point) -> bool:
    """Whether the solver's sums are no more than costs are.

    With tensor-side Q/DQ a region's cost depends on what its neighbour's format is, and may be
    less than where both choose alike.
    """
    tables = design.costs.targets
    if any(t.deployment.runtime.placement == "tensor" and t.table.has_conversions for t in tables):
        return False
    for one in _priced(design):
        if not design.costs.is_additive(one.column):
            continue
        parts = Surrogate(losses=design.costs.additive(one.column))
        summed = _predicted(parts, point) + design.costs.fixed(one.column)
        exact = design.costs.totals(np.array([point]), [one.column])[0, 0]
        if summed > exact * (1 + TOLERANCE):
            return False
    return True


def surrogate_of(scores: Path, design: Design) -> Surrogate:
    """Losses of a design's choices.

    Args:
        scores: a table as `dse sensitivity -o` writes it (columns variable, choice, loss, stderr,
            samples), of the same variables; or the run folder of a proxy, whose scores, re-fitted
            to what it has measured, are carried over by role and relative depth.
        design: whose choices.

    Raises:
        RunError, SpaceError: the table or the run cannot be used, or lacks a choice.
    """
    if design.varied is not None:
        raise SpaceError(
            f"{design.origin}: hardware: dse solve chooses formats on given hardware; take the "
            "section out, or search the space"
        )
    if scores.is_dir():
        return scores_from_proxy(*_proxy(scores), design.problem)
    return Surrogate(losses=finite(Sensitivity.read(scores).losses(design.problem)))


def _proxy(run: Path) -> tuple[Surrogate, Problem]:
    """The quality surrogate of a run, re-fitted to what it has measured, and its variables."""
    with restored_to_read(run) as past:
        problem, records = past.design.problem.precision, past.records
        width = len(problem.variables)
        scored = Surrogate(losses=past.surrogate.losses[:width])
        if not records:
            return scored, problem
        points = np.array([record.point for record in records])[:, :width]
        losses = [record.search.loss for record in records]
        return scored.refitted(points, losses), problem
