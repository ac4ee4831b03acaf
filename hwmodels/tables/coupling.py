"""What regions share.

Activations that are converted once, constants that are stored once, and who decides the format of
a tensor where it is stored in one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwmodels.work.memory import is_activation
from hwmodels.work.work import RegionWork, Work

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
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
class Edge:
    """Tensor-side Q/DQ: what a consumer pays to read a value that is stored for another."""

    owner: int
    """The region whose choice decides the stored format."""
    consumer: int
    costs: Floats
    """Shape (owner's choices, consumer's choices, columns); zero where they agree."""

    def cost(self, chosen: NDArray[np.int64]) -> Floats:
        """Columns of assignments: chosen (..., regions) to (..., columns)."""
        return self.costs[chosen[..., self.owner], chosen[..., self.consumer]]


def owners(work: Work, decided: Sequence[bool]) -> Mapping[str, int]:
    """The region whose choice decides in which format each activation is stored.

    It is the first region with a choice (`decided`) that reads the value; a region without one
    passes the question on to those that read what it writes; where no reader has a choice, the
    region that writes the value decides, or what that one reads. Values that nothing decides are
    left out.
    """
    readers: dict[str, list[int]] = {}
    writer: dict[str, int] = {}
    for index, region in enumerate(work.regions):
        for operand in filter(is_activation, region.reads):
            readers.setdefault(operand.value, []).append(index)
        for operand in region.writes:
            writer[operand.value] = index
    forward = _forward_owners(work.regions, readers, decided)
    found: dict[str, int] = {}
    for region_index, region in enumerate(work.regions):
        inherited = next(
            (found[operand.value] for operand in region.reads if operand.value in found), None
        )
        own = region_index if decided[region_index] else inherited
        for operand in filter(is_activation, region.reads):
            if operand.value not in writer and operand.value in forward:
                found.setdefault(operand.value, forward[operand.value])
        for operand in region.writes:
            owner = forward.get(operand.value, own)
            if owner is not None:
                found[operand.value] = owner
    return found


def _forward_owners(
    regions: Sequence[RegionWork],
    readers: Mapping[str, Sequence[int]],
    decided: Sequence[bool],
) -> dict[str, int]:
    """By the readers alone, last region first, so that a passed-on question is answered."""
    found: dict[str, int] = {}
    values = {o.value: None for region in reversed(regions) for o in reversed(region.writes)}
    inputs = {value: None for value in readers if value not in values}
    for value in (*values, *inputs):
        for index in readers.get(value, ()):
            if decided[index]:
                found[value] = index
                break
            passed = next(
                (found[o.value] for o in regions[index].writes if o.value in found), None
            )
            if passed is not None:
                found[value] = passed
                break
    return found
