"""Hypervolume over effort: how fast a search got where it got."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dse.explore.problem.objectives import Objectives
from dse.explore.problem.records import Record
from dse.explore.solve.front import hypervolume

MARGIN = 1.01
"""The reference point lies this factor beyond the worst uniform assignment, so that the worst
one still counts."""


def reference_point(values: np.ndarray, sources: Sequence[str]) -> np.ndarray | None:
    """Just beyond the worst of the uniform assignments in each objective; None without any.

    Args:
        values: (trials, objectives).
        sources: where each trial comes from.
    """
    uniform = [row for row, source in zip(values, sources, strict=True) if source == "uniform"]
    finite = [row for row in uniform if np.isfinite(row).all()]
    return np.max(finite, axis=0) * MARGIN if finite else None


def dominated_share(values: np.ndarray, reference: np.ndarray) -> float:
    """Hypervolume as a share of the box between the reference point and the origin."""
    box = float(np.prod(reference))
    return hypervolume(values[np.isfinite(values).all(axis=1)], reference) / box if box else 0.0


def history(
    records: Sequence[Record], objectives: Objectives, *, before: float, efforts: Sequence[float]
) -> list[list[float]]:
    """[forward-equivalents, share of hypervolume] after every trial on the search split.

    Args:
        records: completed trials in order.
        objectives: what is minimised.
        before: effort spent before the first trial (references and sensitivities).
        efforts: effort of each trial.
    """
    values = objectives.search_values(records)
    reference = reference_point(values, [record.source for record in records])
    if reference is None:
        return []
    spent = before + np.cumsum(efforts)
    return [
        [float(spent[count]), dominated_share(values[: count + 1], reference)]
        for count in range(len(records))
    ]
