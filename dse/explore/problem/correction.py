"""Lessons of costs measured outside for predicted ones, by variable and choice.

A cost is what the regions add up to, so totals that were measured for a few assignments move the
entries of the table: the same re-fit that the quality surrogate gets. Its prior is the table times
one factor, since a cost model's errors on one device go mostly one way: without it what was never
measured would stay cheap beside what was. What couples neighbours stays as predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dse.evaluate.costs import Costs
from dse.explore.solve.surrogate import Surrogate


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """Addend of one predicted cost column."""

    parts: tuple[np.ndarray, ...]
    """Of each variable's choices; last, of what is not searched: one array with one entry."""
    ratio: float
    """Median of measured over predicted, before the correction."""

    def of(self, points: np.ndarray) -> np.ndarray:
        """Addends of (points, variables) choice indices."""
        return Surrogate(losses=self.parts).predict(_with_fixed(points))


def fitted(costs: Costs, column: str, points: np.ndarray, measured: Sequence[float]) -> Correction:
    """The correction that explains measured totals while staying near the table's proportions.

    Args:
        costs: the tables.
        column: a cost that adds up.
        points: (points, variables) choice indices.
        measured: the cost of each point, positive.
    """
    prior = Surrogate(losses=(*costs.additive(column), np.array([costs.fixed(column)])))
    extended = _with_fixed(points)
    predicted = costs.totals(points, [column])[:, 0]
    coupled = predicted - prior.predict(extended)
    wanted = np.asarray(measured, dtype=float)
    # A measured total below its couplings says nothing of the parts.
    explained = np.where(wanted > coupled, wanted - coupled, wanted)
    summed = prior.predict(extended)
    usable = summed > 0
    scale = float(np.median(explained[usable] / summed[usable])) if usable.any() else 1.0
    scaled = Surrogate(losses=tuple(part * scale for part in prior.losses))
    after = scaled.refitted(extended, explained)
    return Correction(
        parts=tuple(new - old for new, old in zip(after.losses, prior.losses, strict=True)),
        ratio=float(np.median(wanted / predicted)),
    )


def _with_fixed(points: np.ndarray) -> np.ndarray:
    return np.column_stack([points, np.zeros(len(points), dtype=np.int64)])
