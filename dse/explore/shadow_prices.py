"""Shadow prices: what one step of each parameter of the hardware buys, from the recommended point.

The precision is solved again on every neighbour of the recommended hardware: the least cost at
the recommended point's loss, and the least loss at its costs. Both sides of a ratio are solutions
of one re-fitted surrogate, so that what it misses of both alike cancels. Intervals come of two
parts, which are independent: of a latency its cost interval, as of every speed-up
(`hwmodels.tables.speedup`); and the loss that is held equal, two standard errors up and down.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dse.evaluate.quality import SEPARATED
from dse.evaluate.target_costs import AREA, LATENCY
from dse.evaluate.varied_costs import VariedCosts
from dse.explore.problem.design import Design
from dse.explore.problem.hardware import Grid
from dse.explore.problem.records import Record
from dse.explore.recommend import recommend
from dse.explore.solve.surrogate import Surrogate
from dse.run.entries import HardwareAnswer, PriceChange, ShadowPrice
from dse.space.hardware import Option, Parameter
from dse.space.problem import Point
from hwmodels.devices.quantity import UNITS

SOLVED = 128
"""Assignments of the exact front of loss against each cost, on each neighbour."""
LEAST_CHANGE = 5e-4
"""Changes below this share are none: a solver's tolerance, not what hardware buys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Solved:
    """Losses and costs that formats reach on one hardware point."""

    points: np.ndarray
    losses: np.ndarray
    """Predicted by the re-fitted surrogate."""
    costs: np.ndarray
    """(points, cost objectives)."""

    def least_cost(self, place: int, loss: float) -> int | None:
        """The point of least cost whose loss is no greater."""
        return _least(self.costs[:, place], self.losses <= loss)

    def least_loss(self, place: int, cost: float) -> int | None:
        """The point of least loss that costs no more."""
        return _least(self.losses, self.costs[:, place] <= cost)


def _least(values: np.ndarray, kept: np.ndarray) -> int | None:
    rows = np.flatnonzero(kept & np.isfinite(values))
    return int(rows[np.argmin(values[rows])]) if len(rows) else None


def hardware_answer(
    design: Design,
    grid: Grid,
    surrogates: Sequence[Surrogate],
    records: Sequence[Record],
    front: Sequence[Record],
) -> HardwareAnswer:
    """The findings of a search over hardware beside its front.

    Args:
        design: what was searched.
        grid: its hardware points.
        surrogates: losses of every choice alone.
        records: every trial.
        front: those on the front.
    """
    varied = grid.costs
    points = [tuple(row) for row in grid.points.tolist()]
    impossible = [point for point in points if varied.at(point) is None]
    recommended, _ = recommend(design, front)
    return HardwareAnswer(
        priced=len(points),
        size=varied.hardware.size,
        impossible=len(impossible),
        reason=varied.reasons[impossible[0]] if impossible else "",
        on_front=len({varied.hardware_of(record.point) for record in front}),
        measured=len({design.problem.on_start(record.point) for record in records}),
        recommended=recommended.hardware,
        shadow_prices=shadow_prices(design, grid, surrogates, records, recommended),
        remarks=varied.hardware.remarks,
    )


