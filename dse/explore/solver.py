"""The exact side of the search: a multiple-choice knapsack over device cost, solved with HiGHS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, vstack

from dse.explore.silence import silenced
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


def pareto(
    losses: Sequence[np.ndarray], costs: Sequence[np.ndarray], *, limit: int = 256
) -> list[Point]:
    """The points that no other beats in total loss and total cost, from the cheapest.

    Variables are joined one by one and only undominated partial sums are kept, which is exact
    (Nemhauser and Ullmann, Management Science 15(9), 1969) as long as no more than `limit` are
    left; beyond that those kept lie evenly along the front, both extremes included.

    Args:
        losses: one array of choices a variable.
        costs: the same shape.
        limit: how many partial sums are carried along.
    """
    loss, cost = np.zeros(1), np.zeros(1)
    history: list[tuple[np.ndarray, np.ndarray]] = []
    for added_loss, added_cost in zip(losses, costs, strict=True):
        next_loss = (loss[:, None] + added_loss).ravel()
        next_cost = (cost[:, None] + added_cost).ravel()
        kept = _thinned(next_loss, next_cost, limit)
        history.append(divmod(kept, len(added_loss)))
        loss, cost = next_loss[kept], next_cost[kept]
    place = np.arange(len(loss))
    chosen = np.empty((len(loss), len(history)), dtype=np.int64)
    for column in range(len(history) - 1, -1, -1):
        parents, choices = history[column]
        chosen[:, column] = choices[place]
        place = parents[place]
    return [tuple(int(index) for index in row) for row in chosen]


def _thinned(loss: np.ndarray, cost: np.ndarray, limit: int) -> np.ndarray:
    """Indices of at most `limit` undominated pairs, by rising cost and falling loss."""
    order = np.lexsort((loss, cost))
    falling = loss[order]
    best = np.minimum.accumulate(falling)
    front: np.ndarray = order[np.concatenate([[True], falling[1:] < best[:-1]])]
    if len(front) <= limit:
        return front
    steps = np.abs(np.diff(loss[front])) / np.ptp(loss[front])
    steps += np.abs(np.diff(cost[front])) / np.ptp(cost[front])
    along = np.concatenate([[0.0], np.cumsum(steps)])
    places = np.searchsorted(along, np.linspace(0.0, along[-1], limit) * (1 - 1e-12))
    kept: np.ndarray = front[np.unique(places)]
    return kept


def _total(costs: Sequence[np.ndarray], point: Point) -> float:
    return float(sum(entries[index] for entries, index in zip(costs, point, strict=True)))
