"""Kernels that look products up instead of multiplying, and that sum in narrow accumulators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from hwmodels.validation import Entry

Size = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NARROW_SUMS = ("int16", "int16:saturate")
"""Accumulators that only kernels made for them use: sums of ordinary weights would overflow."""
Algorithm = Literal["direct", "im2col", "winograd"]
"""Ways to convolve: maps as they lie, a matrix of all windows, 3 x 3 kernels in F(2 x 2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup(Entry):
    """A table in place of a multiplier.

    A byte of a register is an index; a shuffle looks up as many as a register has. Tables of more
    than 16 entries lie in memory, where a load is one look-up.
    """

    index_bits: Size
    """Bits of an index: 4 for a weight and an activation of 2 bits each."""
    entry_bytes: Size = 1
    """Bytes of an entry: wider ones take a shuffle a byte."""
    products: Positive = 1.0
    """Multiply-accumulates that one look-up stands for: the weights of a group whose sums with
    an activation are tabulated."""
    instructions: Positive
    """Vector instructions of one register of look-ups: unpacking, joining the index, the shuffle,
    widening, adding."""
    of_activations: bool = False
    """Whether tables hold sums of the activations at hand, and are made in every call."""

    @property
    def entries(self) -> int:
        """Entries of a table."""
        return 1 << self.index_bits

    @property
    def table_bytes(self) -> int:
        """Bytes of a table."""
        return self.entries * self.entry_bytes
