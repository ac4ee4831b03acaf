"""Errors of rows that a model did not see, and the ends of the interval that holds them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hwmodels.estimators.gpu.learned import COVERAGE
from hwmodels.estimators.gpu.skeleton import Floats

Ends = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """log(measured / predicted) of rows that a model did not see."""

    table: pd.DataFrame
    log: Floats
    weights: Floats

    @property
    def ends(self) -> Ends:
        """Ends that hold `COVERAGE` of them."""
        return ends_of(self.log, self.weights)


def joined(parts: Iterable[Errors]) -> Errors:
    """All errors, each part with its weights."""
    found = list(parts)
    return Errors(
        table=pd.concat([one.table for one in found], ignore_index=True),
        log=np.concatenate([one.log for one in found]),
        weights=np.concatenate([one.weights for one in found]),
    )


def ends_of(log: Floats, weights: Floats) -> Ends:
    """Ends that hold `COVERAGE` of the errors, on both sides of 0; both shapes (errors,)."""
    tail = (1 - COVERAGE) / 2
    low, high = (weighted_quantile(log, weights, level) for level in (tail, 1 - tail))
    return min(low, 0.0), max(high, 0.0)


def halfway(near: Ends, far: Ends) -> Ends:
    """Ends half way between two intervals, in log units."""
    return (near[0] + far[0]) / 2, (near[1] + far[1]) / 2


def weighted_quantile(values: Floats, weights: Floats, level: float) -> float:
    """The value below which a share `level` of the weights lies; both shapes (values,)."""
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    index = min(int(np.searchsorted(cumulative, level * cumulative[-1])), len(values) - 1)
    return float(values[order][index])
