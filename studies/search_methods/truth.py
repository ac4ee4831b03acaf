"""How far a method has got, where the truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import moocore
import numpy as np

from dse.explore.problem.history import MARGIN
from dse.explore.solve.front import hypervolume, nondominated
from studies.search_benchmark.benchmark import Benchmark

FLOOR = 1e-3
"""Of the worst uniform's loss: what is smaller counts as this on the logarithmic scale."""
LIMIT = 0.1
"""Of the worst uniform's loss: what a constrained search stays below."""


def logarithms(table: Benchmark, values: np.ndarray) -> np.ndarray:
    """Objectives with the loss, their first column, on a logarithmic scale from `FLOOR` on."""
    floor = FLOOR * table.loss[table.uniforms].max()
    return np.column_stack([np.log(np.maximum(values[:, 0], floor) / floor), values[:, 1:]])


def limit_of(table: Benchmark) -> float:
    """The largest loss that a constrained search allows, nats per position."""
    return LIMIT * float(table.loss[table.uniforms].max())


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What a whole table reaches."""

    values: np.ndarray
    reference: np.ndarray
    front: np.ndarray
    uniform: float
    best: float

    @classmethod
    def of(cls, values: np.ndarray, table: Benchmark, *, most: float | None = None) -> Truth:
        """The truth of (assignments, objectives).

        Args:
            values: all to be minimised, the loss first.
            table: where the uniform assignments are.
            most: what counts is below this value of the first objective; by default everything
                up to the worst uniform.
        """
        reference = values[table.uniforms].max(axis=0) * MARGIN
        if most is not None:
            reference[0] = most
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
