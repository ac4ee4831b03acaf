"""Worth of a point before it is measured: the hypervolume that it should add."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from dse.explore.solve.front import improvements, nondominated

Fronts = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""(points, objectives) -> name -> (points, objectives of that front)."""


def gains(predicted: np.ndarray, values: np.ndarray, fronts: Fronts) -> np.ndarray:
    """Hypervolume that each predicted point would add to that of what is measured.

    Gains of several fronts are added up, each as a share of its box. Where no point should help,
    how near each comes to helping: negative.

    Args:
        predicted: (candidates, objectives).
        values: (points, objectives) that are measured.
        fronts: objective values as the fronts that count, by name.

    Returns:
        (candidates,)
    """
    total = np.zeros(len(predicted))
    missed = np.full(len(predicted), np.inf)
    wanted = fronts(predicted)
    for name, measured in fronts(values).items():
        front = measured[nondominated(measured)]
        reference = measured.max(axis=0) * (1 + 1e-6)
        scale = np.where(reference > 0, reference, 1.0)  # losses can be negative
        total += improvements(wanted[name], front, reference) / np.prod(scale)
        distance = np.max((wanted[name][:, None] - front[None]) / scale, axis=2).min(axis=1)
        missed = np.minimum(missed, distance)
    return total if total.max() > 0 else -missed
