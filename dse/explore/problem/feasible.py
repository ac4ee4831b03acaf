"""Whether constraints can hold at all: which one cannot, how far the nearest assignment is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from dse.errors import InfeasibleError
from dse.evaluate.costs import Costs
from dse.evaluate.target_costs import joined
from dse.explore.problem.constraint import is_loss
from dse.explore.problem.records import LOSS, Record
from dse.explore.solve.solver import Budget, bounded, nearest
from dse.queue import SUSTAINED
from dse.space.constraint import Constraint
from dse.space.problem import Point

TOLERANCE = 1e-6
"""Excess that the solver's own tolerance can make."""


def budget(constraint: Constraint, costs: Costs) -> Budget:
    """A constraint on a cost that adds up, for the solver."""
    sign = -1.0 if constraint.at_least else 1.0
    *parts, fixed = bounded(
        [*costs.additive(constraint.column), np.array([costs.fixed(constraint.column)])]
    )
    return Budget(
        costs=tuple(sign * entries for entries in parts),
        limit=sign * (constraint.limit - float(fixed[0])),
    )


def budgets(constraints: Sequence[Constraint], costs: Costs) -> tuple[Budget, ...]:
    """The constraints on costs that add up, for the solver."""
    return tuple(
        budget(constraint, costs)
        for constraint in constraints
        if not is_loss(constraint.column) and costs.is_additive(constraint.column)
    )


def check_costs(constraints: Sequence[Constraint], costs: Costs) -> None:
    """Constraints on cost must hold alone and together.

    For a column with couplings the least found is that of the solver's choice and the uniforms.

    Raises:
        InfeasibleError: no assignment satisfies them; says which, how far the nearest one is, and
            what to relax.
    """
    priced = [one for one in constraints if not is_loss(one.column)]
    for constraint in priced:
        point = _nearest([constraint], costs)
        found = _values(point, [constraint], costs)[constraint.column]
        if constraint.excess(found) > TOLERANCE:
            extreme = "most" if constraint.at_least else "least"
            raise InfeasibleError(
                f"constraint {constraint}: the {extreme} that any assignment reaches is "
                f"{found:.4g}, {share_beyond(constraint, found)} beyond the limit; relax it to "
                f"{relaxed(constraint, found)}, or offer {_remedy(constraint)}"
            )
    together = [one for one in priced if costs.is_additive(one.column)]
    values = _values(_nearest(together, costs), together, costs) if together else {}
    broken = [one for one in together if one.excess(values[one.column]) > TOLERANCE]
    if broken:
        raise InfeasibleError(
            f"constraints {', '.join(map(str, together))}: each can hold, but no assignment "
            f"satisfies them together; the nearest has {_distances(broken, values)}; relax "
            + " or ".join(relaxed(one, values[one.column]) for one in broken)
        )


def check_load(costs: Costs) -> None:
    """Bounds on a scenario's load must hold for some rate of requests on every target.

    The least found is that of the uniform assignments, and of the choices that write a token
    fastest.

    Raises:
        InfeasibleError: even a request alone is beyond them; says by how much.
    """
    for target in costs.targets:
        bounds = () if target.queue is None else target.queue.bounds
        if not bounds:
            continue
        several = len(costs.targets) > 1
        tpot, rate, *named = joined(
            target, ("tpot_s", SUSTAINED, *(one.column for one in bounds)), several=several
        )
        fastest = _extreme(Constraint(column=tpot, limit=0.0), costs)
        points = np.array([*costs.problem.uniforms.values(), fastest])
        if costs.totals(points, [rate]).any():
            continue
        rows = costs.totals(points, named).tolist()
        excess = [
            sum(max(0.0, one.excess(value)) for one, value in zip(bounds, row, strict=True))
            for row in rows
        ]
        nearest_row = rows[int(np.argmin(excess))]
        found = {one.column: value for one, value in zip(bounds, nearest_row, strict=True)}
        broken = [one for one in bounds if not one.holds(found)] or bounds
        raise InfeasibleError(
            f"scenario.load.bounds: on {target.label} no rate of requests keeps "
            f"{' and '.join(map(str, bounds))}: one request at a time finds "
            f"{_distances(broken, found)}; relax "
            + " and ".join(relaxed(one, found[one.column]) for one in broken)
        )


