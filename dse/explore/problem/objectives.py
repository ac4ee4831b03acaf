"""Objectives: quality and cost columns; and the fronts that they make, one a target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dse.explore.problem.records import Record

ROBUST = "robust"
"""The name of the front across targets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objectives:
    """Quality first, then cost columns."""

    costs: tuple[str, ...]
    views: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Target -> its cost columns, the same quantities in the same order for each; empty with one
    target."""
    base: Mapping[str, float] = field(default_factory=dict)
    """Column -> what the first choice everywhere costs; the robust front counts from it."""

    def search_values(self, records: Sequence[Record]) -> np.ndarray:
        """(records, objectives) on the search split."""
        return self._values(records, [record.search.loss for record in records])

    def report_values(self, records: Sequence[Record]) -> np.ndarray:
        """(records, objectives) on the report split; infinite where it was not measured."""
        losses = [record.report.loss if record.report else math.inf for record in records]
        return self._values(records, losses)

    def split(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """The fronts that a search is about: (points, objectives) -> name -> (points, few).

        One with all objectives where there is one target; else one a target, and the robust one
        with the worst ratio to `base` over targets in place of costs.
        """
        if not self.views:
            return {"": values}
        place = {column: index for index, column in enumerate(self.costs, start=1)}
        parts = {
            name: values[:, [0, *(place[column] for column in columns)]]
            for name, columns in self.views.items()
        }
        ratios = [
            part[:, 1:] / [self._unit(column) for column in self.views[name]]
            for name, part in parts.items()
        ]
        worst = np.max(np.stack(ratios), axis=0)
        return {**parts, ROBUST: np.column_stack([values[:, 0], worst])}

    def _unit(self, column: str) -> float:
        """Unit of a column on the robust front; 1 where the first choice gives no unit."""
        base = self.base[column]
        return base if math.isfinite(base) and base > 0 else 1.0

    def _values(self, records: Sequence[Record], losses: Sequence[float]) -> np.ndarray:
        rows = [
            [loss, *(record.costs[column] for column in self.costs)]
            for record, loss in zip(records, losses, strict=True)
        ]
        return np.array(rows, dtype=float).reshape(len(records), 1 + len(self.costs))
