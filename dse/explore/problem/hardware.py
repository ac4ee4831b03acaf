"""The hardware side of a search: which hardware is priced, and what assignments are there.

Quality belongs to an assignment and is measured once; a price belongs to an assignment on a
hardware point. Wherever hardware is fixed the exact solver says which formats are best, so that
what is left to sample is hardware alone, and only where its grid is larger than what is priced.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
import optuna

from dse.errors import InfeasibleError
from dse.evaluate.varied_costs import VariedCosts
from dse.explore.problem.constraint import is_loss
from dse.explore.problem.design import Design
from dse.explore.problem.feasible import relaxed, share_beyond
from dse.explore.problem.records import Record
from dse.explore.solve.front import nondominated
from dse.explore.solve.points import encoded
from dse.explore.solve.solver import bounded, pareto
from dse.explore.solve.surrogate import Surrogate
from dse.space.constraint import Constraint
from dse.space.hardware import HardwareSpace
from dse.space.problem import Point

EVENLY = 0.5
"""Share of the hardware points that are spread evenly over a grid with more than are priced."""
ROUNDS = 8
"""The others come in about so many rounds, next to what is on the front so far."""
SOLVED = 48
"""Assignments of the exact front of loss against a cost, on each hardware point."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The hardware points of a search, with every price that was asked for."""

    design: Design
    points: np.ndarray
    """(hardware points, parameters) indices of options."""
    prices: dict[bytes, np.ndarray] = field(default_factory=dict, repr=False, compare=False)
    """Assignment -> (hardware points, columns)."""
    solved: dict[Point, np.ndarray] = field(default_factory=dict, repr=False, compare=False)
    """Hardware point -> assignments of the exact fronts there, by the first surrogates."""

    @property
    def costs(self) -> VariedCosts:
        """The costs that say what varies."""
        found = self.design.varied
        assert found is not None, "a grid is of hardware that varies"
        return found

    @property
    def limits(self) -> tuple[Constraint, ...]:
        """The constraints on costs."""
        return tuple(one for one in self.design.constraints if not is_loss(one.column))

    @property
    def columns(self) -> tuple[str, ...]:
        """Cost objectives, and what is bounded besides."""
        bounded = (one.column for one in self.limits)
        return tuple(dict.fromkeys([*self.design.objectives.costs, *bounded]))

    def priced(self, points: np.ndarray) -> np.ndarray:
        """(points, hardware points, columns) prices of the points' assignments."""
        keys = encoded(self.costs.on(points, self.costs.hardware.start))
        fresh = {key: row for key, row in zip(keys, points, strict=True) if key not in self.prices}
        if fresh:
            rows = np.array(list(fresh.values()))
            columns = [
                self.design.totals(self.costs.on(rows, hardware), self.columns)
                for hardware in self.points
            ]
            self.prices.update(zip(fresh, np.stack(columns, axis=1), strict=True))
        return np.stack([self.prices[key] for key in keys])

    def running(self, point: Point) -> Point:
        """The point itself, or on the nearest hardware that runs it; itself where none does."""
        if np.isfinite(self.design.objective_costs(np.array([point]))).all():
            return point
        prices = self.priced(np.array([point]))[0, :, : len(self.design.objectives.costs)]
        runs = np.flatnonzero(np.isfinite(prices).all(axis=1))
        if not len(runs):
            return point
        own = np.array(self.costs.hardware_of(point))
        steps = np.abs(self.points[runs] - own)
        nearest = runs[np.lexsort((steps.sum(axis=1), (steps > 0).sum(axis=1)))[0]]
        return (*point[: -len(own)], *self.points[nearest].tolist())

    def expanded(self, points: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The front that assignments make on all hardware, within the constraints.

        Args:
            points: (points, variables), on whatever hardware.
            losses: (points, losses).

        Returns:
            Points of the front, and their objectives.
        """
        prices = self.priced(points)
        count, width = len(self.points), len(self.design.objectives.costs)
        on = np.repeat(np.asarray(points), count, axis=0)
        on[:, -self.points.shape[1] :] = np.tile(self.points, (len(points), 1))
        flat = prices.reshape(len(on), -1)
        losses = np.repeat(np.asarray(losses).reshape(len(points), -1), count, axis=0)
        values = np.column_stack([losses, flat[:, :width]])
        kept = np.isfinite(values).all(axis=1) & self._allowed(losses, flat)
        on, values = on[kept], values[kept]
        best = nondominated(values)
        return on[best], values[best]

    def predicted(self, surrogates: Sequence[Surrogate]) -> tuple[np.ndarray, np.ndarray]:
        """The front over hardware and precision that surrogates predict.

        Of each hardware point its exact fronts of loss against each cost that adds up.

        Returns:
            Points by rising loss, and their objectives.
        """
        rows = [self._solved(hardware, surrogates) for hardware in self.points]
        points = np.concatenate(rows)
        losses = np.column_stack([one.predict(points) for one in surrogates])
        costs = np.concatenate(
            [self.design.totals(part, self.columns) for part in rows if len(part)]
        )
        values = np.column_stack([losses, costs[:, : len(self.design.objectives.costs)]])
        kept = np.isfinite(values).all(axis=1) & self._allowed(losses, costs)
        points, values = points[kept], values[kept]
        best = nondominated(values)
        points, values = points[best], values[best]
        order = np.argsort(values[:, 0], kind="stable")
        return points[order], values[order]

    def additive(self, hardware: Sequence[int]) -> list[list[np.ndarray]]:
        """Of each cost objective that adds up over regions, what the formats add there."""
        width = len(self.design.problem.variables) - self.points.shape[1]
        found = []
        for column in self.design.objectives.costs:
            if self.costs.is_additive(column):
                parts = self.costs.additive_on(hardware, column)
                if parts is not None:
                    found.append(list(bounded(parts[:width])))
        return found

    def solutions(
        self, hardware: Sequence[int], surrogates: Sequence[Surrogate], limit: int
    ) -> np.ndarray:
        """Points of the exact fronts of loss against each cost, and against their mean, there.

        (points, variables); empty where the hardware cannot be.
        """
        width = len(self.design.problem.variables) - self.points.shape[1]
        additive = self.additive(hardware)
        if self.costs.at(hardware) is None:
            return np.zeros((0, len(self.design.problem.variables)), dtype=np.int64)
        spans = [sum(float(np.ptp(part)) for part in parts) or 1.0 for parts in additive]
        if len(additive) > 1:
            scaled = zip(additive, spans, strict=True)
            shares = [[part / span for part in parts] for parts, span in scaled]
            additive.append([sum(parts, np.zeros(1)) for parts in zip(*shares, strict=True)])
        if not additive:
            additive = [[np.zeros(len(part)) for part in surrogates[0].losses[:width]]]
        losses = [one.losses[:width] for one in surrogates]
        found = np.concatenate(
            [pareto(loss, parts, limit=limit) for loss in losses for parts in additive]
        )
        found = np.unique(found, axis=0)
        return np.column_stack([found, np.tile(np.asarray(hardware), (len(found), 1))])

    def contenders(
        self, records: Sequence[Record], among: Sequence[Sequence[int]]
    ) -> list[list[Record]]:
        """The records with the costs that they have on each of some hardware points."""
        points = np.array([record.point for record in records])
        places = {tuple(row): place for place, row in enumerate(self.points.tolist())}
        prices = self.priced(points)
        return [
            [
                replace(record, costs=dict(zip(self.columns, row, strict=True)))
                for record, row in zip(
                    records, prices[:, places[tuple(hardware)]].tolist(), strict=True
                )
            ]
            for hardware in among
        ]

    def hardware_of(self, points: np.ndarray) -> list[Point]:
        """The hardware of points, each once, in order."""
        found = np.unique(points[:, -self.points.shape[1] :], axis=0)
        return [tuple(row) for row in found.tolist()]

    def _solved(self, hardware: np.ndarray, surrogates: Sequence[Surrogate]) -> np.ndarray:
        key = tuple(hardware.tolist())
        if key not in self.solved:
            self.solved[key] = self.solutions(key, surrogates, SOLVED)
        return self.solved[key]

    def _allowed(self, losses: np.ndarray, costs: np.ndarray) -> np.ndarray:
        """Mask of rows that satisfy every constraint."""
        kept = np.ones(len(losses), dtype=bool)
        by_name: dict[str, np.ndarray] = dict(
            zip(self.design.objectives.losses, losses.T, strict=True)
        )
        by_name |= dict(zip(self.columns, costs.T, strict=True))
        for constraint in self.design.constraints:
            values = by_name[constraint.column]
            sign = -1.0 if constraint.at_least else 1.0
            kept &= sign * values <= sign * constraint.limit
        return kept


def grid_of(design: Design, surrogates: Sequence[Surrogate]) -> Grid | None:
    """The hardware points of a search: the whole grid, or a sample of a larger one.

    None where no hardware varies.

    The sample begins with Sobol points (Optuna's `QMCSampler`); then neighbours of what is on the
    predicted front are added, until there are as many as the space allows. It depends on the seed
    and on the surrogates alone, so that a search that is continued has the same.

    Raises:
        InfeasibleError: no hardware satisfies the constraints on cost.
    """
    varied, section = design.varied, design.space.hardware
    if varied is None or section is None:
        return None
    hardware = varied.hardware
    if hardware.size <= section.points:
        every = product(*(range(len(one.options)) for one in hardware.parameters))
        grid = Grid(design=design, points=_within_area(design, varied, list(every)))
    else:
        grid = _sampled(design, varied, surrogates, section.points)
    _check_feasible(grid, surrogates)
    return grid


def _within_area(design: Design, varied: VariedCosts, points: Sequence[Point]) -> np.ndarray:
    """Points whose area the constraints allow, which is known before anything is priced.

    Raises:
        InfeasibleError: none is.
    """
    limits = [one for one in design.constraints if one.column == varied.area_column]
    if not limits:
        return np.array(points, dtype=np.int64).reshape(len(points), -1)
    areas = {point: varied.area_mm2(point) for point in points}
    for limit in limits:
        if not any(limit.excess(area) <= 0 for area in areas.values()):
            least = min(areas.values())
            raise InfeasibleError(
                f"constraint {limit}: the least of {len(areas)} hardware points is {least:.4g} "
                f"mm2, {share_beyond(limit, least)} beyond the limit; relax it to "
                f"{relaxed(limit, least)}, or let smaller hardware be chosen"
            )
    kept = [p for p, area in areas.items() if all(one.excess(area) <= 0 for one in limits)]
    return np.array(kept, dtype=np.int64)


def _sampled(
    design: Design, varied: VariedCosts, surrogates: Sequence[Surrogate], count: int
) -> Grid:
    """So many hardware points of a larger grid."""
    hardware, seed = varied.hardware, design.space.search.seed
    rng = np.random.default_rng([seed, count])
    even = _spread(hardware, max(2, math.ceil(EVENLY * count)), seed)
    chosen: dict[Point, None] = dict.fromkeys([hardware.start, *even])
    solved: dict[Point, np.ndarray] = {}
    while True:
        points = _within_area(design, varied, list(chosen))
        grid = Grid(design=design, points=points, solved=solved)
        if len(chosen) >= count:
            return grid
        on_front = grid.hardware_of(grid.predicted(surrogates)[0])
        beside = {near for one in on_front for _, near in hardware.neighbours(one)}
        fresh = sorted(beside - chosen.keys())
        if not fresh:
            return grid
        rng.shuffle(fresh)
        room = min(count - len(chosen), max(1, count // (2 * ROUNDS)))
        chosen.update(dict.fromkeys(fresh[:room]))


def _spread(hardware: HardwareSpace, count: int, seed: int) -> list[Point]:
    """Points that fill the grid evenly."""
    space: Mapping[str, optuna.distributions.BaseDistribution] = {
        one.name: optuna.distributions.IntDistribution(0, len(one.options) - 1)
        for one in hardware.parameters
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.QMCSampler(
            seed=seed, scramble=True, warn_independent_sampling=False
        )
        study = optuna.create_study(sampler=sampler)
        found: dict[Point, None] = {}
        for _ in range(4 * count):
            trial = study.ask(dict(space))
            found[tuple(int(trial.params[name]) for name in space)] = None
            study.tell(trial, 0.0)
            if len(found) == count:
                break
    return list(found)


def _check_feasible(grid: Grid, surrogates: Sequence[Surrogate]) -> None:
    """Some hardware must satisfy the constraints on costs.

    Raises:
        InfeasibleError: none does; says how near the nearest comes.
    """
    limits = grid.limits
    points = np.concatenate([grid._solved(one, surrogates) for one in grid.points])
    if not len(points):
        reason = next(iter(grid.costs.reasons.values()), "")
        raise InfeasibleError(f"hardware: none of {len(grid.points)} points can run it: {reason}")
    if not limits:
        return
    costs = grid.design.totals(points, [one.column for one in limits])
    excess = np.column_stack(
        [[one.excess(v) for v in column] for one, column in zip(limits, costs.T, strict=True)]
    )
    if (excess <= 0).all(axis=1).any():
        return
    place = int(np.argmin(np.maximum(excess, 0).sum(axis=1)))
    broken = [
        (one, float(costs[place, at])) for at, one in enumerate(limits) if excess[place, at] > 0
    ]
    labels = grid.costs.hardware.labels(grid.costs.hardware_of(points[place]))
    raise InfeasibleError(
        f"constraints {', '.join(map(str, limits))}: none of {len(grid.points)} hardware points "
        f"satisfies them; the nearest ({', '.join(f'{k}={v}' for k, v in labels.items())}) has "
        + " and ".join(
            f"{one.column} {value:.4g} ({share_beyond(one, value)} beyond {one.limit:g})"
            for one, value in broken
        )
        + "; relax "
        + " or ".join(relaxed(one, value) for one, value in broken)
    )
