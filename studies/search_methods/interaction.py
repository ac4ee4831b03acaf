"""A surrogate that learns interactions, to see whether they are worth it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dse.explore.solve.surrogate import Surrogate

SCALE = 0.3
"""Standard deviation of the logarithm of measured over added up."""
NOISE = 0.05
"""What of it is no interaction."""
DISTANCE = 0.3
"""How fast two assignments become unlike: per variable that differs, times its weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrected(Surrogate):
    """An additive surrogate times the exponential of a Gaussian process on its residuals.

    The kernel is an exponential of the weighted Hamming distance, weights being each variable's
    share of the loss.
    """

    points: np.ndarray
    alpha: np.ndarray
    weights: np.ndarray

    def predict(self, points: np.ndarray) -> np.ndarray:
        """Losses of points."""
        mean = _kernel(points, self.points, self.weights) @ self.alpha
        summed: np.ndarray = Surrogate(losses=self.losses).predict(points) * np.exp(mean)
        return summed


@dataclass(frozen=True, slots=True, kw_only=True)
class Interacting(Surrogate):
    """A prior whose re-fits are corrected."""

    def refitted(self, points: np.ndarray, measured: Sequence[float] | np.ndarray) -> Surrogate:
        """The additive re-fit, then a Gaussian process on what is left."""
        added = Surrogate(losses=self.losses).refitted(points, measured)
        losses = np.asarray(measured, dtype=float)
        usable = np.isfinite(losses) & (losses > 0)
        points, losses = points[usable], losses[usable]
        spread = np.array([np.ptp(entries) for entries in added.losses])
        weights = DISTANCE * spread / spread.mean()
        residual = np.log(losses / np.maximum(added.predict(points), np.finfo(float).tiny))
        system = _kernel(points, points, weights) + NOISE**2 * np.eye(len(points))
        return Corrected(
            losses=added.losses,
            points=points,
            alpha=np.linalg.solve(system, residual),
            weights=weights,
        )


def _kernel(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> np.ndarray:
    unlike = (first[:, None, :] != second[None]) * weights
    kernel: np.ndarray = SCALE**2 * np.exp(-unlike.sum(axis=-1))
    return kernel
