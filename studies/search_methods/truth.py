"""How far a method has got, where the truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import moocore
import numpy as np

from dse.explore.problem.history import MARGIN
from dse.explore.solve.front import hypervolume, nondominated
from studies.search_benchmark.benchmark import Benchmark


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What a whole table reaches."""

    values: np.ndarray
    reference: np.ndarray
    front: np.ndarray
    uniform: float
    best: float

    @classmethod
    def of(cls, values: np.ndarray, table: Benchmark) -> Truth:
        """The truth of (assignments, objectives)."""
        reference = values[table.uniforms].max(axis=0) * MARGIN
        front = values[nondominated(values)]
        return cls(
            values=values,
            reference=reference,
            front=front,
            uniform=hypervolume(values[table.uniforms], reference),
            best=hypervolume(front, reference),
        )

    def share(self, numbers: Sequence[int]) -> float:
        """(HV - HV of uniforms) / (true HV - HV of uniforms)."""
        reached = hypervolume(self.values[list(numbers)], self.reference)
        return (reached - self.uniform) / (self.best - self.uniform)

    def epsilon(self, numbers: Sequence[int]) -> float:
        """Additive epsilon to the true front, objectives scaled to [0, 1] over that front."""
        low, high = self.front.min(axis=0), self.front.max(axis=0)
        scaled = (self.values[list(numbers)] - low) / (high - low)
        return float(moocore.epsilon_additive(scaled, ref=(self.front - low) / (high - low)))
