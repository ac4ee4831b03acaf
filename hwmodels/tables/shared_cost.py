"""Costs that regions share: values converted or stored once, tensors held in another format."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedCost:
    """A value that several regions want, in formats that their choices decide.

    Each distinct format is paid once.
    """

    regions: NDArray[np.int64]
    """Regions that want the value, shape (consumers,), in order of execution."""
    targets: NDArray[np.int64]
    """Target that each consumer wants under each of its choices, shape (consumers, choices);
    -1: none."""
    costs: Floats
    """Cost of each target, shape (targets, columns)."""

    def cost(self, chosen: NDArray[np.int64]) -> Floats:
        """Columns of assignments: chosen (..., regions) to (..., columns)."""
        wanted = self.targets[np.arange(len(self.regions)), chosen[..., self.regions]]
        present = (wanted[..., None] == np.arange(len(self.costs))).any(axis=-2)
        total: Floats = present.astype(float) @ self.costs
        return total

    def first_payers(self) -> list[tuple[int, Floats]]:
        """Each consumer's cost as if it were alone, shared evenly: (region, (choices, columns)).

        Exact where all consumers agree; used for additive approximations.
        """
        padded = np.vstack([self.costs, np.zeros((1, self.costs.shape[1]))])
        share = 1.0 / len(self.regions)
        return [
            (int(region), padded[self.targets[index]] * share)
            for index, region in enumerate(self.regions)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequantizationCost:
    """Tensor-side Q/DQ: what a consumer pays to read a value that is stored for another."""

    owner: int
    """The region whose choice decides the stored format."""
    consumer: int
    costs: Floats
    """Shape (owner's choices, consumer's choices, columns); zero where they agree."""

    def cost(self, chosen: NDArray[np.int64]) -> Floats:
        """Columns of assignments: chosen (..., regions) to (..., columns)."""
        return self.costs[chosen[..., self.owner], chosen[..., self.consumer]]
