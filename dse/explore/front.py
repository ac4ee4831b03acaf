"""Dominance, hypervolume and the choice of one point; every objective is minimised."""

from __future__ import annotations

import moocore
import numpy as np


def nondominated(values: np.ndarray) -> np.ndarray:
    """Mask of the rows that no other row dominates; of equal rows the first is kept.

    Args:
        values: (points, objectives), all minimised, finite.
    """
    if len(values) == 0:
        return np.zeros(0, dtype=bool)
    return np.asarray(moocore.is_nondominated(values), dtype=bool)


def hypervolume(values: np.ndarray, reference: np.ndarray) -> float:
    """Volume dominated by the rows within the reference point.

    Args:
        values: (points, objectives); rows beyond the reference contribute nothing.
        reference: (objectives,).
    """
    inside = values[(values < reference).all(axis=1)]
    return float(moocore.hypervolume(inside, ref=reference)) if len(inside) else 0.0


def improvements(candidates: np.ndarray, front: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """What each candidate alone would add to the hypervolume of a front."""
    before = hypervolume(front, reference)
    return np.array(
        [hypervolume(np.vstack([front, row]), reference) - before for row in candidates]
    )


def knee(values: np.ndarray) -> int:
    """The row of a front that is furthest below the line between its extremes.

    Each objective is scaled to [0, 1] over the front; ties go to the first row. With one or two
    rows it is the row with the smallest sum.
    """
    low, high = values.min(axis=0), values.max(axis=0)
    scaled = (values - low) / np.where(high > low, high - low, 1.0)
    return int(np.argmin(scaled.sum(axis=1)))
