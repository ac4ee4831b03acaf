"""Quantised weights, kept between runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dse.execute.operators.step import Quantize
from dse.execute.program.copy import copied
from dse.execute.program.recent import RecentTensors


class WeightCache:
    """The least recently used entries go first when the limit is reached."""

    def __init__(self, limit_bytes: int, device: torch.device | None = None) -> None:
        """`device` is that to which weights are copied before they are quantized, if they are."""
        self._device = device
        self._kept: RecentTensors[tuple[str, int, Quantize]] = RecentTensors(limit_bytes)

    @property
    def bytes(self) -> int:
        """Bytes of all entries."""
        return self._kept.bytes

    def inside(self, place: str) -> PlacedCache:
        """The same cache for a body, whose slots have numbers of their own."""
        return PlacedCache(cache=self, place=place)

    def quantized(
        self, slot: int, quantize: Quantize, weight: Tensor, *, place: str = ""
    ) -> Tensor:
        """The quantised weight of a slot; results that autograd tracks are never kept.

        `place` is the body that the slot is one of.
        """
        key = (place, slot, quantize)
        known = self._kept.get(key)
        if known is not None:
            return known
        # An inference tensor could not take part in a later backward pass.
        with torch.inference_mode(False):
            there = weight if self._device is None else copied(weight, self._device)
            result = quantize(there)
        if not result.requires_grad and result is not there:
            self._kept.keep(key, result)
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedCache:
    """A cache of weights as the slots of one body see it."""

    cache: WeightCache
    place: str

    def quantized(self, slot: int, quantize: Quantize, weight: Tensor) -> Tensor:
        """The quantised weight of a slot of the body."""
        return self.cache.quantized(slot, quantize, weight, place=self.place)
