"""Products summed in narrow accumulators, and integer products whose operands have offsets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from dse.numerics import matmul, quantize
from dse.systems.measures.measure import Rows
from dse.systems.measures.quantization import error
from dse.systems.measures.tensors import Drawn, Size
from hwmodels.formats.accumulator import accumulator
from hwmodels.formats.catalog import quantizer
from hwmodels.validation import Entry

Bits = Annotated[int, Field(ge=2, le=16)]


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerSums(Entry):
    """Sums of random codes in accumulators of several widths, beside exact ones."""

    draws: ClassVar[bool] = True
    side: Size = 32
    """Rows of the first operand, and columns of the second."""
    depth: Size
    """Products of a sum."""
    input_bits: Bits = 8
    """Unsigned codes of the first operand."""
    weight_bits: Bits = 8
    """Signed codes of the second."""
    accumulators: Annotated[tuple[str, ...], Field(min_length=1)]
    """By name."""
    apart_bits: Bits | None = None
    """Weights beyond so many bits are multiplied apart, in int32; none are."""

    def rows(self, seed: int) -> Rows:
        """`<accumulator>`: share of sums that are wrong; `apart`: share of weights apart."""
        generator = torch.Generator().manual_seed(seed)
        limit = 1 << (self.weight_bits - 1)
        a = torch.randint(1 << self.input_bits, (self.side, self.depth), generator=generator)
        b = torch.randint(-limit, limit, (self.depth, self.side), generator=generator)
        exact, main, rest = a @ b, b, torch.zeros_like(b)
        if self.apart_bits is not None:
            inside = 1 << (self.apart_bits - 1)
            main = b.clamp(-inside, inside - 1)
            rest = b - main
        found = {"apart": float((rest != 0).double().mean())}
        for name in self.accumulators:
            sums = matmul(a, main, accumulator(name)) + a @ rest
            found[name] = float((sums != exact).double().mean())
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class AffineProduct(Entry):
    """An affine integer product by offsets of rows and columns, beside the shifted codes' own."""

    draws: ClassVar[bool] = True
    depth: Size = 256
    """Products of a sum."""
    bits: Bits = 8
    """Of both operands' codes."""

    def rows(self, seed: int) -> Rows:
        """`wrong`: sums that differ, of 64 x 64."""
        generator = torch.Generator().manual_seed(seed)
        top = 1 << self.bits
        a = torch.randint(top, (64, self.depth), generator=generator)
        b = torch.randint(-(top >> 1), top >> 1, (self.depth, 64), generator=generator)
        zero_a, zero_b = (int(torch.randint(top, (), generator=generator)) for _ in range(2))
        wide = accumulator("int32")
        shifted = (a - zero_a) @ (b - zero_b)
        offsets = (
            matmul(a, b, wide) - zero_b * a.sum(1, keepdim=True)
            - zero_a * b.sum(0, keepdim=True) + self.depth * zero_a * zero_b
        )  # fmt: skip
        return {"wrong": float((offsets != shifted).sum())}


@dataclass(frozen=True, slots=True, kw_only=True)
class TableProduct(Entry):
    """A product by look-ups in a table of all products of two codes, beside the integer one."""

    draws: ClassVar[bool] = True
    depth: Size = 256
    """Products of a sum."""
    weight_bits: Annotated[int, Field(ge=1, le=8)]
    """Signed codes."""
    input_bits: Annotated[int, Field(ge=1, le=8)]
    """Unsigned codes."""

    def rows(self, seed: int) -> Rows:
        """`wrong`: sums that differ, of 64 x 64; `entries` of the table."""
        generator = torch.Generator().manual_seed(seed)
        half = 1 << (self.weight_bits - 1)
        a = torch.randint(1 << self.input_bits, (64, self.depth), generator=generator)
        b = torch.randint(-half, half, (64, self.depth), generator=generator)
        weights = torch.arange(-half, half)
        table = (weights[:, None] * torch.arange(1 << self.input_bits)).reshape(-1)
        index = ((b + half) << self.input_bits)[None] | a[:, None]
        sums: Tensor = table[index].sum(-1)
        return {"wrong": float((sums != a @ b.T).sum()), "entries": float(len(table))}


@dataclass(frozen=True, slots=True, kw_only=True)
class SumError(Entry):
    """The error of products whose factors are in one format and whose sums in several others."""

    draws: ClassVar[bool] = True
    first: Drawn
    """(rows, depth)."""
    second: Drawn
    """(columns, depth)."""
    format: str
    """Of both factors, whose products are exact."""
    accumulators: Annotated[tuple[str, ...], Field(min_length=1)]
    """By name."""

    def rows(self, seed: int) -> Rows:
        """Relative error of each, from sums in float64."""
        chosen = quantizer(self.format)
        a, b = (
            quantize(one.draw(2 * seed + place), chosen, axes=(1,))
            for place, one in enumerate((self.first, self.second))
        )
        exact = a.double() @ b.double().T
        return {
            name: error(matmul(a, b.T, accumulator(name)), exact) for name in self.accumulators
        }
