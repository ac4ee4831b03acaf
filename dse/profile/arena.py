"""Random values in device memory, handed out in pieces that do not overlap.

Operands of repeated calls are pieces of one block, so that each call finds its inputs cold, and
no row pays for filling memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

ALIGNMENT = 256
"""Bytes; what allocators give, so that kernels may load whole vectors."""
DRAWN = 2**22
"""Values drawn; longer blocks repeat them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """A contiguous tensor of random values: normal floats, uniform integers."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    high: int = 0
    """Integers are below this; 0: over the whole range of the type."""

    @property
    def bytes(self) -> int:
        """Bytes taken from the arena."""
        count = math.prod(self.shape) * self.dtype.itemsize
        return -(-count // ALIGNMENT) * ALIGNMENT


class Arena:
    """Blocks of random values by number type, which grow and are never given back."""

    def __init__(self, device: torch.device, seed: int = 0) -> None:
        self.device = device
        self._generator = torch.Generator(device=device).manual_seed(seed)
        self._blocks: dict[tuple[torch.dtype, int], torch.Tensor] = {}

    def sets(
        self, operands: Sequence[Operand], count: int
    ) -> tuple[tuple[torch.Tensor, ...], ...]:
        """`count` sets of operands, none of which share memory with another set."""
        needed: dict[tuple[torch.dtype, int], int] = {}
        for operand in operands:
            key = (operand.dtype, operand.high)
            needed[key] = needed.get(key, 0) + operand.bytes * count
        # Every vocabulary has a block of its own: those of others would pile up.
        self._blocks = {
            key: block for key, block in self._blocks.items() if key in needed or not key[1]
        }
        used = dict.fromkeys(needed, 0)
        for key, size in needed.items():
            self._grow(key, size)
        return tuple(tuple(self._piece(one, used) for one in operands) for _ in range(count))

    def release(self) -> None:
        """Gives all blocks back."""
        self._blocks.clear()

    def _piece(self, operand: Operand, used: dict[tuple[torch.dtype, int], int]) -> torch.Tensor:
        key = (operand.dtype, operand.high)
        start = used[key] // operand.dtype.itemsize
        used[key] += operand.bytes
        flat = self._blocks[key][start : start + math.prod(operand.shape)]
        return flat.view(operand.shape)

    def _grow(self, key: tuple[torch.dtype, int], size: int) -> None:
        dtype, high = key
        count = -(-size // dtype.itemsize)
        block = self._blocks.pop(key, None)
        if block is None or len(block) < count:
            del block
            values = self._drawn(dtype, high, min(count, DRAWN))
            block = values.repeat(-(-count // len(values)))[:count]
        self._blocks[key] = block

    def _drawn(self, dtype: torch.dtype, high: int, count: int) -> torch.Tensor:
        if dtype.is_floating_point:
            normal = torch.randn(count, generator=self._generator, device=self.device)
            return normal.to(dtype)
        limits = torch.iinfo(dtype)
        low, top = (0, high) if high else (limits.min, limits.max)
        return torch.randint(
            low, top, (count,), generator=self._generator, device=self.device, dtype=dtype
        )
