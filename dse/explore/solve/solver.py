"""The exact side of the search: a multiple-choice knapsack over device cost, solved with HiGHS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from dse.explore.solve.stdout import without_stdout
from dse.space.problem import Point

GAP = 1e-4
"""Relative gap to the optimum at which HiGHS stops."""
TIME_LIMIT_S = 60.0
MANY = 100
"""Variables beyond which a front is followed along its convex hull only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """An upper bound on a cost that adds up over variables."""

    costs: tuple[np.ndarray, ...]
    """One array of choices a variable."""
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimum:
    """A solution, and how good any could be."""

    point: Point
    bound: float
    """No point has a smaller objective."""


def bounded(tables: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Costs as numbers that a solver takes: what is infinite is far more than all that is not.

    A choice that a device has no way to run costs infinitely much; one that differs from another
    infinite one by no number differs by nothing.
    """
    largest = max((float(np.abs(x[np.isfinite(x)]).max(initial=0.0)) for x in tables), default=0.0)
    far = 1e3 * (largest or 1.0)
    return tuple(np.nan_to_num(x, nan=0.0, posinf=far, neginf=-far) for x in tables)


def solve(losses: Sequence[np.ndarray], budgets: Sequence[Budget]) -> Point | None:
    """The point of least total loss within all budgets, or None where there is none."""
    found = optimum(losses, budgets)
    return None if found is None else found.point


def optimum(
    losses: Sequence[np.ndarray], budgets: Sequence[Budget], *, gap: float = GAP
) -> Optimum | None:
    """The point of least total loss within all budgets, with a bound on that loss.

    Args:
        losses: one array of choices a variable.
        budgets: what must hold.
        gap: between loss and bound, as a share of the loss, that is near enough.
    """
    objective = np.concatenate(losses)
    largest = max(float(np.abs(objective).max()), np.finfo(float).tiny)
    sizes = [len(entries) for entries in losses]
    found = _optimum(sizes, objective / largest, budgets, np.zeros((len(budgets), 0)), gap)
    return None if found is None else Optimum(point=found.point, bound=found.bound * largest)


def nearest(sizes: Sequence[int], budgets: Sequence[Budget]) -> Point | None:
    """The point that exceeds its budgets least: excesses as shares of the limits, summed.

    Args:
        sizes: choices of each variable.
        budgets: what should hold.
    """
    excess = np.eye(len(budgets))
    objective = np.concatenate([np.zeros(sum(sizes)), np.ones(len(budgets))])
    found = _optimum(sizes, objective, budgets, -excess, GAP)
    return None if found is None else found.point


def _optimum(
    sizes: Sequence[int],
    objective: np.ndarray,
    budgets: Sequence[Budget],
    continuous: np.ndarray,
    gap: float,
) -> Optimum | None:
    """The point of least objective; one binary a choice, each variable takes exactly one.

    Costs are scaled to their budget, since HiGHS works with absolute tolerances.

    Args:
        sizes: choices of each variable.
        objective: of the choices, then of the further variables.
        budgets: what must hold.
        continuous: (budgets, further variables) coefficients of variables that are not negative.
        gap: relative to the objective, that is near enough.
    """
    binaries, further = sum(sizes), continuous.shape[1]
    one_choice = csr_array(
        (
            np.ones(binaries),
            (np.repeat(np.arange(len(sizes)), sizes), np.arange(binaries)),
        ),
        shape=(len(sizes), binaries + further),
    )
    constraints = [LinearConstraint(one_choice, 1.0, 1.0)]
    for budget, coefficients in zip(budgets, continuous, strict=True):
        scale = abs(budget.limit) or 1.0
        row = np.concatenate([*(entries / scale for entries in budget.costs), coefficients])
        constraints.append(LinearConstraint(row[None, :], -np.inf, budget.limit / scale))
    with without_stdout():
        result = milp(
            objective,
            integrality=np.repeat([1, 0], [binaries, further]),
            bounds=Bounds(0, np.repeat([1.0, np.inf], [binaries, further])),
            constraints=constraints,
            options={"mip_rel_gap": gap, "time_limit": TIME_LIMIT_S},
        )
    if result.x is None:
        return None
    edges = np.cumsum(sizes)[:-1]
    point = tuple(int(np.argmax(part)) for part in np.split(result.x[:binaries], edges))
    return Optimum(point=point, bound=float(result.mip_dual_bound))


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
) -> np.ndarray:
    """The points that no other beats in total loss and total cost, from the cheapest.

    Variables are joined one by one and only undominated partial sums are kept, which is exact
    (Nemhauser and Ullmann, Management Science 15(9), 1969) as long as no more than `limit` are
    left; beyond that those kept lie evenly along the front, both extremes included. With more
    than `MANY` variables only the convex hull of the front is followed, which then is dense.

    Args:
        losses: one array of choices a variable.
        costs: the same shape.
        limit: how many partial sums are carried along, and how many points come back.

    Returns:
        (points, variables) choice indices.
    """
    if len(losses) > MANY:
        return _hull(losses, costs, limit)
    loss, cost = np.zeros(1), np.zeros(1)
    # A partial sum that another beats stays beaten whatever follows, since what follows is added
    # to both: so dropping it is exact. All that is kept of it is whom it came from, as an index;
    # walking back from the last sums gives the points without ever holding one while joining.
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
    return chosen


def _hull(losses: Sequence[np.ndarray], costs: Sequence[np.ndarray], limit: int) -> np.ndarray:
    """At most `limit` points of the front's convex hull, evenly, from the cheapest.

    From the cheapest choices on, the step that takes most loss off for its cost comes first
    (Sinha and Zoltners, Operations Research 27(3), 1979); within a variable the steps of its
    convex hull come in this order by themselves.
    """
    loss, cost = _padded(losses), _padded(costs)
    # Of equally cheap choices the one of least loss.
    cheapest = np.where(cost == cost.min(axis=1, keepdims=True), loss, np.inf)
    point = np.argmin(cheapest, axis=1)
    variables, choices = _steepest_steps(loss, cost, point)
    wanted = np.unique(np.linspace(0, len(variables), limit).round().astype(np.int64))
    found = np.empty((len(wanted), len(loss)), dtype=np.int64)
    taken = 0
    for row, count in enumerate(wanted.tolist()):
        # Of several steps of one variable the last stays.
        point[variables[taken:count]] = choices[taken:count]
        found[row], taken = point, count
    return found


def _steepest_steps(
    loss: np.ndarray, cost: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Steps along every variable's convex hull, the one that takes off most loss for cost first.

    Args:
        loss: (variables, choices).
        cost: the same shape.
        start: (variables,) the choices to begin with.

    Returns:
        The variable of each step and the choice that it goes to.
    """
    every, here = np.arange(len(loss)), start.copy()
    steps = [np.zeros((3, 0))]
    while True:
        lost, paid = loss - loss[every, here][:, None], cost - cost[every, here][:, None]
        slopes = np.divide(lost, paid, out=np.zeros_like(lost), where=(lost < 0) & (paid > 0))
        chosen, steepest = np.argmin(slopes, axis=1), slopes.min(axis=1)
        moved = np.flatnonzero(steepest < 0)
        if not moved.size:
            break
        here[moved] = chosen[moved]
        steps.append(np.stack([steepest[moved], moved, chosen[moved]]))
    slope, variable, choice = np.concatenate(steps, axis=1)
    order = np.lexsort((choice, variable, slope))
    return variable[order].astype(np.int64), choice[order].astype(np.int64)


def _padded(tables: Sequence[np.ndarray]) -> np.ndarray:
    """(variables, choices); what a variable does not have is infinite."""
    padded = np.full((len(tables), max(map(len, tables))), np.inf)
    for row, entries in zip(padded, tables, strict=True):
        row[: len(entries)] = entries
    return padded


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
