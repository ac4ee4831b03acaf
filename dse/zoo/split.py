"""Calibration, search and report data of one model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
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

    @property
    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """Every array by `<split>/<name>`."""
        found: dict[str, NDArray[Any]] = {}
        parts = {"calibration": self.calibration, "search": self.search, "report": self.report}
        for part, split in parts.items():
            found |= {f"{part}/{name}": np.asarray(one) for name, one in split.inputs.items()}
            if split.labels is not None:
                found[f"{part}/labels"] = split.labels
        return found


def digest_of(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Sixteen digits that other samples, shapes or types change."""
    digest = hashlib.sha256()
    for name, values in sorted(arrays.items()):
        digest.update(f"{name}{values.dtype}{values.shape}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:16]
