"""Worth of a point before it is measured: the hypervolume that it should add.

Losses count by their logarithm, costs as they are: a third less is worth as much where little is
lost as where much is. On a linear scale nearly all of the area lies beside the worst assignment,
and users choose anywhere between "nothing to be seen" and "unusable".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from dse.explore.solve.front import improvements, nondominated

SEEN = 1e-2
"""Of the largest loss of a front: from where on losses count by their logarithm. What is much
smaller is nothing to be seen, and counts alike."""

Fronts = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""(points, objectives) -> name -> (points, objectives of that front)."""


def gains(
    predicted: np.ndarray, values: np.ndarray, fronts: Fronts, *, losses: int = 1
) -> np.ndarray:
    """Hypervolume that each predicted point would add to that of what is measured.

    Gains of several fronts are added up, each as a share of its box. Where no point should help,
    how near each comes to helping: negative.

    Args:
        predicted: (candidates, objectives).
        values: (points, objectives) that are measured.
        fronts: objective values as the fronts that count, by name.
        losses: how many of the objectives, the first ones, are losses.

    Returns:
        (candidates,)
    """
    largest = values[nondominated(values), :losses].max(axis=0)
    predicted, values = (visible(part, largest) for part in (predicted, values))
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


def visible(values: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Objectives with losses on the scale on which they count; costs stay.

    Args:
        values: (points, objectives), losses first.
        largest: (losses,) the largest loss of a front; one that is not positive stays linear.

    Returns:
        (points, objectives); a loss below zero counts like a gain of the same size.
    """
    count = len(largest)
    unit = np.where(largest > 0, SEEN * largest, 1.0)
    losses = values[:, :count]
    scaled = np.where(largest > 0, np.sign(losses) * np.log1p(np.abs(losses) / unit), losses)
    return np.column_stack([scaled, values[:, count:]])
