"""The exact side of the search: a multiple-choice knapsack over device cost, solved with HiGHS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, vstack

from dse.search.silence import silenced
from dse.space.problem import Point


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """An upper bound on a cost that adds up over variables."""

    costs: tuple[np.ndarray, ...]
    """One array of choices a variable."""
    limit: float


def solve(losses: Sequence[np.ndarray], budgets: Sequence[Budget]) -> Point | None:
    """The point of least total loss within all budgets, or None where there is none.

    One binary a choice; each variable takes exactly one. Costs are scaled to their budget, since
    HiGHS works with absolute tolerances.
    """
    sizes = [len(entries) for entries in losses]
    objective = np.concatenate(losses)
    one_choice = csr_array(
        (
            np.ones(len(objective)),
            (np.repeat(np.arange(len(sizes)), sizes), np.arange(len(objective))),
        )
    )
    rows = [one_choice]
    lower = [np.ones(len(sizes))]
    upper = [np.ones(len(sizes))]
    for budget in budgets:
        scale = abs(budget.limit) or 1.0
        rows.append(csr_array(np.concatenate(budget.costs)[None, :] / scale))
        lower.append(np.array([-np.inf]))
        upper.append(np.array([budget.limit / scale]))
    with silenced():
        result = milp(
            objective / max(float(np.abs(objective).max()), np.finfo(float).tiny),
            integrality=np.ones(len(objective)),
            bounds=Bounds(0, 1),
            constraints=LinearConstraint(
                vstack(rows), np.concatenate(lower), np.concatenate(upper)
            ),
            options={"mip_rel_gap": 1e-4, "time_limit": 60.0},
        )
    if result.x is None:
        return None
    edges = np.cumsum(sizes)[:-1]
    return tuple(int(np.argmax(part)) for part in np.split(result.x, edges))


def sweep(
    losses: Sequence[np.ndarray],
    costs: Sequence[np.ndarray],
    count: int,
    *,
    constraints: Sequence[Budget] = (),
) -> list[Point]:
    """Solutions at evenly spaced budgets of one cost, from the cheapest to the least loss.

    Args:
        losses: one array of choices a variable.
        costs: the same shape.
        count: how many budgets.
        constraints: budgets that hold at every one of them.
    """
    richest = solve(losses, constraints)
    cheapest = solve(costs, constraints)
    if richest is None or cheapest is None:
        return []
    low, high = (_total(costs, point) for point in (cheapest, richest))
    points = {richest: None, cheapest: None}
    for limit in np.linspace(low, high, count):
        # Room for the rounding of a sum over hundreds of terms.
        budget = Budget(costs=tuple(costs), limit=float(limit) + 1e-9 * abs(high))
        point = solve(losses, [*constraints, budget])
        if point is not None:
            points[point] = None
    return list(points)


def _total(costs: Sequence[np.ndarray], point: Point) -> float:
    return float(sum(entries[index] for entries, index in zip(costs, point, strict=True)))
