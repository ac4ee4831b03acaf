"""Bytes of a phase's activations under every choice, for the peak."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

import numpy as np
from numpy.typing import NDArray

from hwmodels.devices.device import Device
from hwmodels.estimators.npu.memory import Scratch, map_bytes, scratch_of
from hwmodels.formats.quantizer import Quantizer
from hwmodels.tables.sharing import Plans
from hwmodels.work.memory import Liveness, activation_bytes, is_activation
from hwmodels.work.work import Operand, OperandName, Work

Floats = NDArray[np.float64]
Quantizers = Mapping[OperandName, Quantizer]


class Activations:
    """Bytes of each activation under the choices of the region that decides it."""

    def __init__(
        self,
        work: Work,
        offered: Sequence[Sequence[Quantizers]],
        plans: Plans,
        owner: Mapping[str, int],
        device: Device,
        *,
        order: Sequence[int],
        linear: Sequence[Set[str]],
    ) -> None:
        self.linear = linear
        self.work = work
        self.order = order
        self.offered = offered
        self.plans = plans
        self.owner = owner
        self.device = device
        self.readers: dict[str, list[int]] = {}
        self.operands: dict[str, Operand] = {}
        for index, region in enumerate(work.regions):
            for operand in activations((*region.reads, *region.writes)):
                self.operands.setdefault(operand.value, operand)
            for value in {operand.value for operand in activations(region.reads)}:
                self.readers.setdefault(value, []).append(index)

    def arrays(self, most: int) -> tuple[Floats, NDArray[np.int64], Floats]:
        """Bytes (V, C), owners (V,) and workspace (R, C)."""
        plain = {
            value: self._map_bytes(self.operands[value], count, 0)
            for value, count in activation_bytes(self.work).items()
            if value in self.operands
        }
        values = Liveness.of(self.work).values
        stored = np.array([[float(plain[value])] * most for value in values]).reshape(-1, most)
        owners_ = np.zeros(len(values), dtype=np.int64)
        workspace = np.zeros((len(self.plans), most))
        kept = set(self.work.outputs)
        row_of = {value: row for row, value in enumerate(values)}
        for value, index in self.owner.items():
            owners_[row_of[value]] = index
            stored[row_of[value]] = self._by_choice(value, index, most)
        for index, by_choice in enumerate(self.plans):
            for choice, by_output in enumerate(by_choice):
                for conversion in by_output[0].conversions:
                    alone = self.readers.get(conversion.value) == [index]
                    if alone and not conversion.kernels and conversion.value not in kept:
                        owners_[row_of[conversion.value]] = index
                        stored[row_of[conversion.value], choice] = conversion.copy_bytes
                    else:
                        workspace[index, choice] += conversion.copy_bytes
        return stored, owners_, workspace + self._scratch(most)

    def _scratch(self, most: int) -> Floats:
        """Bytes that operations hold beside their maps, shape (R, C).

        What a region stages before it runs is held beside the region before, if that is one
        operation. Neighbours are taken to choose alike, as far as they have as many choices.
        """
        found = np.zeros((len(self.plans), most))
        if self.device.npu is None:
            return found
        for choice in range(most):
            before, last = Scratch(), -1
            for index in self.order:
                by_choice = self.plans[index]
                plan = by_choice[min(choice, len(by_choice) - 1)][0]
                own = scratch_of(plan.kernels, self.device, before.slack_cycles)
                found[index, choice] = own.held_bytes
                if before.operations == 1:
                    ending = before.tail_bytes + own.early_bytes
                    found[last, choice] = max(found[last, choice], ending)
                before, last = own, index
        return found

    def _by_choice(self, value: str, owner: int, most: int) -> list[float]:
        operand = self.operands[value]
        offers = self.offered[owner]
        sizes = [
            self._map_bytes(operand, _bytes_as(operand, stored_format(offer)), choice)
            for choice, offer in enumerate(offers)
        ]
        return [sizes[min(choice, len(sizes) - 1)] for choice in range(most)]

    def _map_bytes(self, operand: Operand, stored: float, choice: int) -> float:
        linear = operand.value in self.linear[choice] if self.linear else None
        return map_bytes(operand, stored, self.device, linear=linear)


def stored_format(quantizers: Quantizers) -> Quantizer | None:
    """Tensor-side Q/DQ: the format in which a region with these operands wants its input."""
    return quantizers.get("input") or quantizers.get("q")


def activations(operands: Iterable[Operand]) -> list[Operand]:
    """The operands that are neither constants nor caches."""
    return [operand for operand in operands if is_activation(operand)]


def _bytes_as(operand: Operand, quantizer: Quantizer | None) -> float:
    if quantizer is None:
        return float(operand.bytes)
    return float(quantizer.format.storage_bytes(operand.shape, operand.contraction_axes or (-1,)))