def check_measured(constraints: Sequence[Constraint], records: Sequence[Record]) -> None:
    """Some measured assignment must satisfy every constraint.

    Raises:
        InfeasibleError: none does; names the nearest one.
    """
    rows = [record_values(record) for record in records]
    if not constraints or not rows or any(all(c.holds(row) for c in constraints) for row in rows):
        return
    sums = [sum(max(0.0, c.excess(row[c.column])) for c in constraints) for row in rows]
    place = int(np.argmin(sums))
    record, values = records[place], rows[place]
    broken = [one for one in constraints if not one.holds(values)]
    name = f" ({record.name})" if record.name else ""
    raise InfeasibleError(
        f"constraints {', '.join(map(str, constraints))}: none of {len(rows)} measured "
        f"assignments satisfies them; the nearest, trial {record.trial}{name}, has "
        f"{_distances(broken, values)}; relax "
        + " and ".join(relaxed(one, values[one.column]) for one in broken)
        + ", or measure more with a larger --trials"
    )


def check_front(front: Sequence[Record], records: Sequence[Record], costs: Sequence[str]) -> None:
    """A front must have a point, where constraints leave any.

    Args:
        front: what is on it.
        records: every measured assignment.
        costs: the cost objectives.

    Raises:
        InfeasibleError: nothing that was measured has finite objectives; says which are infinite.
    """
    if front:
        return
    endless = [
        column
        for column in costs
        if not any(math.isfinite(record.costs[column]) for record in records)
    ]
    why = (
        f"{', '.join(endless)} is infinite for each"
        if endless
        else "each has an infinite cost, or no loss on the report split"
    )
    raise InfeasibleError(
        f"no point on the front: of {len(records)} measured assignments {why}; see trials.csv, "
        "and offer candidates that the target can run (see: dse legal)"
    )


def satisfied(constraints: Sequence[Constraint], records: Sequence[Record]) -> np.ndarray:
    """Mask of the records that satisfy every constraint."""
    rows = [record_values(record) for record in records]
    return np.array([all(one.holds(row) for one in constraints) for row in rows], dtype=bool)


def record_values(record: Record) -> Mapping[str, float]:
    """The values that constraints bound: the losses on the search split and the costs."""
    elsewhere = {
        f"{label}.{LOSS}": found.search.loss
        for label, found in record.elsewhere.items()
        if found.search is not None
    }
    return {**record.costs, LOSS: record.search.loss, **elsewhere}


def _nearest(constraints: Sequence[Constraint], costs: Costs) -> Point:
    """The point with the least sum of excesses, of the solver's and the uniforms."""
    sizes = [len(variable.choices) for variable in costs.problem.variables]
    solved = nearest(sizes, [budget(one, costs) for one in constraints])
    points = [*costs.problem.uniforms.values(), *([solved] if solved else [])]
    extremes = [_extreme(one, costs) for one in constraints]
    points += extremes
    columns = costs.totals(np.array(points), [one.column for one in constraints])
    excess = [
        sum(max(0.0, one.excess(value)) for one, value in zip(constraints, row, strict=True))
        for row in columns.tolist()
    ]
    return points[int(np.argmin(excess))]


def _extreme(constraint: Constraint, costs: Costs) -> Point:
    """Every variable at the choice that adds least to a column, or most where more is better."""
    best = np.argmax if constraint.at_least else np.argmin
    return tuple(int(best(entries)) for entries in costs.additive(constraint.column))


def _values(point: Point, constraints: Sequence[Constraint], costs: Costs) -> Mapping[str, float]:
    columns = [one.column for one in constraints]
    row = costs.totals(np.array([point]), columns)[0].tolist()
    return dict(zip(columns, row, strict=True))


def _distances(constraints: Sequence[Constraint], values: Mapping[str, float]) -> str:
    return " and ".join(
        f"{one.column} {values[one.column]:.4g} ({share_beyond(one, values[one.column])} beyond "
        f"{one.limit:g})"
        for one in constraints
    )


def share_beyond(constraint: Constraint, value: float) -> str:
    """Excess of a value over a limit, in per cent of it."""
    return f"{100 * constraint.excess(value):.3g} %"


def relaxed(constraint: Constraint, value: float) -> str:
    """The constraint with a limit that a value satisfies, rounded to the safe side."""
    if not math.isfinite(value):
        return f"no limit on {constraint.column}"
    digits = 3
    step = 10.0 ** (np.floor(np.log10(abs(value) or 1.0)) - digits)
    rounding = np.floor if constraint.at_least else np.ceil
    return str(replace(constraint, limit=float(rounding(value / step) * step)))


def _remedy(constraint: Constraint) -> str:
    if constraint.at_least:
        return "candidates that the runtime has kernels for (see: dse legal)"
    return "cheaper candidates"
