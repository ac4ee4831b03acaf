"""Objectives: quality and cost columns; and the fronts that they make, one a target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dse.evaluate.quality import Quality
from dse.explore.problem.records import LOSS, Record

ROBUST = "robust"
"""The name of the front across targets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objectives:
    """Losses first, then cost columns."""

    costs: tuple[str, ...]
    losses: tuple[str, ...] = (LOSS,)
    """Loss columns: of the primary target's network, then of each other network that an objective
    is about (`h100.quality_loss`)."""
    loss_of: Mapping[str, int] = field(default_factory=dict)
    """Cost column -> place in `losses` of what its target executes; 0 where it is not named."""
    views: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Target -> its cost columns, the same quantities in the same order for each; empty with one
    target."""
    base: Mapping[str, float] = field(default_factory=dict)
    """Column -> what the first choice everywhere costs; the robust front counts from it."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every objective: losses, then costs."""
        return (*self.losses, *self.costs)

    @property
    def searched(self) -> tuple[str, ...]:
        """The targets whose losses are further objectives."""
        return tuple(name.removesuffix(f".{LOSS}") for name in self.losses[1:])

    def place(self, column: str) -> int:
        """Place in `losses` of the loss that belongs to a cost column."""
        return self.loss_of.get(column, 0)

    def search_values(self, records: Sequence[Record]) -> np.ndarray:
        """(records, objectives) on the search split."""
        losses = [[_loss(record.searched(column)) for column in self.losses] for record in records]
        return self._values(records, losses)

    def report_values(self, records: Sequence[Record]) -> np.ndarray:
        """(records, objectives) on the report split; infinite where it was not measured."""
        losses = [[_loss(record.reported(column)) for column in self.losses] for record in records]
        return self._values(records, losses)

    def split(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """The fronts that a search is about: (points, objectives) -> name -> (points, few).

        One with all objectives where there is one target; else one a target, each with the loss
        of what that target executes, and the robust one: the worst loss over targets, and the
        worst ratio to `base` in place of costs.
        """
        if not self.views:
            return {"": values}
        place = {name: index for index, name in enumerate(self.names)}
        parts = {
            name: values[:, [self.place(columns[0]), *(place[column] for column in columns)]]
            for name, columns in self.views.items()
        }
        ratios = [
            part[:, 1:] / [self._unit(column) for column in self.views[name]]
            for name, part in parts.items()
        ]
        worst = np.max(np.stack(ratios), axis=0)
        loss = np.max([part[:, 0] for part in parts.values()], axis=0)
        return {**parts, ROBUST: np.column_stack([loss, worst])}

    def _unit(self, column: str) -> float:
        """Unit of a column on the robust front; 1 where the first choice gives no unit."""
        base = self.base[column]
        return base if math.isfinite(base) and base > 0 else 1.0

    def _values(self, records: Sequence[Record], losses: Sequence[Sequence[float]]) -> np.ndarray:
        rows = [
            [*found, *(record.costs[column] for column in self.costs)]
            for record, found in zip(records, losses, strict=True)
        ]
        return np.array(rows, dtype=float).reshape(len(records), len(self.names))


def report_losses(objectives: Objectives) -> tuple[str, ...]:
    """The loss columns as they are called on the report split."""
    others = (f"{label}.report_{LOSS}" for label in objectives.searched)
    return (f"report_{LOSS}", *others)


def _loss(quality: Quality | None) -> float:
    """Infinite where nothing was measured."""
    return math.inf if quality is None else quality.loss
