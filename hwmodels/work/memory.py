"""Memory of a network's activations, by liveness.

A region is one step, in the order in which they run. A value is alive from the step that writes it
(a graph input: from the first step) to the last step that reads it (an output: to the last step).
The peak is the most bytes alive in one step, with what the step itself needs beside (`workspace`:
converted copies).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwmodels.work.work import Operand, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Liveness:
    """The life of each activation of a network; computed once for all assignments."""

    values: tuple[str, ...]
    birth: NDArray[np.int64]
    """Step that writes each value, shape (values,)."""
    death: NDArray[np.int64]
    """Last step at which it is alive, shape (values,)."""
    step: NDArray[np.int64]
    """Of each region of the network, shape (regions,)."""

    @classmethod
    def of(cls, work: Work, order: Sequence[int] | None = None) -> Liveness:
        """The liveness of the values that cross a region's border.

        order: regions by index as they run; None: as the network has them.
        """
        birth: dict[str, int] = {}
        death: dict[str, int] = {}
        run = range(len(work.regions)) if order is None else order
        for step, region in enumerate(work.regions[index] for index in run):
            for operand in region.reads:
                if is_activation(operand):
                    birth.setdefault(operand.value, 0)
                    death[operand.value] = step
            for operand in region.writes:
                if is_activation(operand):
                    birth.setdefault(operand.value, step)
                    death.setdefault(operand.value, step)
        last = max(len(work.regions) - 1, 0)
        for value in work.outputs:
            if value in death:
                death[value] = last
        values = tuple(birth)
        return cls(
            values=values,
            birth=np.array([birth[value] for value in values], dtype=np.int64),
            death=np.array([death[value] for value in values], dtype=np.int64),
            step=np.argsort(np.array(run, dtype=np.int64)),
        )

    def bytes_of(self, work: Work) -> NDArray[np.float64]:
        """Bytes of each value as `work` stores it, shape (values,)."""
        stored = activation_bytes(work)
        return np.array([stored[value] for value in self.values], dtype=float)

    def alive(self, bytes_by_value: NDArray[np.float64]) -> NDArray[np.float64]:
        """Bytes alive while each region runs: (..., values) to (..., regions)."""
        changes = np.zeros((*bytes_by_value.shape[:-1], len(self.step) + 1))
        by_value = np.moveaxis(changes, -1, 0)
        np.add.at(by_value, self.birth, np.moveaxis(bytes_by_value, -1, 0))
        np.subtract.at(by_value, self.death + 1, np.moveaxis(bytes_by_value, -1, 0))
        return np.cumsum(changes, axis=-1)[..., self.step]

    def peak(
        self,
        bytes_by_value: NDArray[np.float64],
        workspace: NDArray[np.float64] | float = 0.0,
    ) -> int:
        """Most bytes alive at once; zero for a network without regions.

        bytes_by_value: (values,); workspace: (regions,), bytes that only one of them needs.
        """
        if not self.step.size:
            return 0
        return int(np.max(self.alive(bytes_by_value) + workspace))


def peak_bytes(work: Work) -> int:
    """Peak of the activations of `work` as its operands store them."""
    liveness = Liveness.of(work)
    return liveness.peak(liveness.bytes_of(work))


def activation_bytes(work: Work) -> Mapping[str, int]:
    """Bytes of each activation, stored once.

    It is in the format of the operand that writes it, or of the first that reads it where the
    network does not write it.
    """
    written = {o.value: o.bytes for region in work.regions for o in region.writes}
    stored = dict(written)
    for region in work.regions:
        for operand in region.reads:
            if is_activation(operand):
                stored.setdefault(operand.value, operand.bytes)
    return stored


def is_activation(operand: Operand) -> bool:
    """Whether the operand is neither a constant nor a cache."""
    return not operand.is_weight and not operand.is_cache
