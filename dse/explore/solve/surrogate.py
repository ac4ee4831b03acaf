"""The additive surrogate: the loss of an assignment as a sum over its variables' choices.

It starts from the sensitivity table and is re-fitted to what is measured. To second order the KL
divergence of independent perturbations adds up, so the sum is a good first guess and a bad last
word: surrogates generate, measured quality selects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PRIOR_WEIGHT = 0.1
"""Strength by which a re-fit holds each entry to its prior, relative to one measured assignment:
entries are off by tens of per cent, totals by a few (studies/search_methods)."""

PIVOTS = 50
"""Rounds after which a re-fit is good enough; a few are usual."""
ROUNDING = 1e-9
"""Entries are of the order of one when they are compared with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surrogate:
    """Loss contributions, one array of choices a variable."""

    losses: tuple[np.ndarray, ...]

    def predict(self, points: np.ndarray) -> np.ndarray:
        """Losses of points.

        Args:
            points: (points, variables) choice indices.
        """
        entries = np.concatenate(self.losses)
        summed: np.ndarray = entries[(self._offsets + points).T].sum(axis=0)
        return summed

    def refitted(self, points: np.ndarray, measured: Sequence[float] | np.ndarray) -> Surrogate:
        """The surrogate that explains measured losses while staying near this one.

        Non-negative least squares on relative errors: a measured loss of 0.001 weighs as much as
        one of 0.1. Points with an infinite or zero loss are left out.

        Args:
            points: (points, variables) choice indices.
            measured: the loss of each point.
        """
        losses = np.asarray(measured, dtype=float)
        usable = np.isfinite(losses) & (losses > 0)
        points, losses = points[usable], losses[usable]
        if len(losses) == 0:
            return self
        prior = np.concatenate(self.losses)
        if (prior > 0).any():
            floor = max(float(losses.min()), float(prior[prior > 0].min())) * 1e-3
        else:
            # Scores that are all nothing give no scale: a loss is everyone's in equal parts.
            floor = float(np.median(losses)) / len(self.losses)
        spread = np.maximum(prior, floor)
        rows = self._indicator(points) * spread / losses[:, None]
        # What no measured point takes stays as it was.
        seen = rows.any(axis=0)
        solution = prior / spread
        solution[seen] = _nonnegative(rows[:, seen], solution[seen])
        edges = np.cumsum([len(entries) for entries in self.losses])[:-1]
        return Surrogate(losses=tuple(np.split(solution * spread, edges)))

    @property
    def _offsets(self) -> np.ndarray:
        """Start of each variable's entries when all are joined: (variables,)."""
        return np.cumsum([0, *(len(entries) for entries in self.losses[:-1])])

    def _indicator(self, points: np.ndarray) -> np.ndarray:
        """(points, all choices) with a one where a point takes a choice."""
        matrix = np.zeros((len(points), sum(map(len, self.losses))))
        np.put_along_axis(matrix, self._offsets + points, 1.0, axis=1)
        return matrix


def _nonnegative(rows: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """The entries s >= 0 of least |rows s - 1|^2 + PRIOR_WEIGHT^2 |s - prior|^2.

    Solved in the space of the measurements, which are few where entries are thousands; entries
    that would be negative are held at zero, and let go where that helps, until neither happens.

    Source: block principal pivoting, Portugal, Judice and Vicente, Mathematics of Computation
    63(208), 1994.
    """
    weight = PRIOR_WEIGHT**2
    free = np.ones(len(prior), dtype=bool)
    solution = prior
    for _ in range(PIVOTS):
        kept = rows[:, free]
        system = kept @ kept.T + weight * np.eye(len(rows))
        solution = np.zeros(len(prior))
        solution[free] = prior[free] + kept.T @ np.linalg.solve(system, 1 - kept @ prior[free])
        slope = rows.T @ (rows @ solution - 1) + weight * (solution - prior)
        turned = np.where(free, solution < -ROUNDING, slope < -ROUNDING)
        if not turned.any():
            break
        free ^= turned
    positive: np.ndarray = np.maximum(solution, 0.0)
    return positive
