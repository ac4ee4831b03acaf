"""Scores of many records as one number with its standard error, also of a difference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """One measure of one task: sums of values over sums of weights.

    A mean has weights of one. A perplexity is the exponential of nats over tokens or words.
    """

    values: Array
    """(records) numerators: right or wrong, nats of a window."""
    weights: Array
    """(records) denominators."""
    exponential: bool = False
    """Whether the measure is the exponential of the ratio."""

    @property
    def ratio(self) -> float:
        """Sum of values over sum of weights."""
        return float(self.values.sum() / self.weights.sum())

    @property
    def measure(self) -> float:
        """The number that people quote."""
        return math.exp(min(self.ratio, 700.0)) if self.exponential else self.ratio

    @property
    def slope(self) -> float:
        """Change of the measure with the ratio."""
        return self.measure if self.exponential else 1.0

    @property
    def residuals(self) -> Array:
        """Each record's share in the error of the ratio (linearised), in units of the measure."""
        found: Array = (self.values - self.ratio * self.weights) / self.weights.sum() * self.slope
        return found

    @property
    def stderr(self) -> float:
        """Standard error of the measure over records; NaN for a single one."""
        return _stderr(self.residuals)


def _stderr(residuals: Array) -> float:
    count = len(residuals)
    if count < 2:
        return math.nan
    return float(math.sqrt(count / (count - 1) * (residuals**2).sum()))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """One measure of a task, quantized against full precision on the same records."""

    task: str
    metric: str
    value: float
    stderr: float
    reference: float
    difference: float
    """Quantized minus full precision."""
    difference_stderr: float
    """Paired: of the difference, record by record."""
    records: int


def compared(task: str, metric: str, quantized: Scores, reference: Scores) -> TaskResult:
    """The result of two runs over the same records."""
    return TaskResult(
        task=task,
        metric=metric,
        value=quantized.measure,
        stderr=quantized.stderr,
        reference=reference.measure,
        difference=quantized.measure - reference.measure,
        difference_stderr=_stderr(quantized.residuals - reference.residuals),
        records=len(quantized.values),
    )


def mean(values: Any) -> Scores:
    """Scores whose measure is a mean."""
    array = np.asarray(values, dtype=np.float64)
    return Scores(values=array, weights=np.ones_like(array))


ByMetric = Mapping[str, Scores]
