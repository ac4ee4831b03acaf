"""Calibration, search and report data of one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Samples of one purpose."""

    inputs: Mapping[str, NDArray[Any]]
    """Arrays by graph input, the first axis counts samples."""
    labels: NDArray[Any] | None
    """Next tokens (samples, sequence), classes (samples), or None where nothing is known."""
    kind: Literal["tokens", "images"]
    axes: Mapping[str, int | None] = field(default_factory=dict)
    """The axis where the graph wants the samples of an input, if not in front; None: all share one
    value, which has no axis for them."""

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(next(iter(self.inputs.values()), ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """Three disjoint parts: tune quantizers on one, search on the next, report on the last."""

    calibration: Split
    search: Split
    report: Split
