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
    """Hypervolume that each candidate alone would add to that of a front.

    Args:
        candidates: (candidates, objectives).
        front: (points, objectives); rows beyond the reference contribute nothing.
        reference: (objectives,).

    Returns:
        (candidates,), never negative.
    """
    if len(reference) == 2:
        return _areas(candidates, front, reference)
    before = hypervolume(front, reference)
    return np.array(
        [hypervolume(np.vstack([front, row]), reference) - before for row in candidates]
    )


def _areas(candidates: np.ndarray, front: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """`improvements` of two objectives, all candidates at once.

    A front is a staircase: from one point to the next, what is above the lowest so far is
    dominated already.
    """
    inside = front[(front < reference).all(axis=1)]
    inside = inside[np.argsort(inside[:, 0])]
    starts = np.concatenate([[-np.inf], inside[:, 0]])
    ends = np.concatenate([inside[:, 0], reference[:1]])
    heights = np.minimum.accumulate(np.concatenate([reference[1:], inside[:, 1]]))
    widths = np.maximum(ends - np.maximum(starts, candidates[:, :1]), 0.0)
    areas: np.ndarray = (widths * np.maximum(heights - candidates[:, 1:], 0.0)).sum(axis=1)
    return areas


def knee(values: np.ndarray) -> int:
    """The row of a front that is furthest below the line between its extremes.

    Each objective is scaled to [0, 1] over the front; ties go to the first row. With one or two
    rows it is the row with the smallest sum.
    """
    low, high = values.min(axis=0), values.max(axis=0)
    scaled = (values - low) / np.where(high > low, high - low, 1.0)
    return int(np.argmin(scaled.sum(axis=1)))
