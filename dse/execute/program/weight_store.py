"""Quantised weights, kept between runs."""

from __future__ import annotations

from collections.abc import Sequence
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
        (found,) = self.made(slot, (quantize,), weight, place=place)
        return found

    def made(
        self, slot: int, makers: Sequence[Quantize], weight: Tensor, *, place: str = ""
    ) -> tuple[Tensor, ...]:
        """As `quantized`, of several functions of a weight, which is copied once for all."""
        there: Tensor | None = None
        found = []
        for make in makers:
            key = (place, slot, make)
            known = self._kept.get(key)
            if known is None:
                # An inference tensor could not take part in a later backward pass.
                with torch.inference_mode(False):
                    if there is None:
                        there = weight if self._device is None else copied(weight, self._device)
                    known = make(there)
                if not known.requires_grad and known is not there:
                    self._kept.keep(key, known)
            found.append(known)
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedCache:
    """A cache of weights as the slots of one body see it."""

    cache: WeightCache
    place: str

    def quantized(self, slot: int, quantize: Quantize, weight: Tensor) -> Tensor:
        """The quantised weight of a slot of the body."""
        return self.cache.quantized(slot, quantize, weight, place=self.place)

    def made(self, slot: int, makers: Sequence[Quantize], weight: Tensor) -> tuple[Tensor, ...]:
        """As `WeightCache.made`, of a weight of the body."""
        return self.cache.made(slot, makers, weight, place=self.place)
