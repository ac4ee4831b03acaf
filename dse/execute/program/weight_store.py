"""Quantised weights, kept between runs."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor

from dse.execute.operators.step import Quantize


class WeightCache:
    """The least recently used entries go first when the limit is reached."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._entries: OrderedDict[tuple[str, int, Quantize], Tensor] = OrderedDict()

    @property
    def bytes(self) -> int:
        """Bytes of all entries."""
        return self._bytes

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
        if key in self._entries:
            self._entries.move_to_end(key)
            return self._entries[key]
        # An inference tensor could not take part in a later backward pass.
        with torch.inference_mode(False):
            result = quantize(weight)
        if not result.requires_grad and result is not weight:
            self._keep(key, result)
        return result

    def _keep(self, key: tuple[str, int, Quantize], result: Tensor) -> None:
        size = result.numel() * result.element_size()
        if size > self._limit_bytes:
            return
        self._entries[key] = result
        self._bytes += size
        while self._bytes > self._limit_bytes:
            _, old = self._entries.popitem(last=False)
            self._bytes -= old.numel() * old.element_size()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedCache:
    """A cache of weights as the slots of one body see it."""

    cache: WeightCache
    place: str

    def quantized(self, slot: int, quantize: Quantize, weight: Tensor) -> Tensor:
        """The quantised weight of a slot of the body."""
        return self.cache.quantized(slot, quantize, weight, place=self.place)