def shadow_prices(
    design: Design,
    grid: Grid,
    surrogates: Sequence[Surrogate],
    records: Sequence[Record],
    recommended: Record,
) -> tuple[ShadowPrice, ...]:
    """One entry a step of a parameter, from the recommended hardware.

    Constraints are left aside: what a step beyond them would buy is what they cost.

    Args:
        design: what was searched.
        grid: its hardware points.
        surrogates: losses of every choice alone; re-fitted here to what was measured.
        records: every trial.
        recommended: the point that is stepped from.
    """
    varied = design.varied
    assert varied is not None, "hardware varies"
    points = np.array([record.point for record in records])
    losses = design.objectives.search_values(records)[:, 0]
    fitted = surrogates[0].refitted(points, losses)
    search = _Search(
        design=design,
        grid=grid,
        varied=varied,
        fitted=fitted,
        points=points,
        loss_spread=_spread(recommended),
        misfit=SEPARATED * _residual(fitted.predict(points), losses),
    )
    here = varied.hardware_of(recommended.point)
    base = search.solved(here)
    assert base is not None, "what is recommended runs"
    held = float(fitted.predict(np.array([recommended.point]))[0])
    found = []
    for place, there in varied.hardware.neighbours(here):
        parameter = varied.hardware.parameters[place]
        before, after = parameter.options[here[place]], parameter.options[there[place]]
        other = search.solved(there)
        if other is None:
            continue
        area = None
        if varied.area_column in varied.columns:
            area = varied.area_mm2(there) - varied.area_mm2(here)
        amount, unit = _step(parameter, before, after)
        found.append(
            ShadowPrice(
                parameter=parameter.name,
                before=before.label,
                after=after.label,
                amount=amount,
                unit=unit,
                area_mm2=area,
                changes=tuple(search.changes(base, other, held, recommended)),
            )
        )
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class _Search:
    """The means to solve on any hardware."""

    design: Design
    grid: Grid
    varied: VariedCosts
    fitted: Surrogate
    """Of the first loss, re-fitted to what was measured."""
    points: np.ndarray
    """Points of what was measured."""
    loss_spread: float
    """Two standard errors of the loss that is held equal, as a share of it."""
    misfit: float
    """Half-width of the log of a predicted loss over the measured one."""

    def solved(self, hardware: Sequence[int]) -> _Solved | None:
        """Losses and costs that formats reach there; None where it can be no device."""
        if self.varied.at(hardware) is None:
            return None
        exact = self.grid.solutions(hardware, [self.fitted], SOLVED)
        points = np.unique(np.concatenate([exact, self.varied.on(self.points, hardware)]), axis=0)
        return _Solved(
            points=points,
            losses=self.fitted.predict(points),
            costs=self.design.objective_costs(points),
        )

    def changes(
        self, base: _Solved, other: _Solved, held: float, recommended: Record
    ) -> Iterator[PriceChange]:
        """Changes of each cost at equal loss, then of the loss at equal cost."""
        columns = self.design.objectives.costs
        for place, column in enumerate(columns):
            if column.rpartition(".")[2] == AREA:
                continue
            ratios = [
                self._cost_ratio(base, other, place, held * (1 + sign * self.loss_spread))
                for sign in (0, -1, 1)
            ]
            if ratios[0] is None:
                continue
            ratio, pair = ratios[0]
            logs = [math.log(one[0] / ratio) for one in ratios[1:] if one is not None]
            half = self._half_width(column, pair)
            yield PriceChange(
                column=column,
                at=self.design.objectives.losses[0],
                ratio=_settled(ratio),
                low=ratio * math.exp(-math.hypot(half, -min([0.0, *logs]))),
                high=ratio * math.exp(math.hypot(half, max([0.0, *logs]))),
            )
        column = columns[0]
        limit = recommended.costs[column]
        here, there = base.least_loss(0, limit), other.least_loss(0, limit)
        if here is None or there is None:
            return
        first, second = base.losses[here], other.losses[there]
        if first > 0 and second > 0:
            same = self.design.problem.on_start
            alike = same(base.points[here].tolist()) == same(other.points[there].tolist())
            reach = 1.0 if alike else math.exp(self.misfit)
            yield PriceChange(
                column=self.design.objectives.losses[0],
                at=column,
                ratio=_settled(float(second / first)),
                low=float(second / first) / reach,
                high=float(second / first) * reach,
            )

    def _cost_ratio(
        self, base: _Solved, other: _Solved, place: int, loss: float
    ) -> tuple[float, tuple[Point, Point]] | None:
        first, second = base.least_cost(place, loss), other.least_cost(place, loss)
        if first is None or second is None or base.costs[first, place] <= 0:
            return None
        points = (tuple(base.points[first].tolist()), tuple(other.points[second].tolist()))
        return float(other.costs[second, place] / base.costs[first, place]), points

    def _half_width(self, column: str, pair: tuple[Point, Point]) -> float:
        """Half-width of the log of a ratio of latencies; other costs are given without one."""
        if not column.endswith(LATENCY):
            return 0.0
        errors = self.varied.latency_errors(pair).get(column)
        return 0.0 if errors is None else float(np.linalg.norm(errors[0] - errors[1]))


def _residual(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Spread of the logs of measured over predicted losses."""
    usable = np.isfinite(measured) & (measured > 0) & (predicted > 0)
    logs = np.log(measured[usable] / predicted[usable])
    return float(np.sqrt(np.mean(np.square(logs)))) if usable.any() else 0.0


def _spread(record: Record) -> float:
    """Two standard errors of a record's loss as a share of it, at most nine tenths."""
    quality = record.report or record.search
    if not quality.loss > 0 or not math.isfinite(quality.stderr):
        return 0.0
    return min(SEPARATED * quality.stderr / quality.loss, 0.9)


def _step(parameter: Parameter, before: Option, after: Option) -> tuple[float | None, str]:
    """The difference of two quantities in the user's unit; None of words."""
    if not parameter.is_ordered or before.quantity is None or after.quantity is None:
        return None, ""
    unit = next(
        (word for word in after.label.split()[1:] if word in UNITS),
        "",
    )
    factor = UNITS[unit][1] if unit else 1.0
    return (after.quantity - before.quantity) / factor, unit


def _settled(ratio: float) -> float:
    """A ratio; 1 where it is no more than a solver's tolerance away."""
    return 1.0 if abs(ratio - 1) < LEAST_CHANGE else float(ratio)
