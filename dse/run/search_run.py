"""A finished search as frozen data: what the run folder says, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dse.run.entries import (
    FrontPlace,
    HardwareAnswer,
    MeasuredPoint,
    PointSpeedup,
    Recommendation,
    RegionCost,
)
from dse.run.manifest import Manifest, TargetEntry, VariableEntry
from dse.run.scheme import short_names
from dse.sensitivity.table import Score
from dse.space.constraint import Constraint, parse_constraint
from hwmodels.tables.speedup import Speedup


@dataclass(frozen=True, kw_only=True)
class SearchRun:
    """A search as its run folder says."""

    folder: Path
    manifest: Manifest
    points: tuple[MeasuredPoint, ...]
    front: tuple[MeasuredPoint, ...]
    """Non-dominated in the objectives, cheapest first."""
    choices: Mapping[int, Mapping[str, str]]
    """Trial to variable to choice."""
    sensitivity: tuple[Score, ...] = ()
    costs: tuple[RegionCost, ...] = ()
    recommendation: Recommendation | None = None
    fronts: tuple[FrontPlace, ...] = ()
    """With several targets: each one's front, then the robust one."""
    robust: Recommendation | None = None
    speedups: tuple[PointSpeedup, ...] = ()
    """Of what is shown; empty in folders of earlier versions."""
    hardware: HardwareAnswer | None = None
    """The findings of a search over hardware; None where none varies."""

    @cached_property
    def by_trial(self) -> Mapping[int, MeasuredPoint]:
        """Points by trial number."""
        return {point.trial: point for point in (*self.points, *self.front)}

    @property
    def recommended(self) -> MeasuredPoint | None:
        """The recommended point of the front."""
        return self.by_trial.get(self.recommendation.trial) if self.recommendation else None

    def speedup(
        self, point: MeasuredPoint, base: MeasuredPoint, column: str, base_column: str = ""
    ) -> Speedup | None:
        """A point's speed-up over another with its interval; None where it is not told.

        Args:
            point: the point.
            base: the other one.
            column: a latency of the point.
            base_column: that of the base; the same by default.
        """
        there = (base_column or column, base.trial)
        if there == (column, point.trial):
            return Speedup(factor=1.0, low=1.0, high=1.0)
        found = self._by_pair.get((column, point.trial, *there))
        back = self._by_pair.get((*there, column, point.trial))
        return found or (back.inverse if back else None)

    def tied(self, point: MeasuredPoint, column: str) -> tuple[MeasuredPoint, ...]:
        """Other points of the front that a latency does not tell from this one, fastest first."""
        others = (one for one in self.front if one.trial != point.trial)
        tied = (one for one in others if (s := self.speedup(point, one, column)) and s.is_tied)
        return tuple(sorted(tied, key=lambda one: one.columns.get(column, 0.0)))

    @cached_property
    def _by_pair(self) -> Mapping[tuple[str, int, str, int], Speedup]:
        return {(p.column, p.trial, p.base_column, p.base): p.found for p in self.speedups}

    @cached_property
    def short(self) -> Mapping[str, str]:
        """Short names of the choices, for labels."""
        return short_names(self.manifest.choices)

    def title(self, point: MeasuredPoint) -> str:
        """The scheme's short name, or the trial's number."""
        return self.short.get(point.name, point.title)

    @cached_property
    def searched(self) -> tuple[VariableEntry, ...]:
        """The variables that had a choice."""
        return tuple(one for one in self.manifest.variables if len(one.choices) > 1)

    def chosen(self, point: MeasuredPoint) -> Mapping[str, str]:
        """A point's gift to the variables that had a choice; empty where it is not known."""
        taken = self.choices.get(point.trial, {})
        return {one.name: taken[one.name] for one in self.searched if taken.get(one.name)}

    @cached_property
    def loss_unit(self) -> str:
        """The kind of losses: a KL divergence, or an error where the output is no distribution."""
        if self.manifest.loss_unit:
            return self.manifest.loss_unit
        distribution = any("flip_rate" in point.columns for point in self.points)
        return "nats per position" if distribution else "of the output's norm"

    def is_recommended(self, point: MeasuredPoint) -> bool:
        """Whether it is the point that the search would take."""
        return self.recommendation is not None and self.recommendation.trial == point.trial

    @cached_property
    def constraints(self) -> tuple[Constraint, ...]:
        """The bounds that the front keeps to."""
        origin = str(self.folder / "manifest.json")
        return tuple(parse_constraint(text, origin=origin) for text in self.manifest.constraints)

    def broken(self, point: MeasuredPoint) -> tuple[Constraint, ...]:
        """The constraints that a point does not keep to: losses are those of the search split."""
        return tuple(one for one in self.constraints if not one.holds(point.columns))

    @property
    def uniforms(self) -> tuple[MeasuredPoint, ...]:
        """Every uniform assignment that was measured."""
        return tuple(
            point
            for point in self.points
            if point.source == "uniform" and point.state == "complete" and point.loss is not None
        )

    @property
    def reference(self) -> MeasuredPoint | None:
        """The base of speed-ups.

        Uniform bf16; else the full-precision model; else, where a device has neither, the uniform
        assignment that loses least. One that the hardware does not run, whose costs are infinite,
        is none.
        """
        running = [point for point in self.uniforms if self._is_priced(point)]
        named = {point.name: point for point in running}
        whole = (p for p in self.points if p.source == "reference" and self._is_priced(p))
        least = min(running, key=lambda point: point.loss or 0.0, default=None)
        return named.get("bf16") or next(whole, None) or least

    def _is_priced(self, point: MeasuredPoint) -> bool:
        costs = (point.columns.get(column, 0.0) for column in self.cost_objectives)
        return all(math.isfinite(cost) for cost in costs)

    @property
    def primary(self) -> TargetEntry:
        """The target whose network `quality_loss` is of: that of the first cost objective."""
        column = self.cost_objectives[0] if self.cost_objectives else ""
        named = {target.name: target for target in self.manifest.targets}
        return named.get(column.split(".")[0], self.manifest.targets[0])

    @cached_property
    def apart(self) -> tuple[TargetEntry, ...]:
        """The targets that may execute another network, with a loss of its own."""
        return tuple(target for target in self.manifest.targets if target.apart)

    def owner(self, column: str) -> str:
        """The target whose loss belongs to a cost column; empty for `quality_loss` itself."""
        found = (one.name for one in self.apart if column.startswith(f"{one.name}."))
        return next(found, "")

    @property
    def cost_objectives(self) -> tuple[str, ...]:
        """The objectives that are costs."""
        return tuple(name for name in self.manifest.objectives if "quality_loss" not in name)
