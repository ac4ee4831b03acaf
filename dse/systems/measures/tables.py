"""Formats as tables of codes: their ends, their bits, and the same format by other hands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

import ml_dtypes
import numpy as np
import torch
from pydantic import Field

from dse.numerics import quantize
from dse.systems.measures.measure import Rows
from dse.systems.measures.tensors import Size
from hwmodels.formats.catalog import format, quantizer
from hwmodels.formats.numbers import sorted_values
from hwmodels.validation import Entry

OTHERS: Mapping[str, Any] = MappingProxyType({
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn, "float8_e5m2": ml_dtypes.float8_e5m2,
    "float8_e4m3": ml_dtypes.float8_e4m3, "float4_e2m1fn": ml_dtypes.float4_e2m1fn,
    "float6_e2m3fn": ml_dtypes.float6_e2m3fn, "float6_e3m2fn": ml_dtypes.float6_e3m2fn,
    "float8_e8m0fnu": ml_dtypes.float8_e8m0fnu, "bfloat16": ml_dtypes.bfloat16,
    "float16": np.float16,
})  # fmt: skip
"""Formats of ml_dtypes and numpy."""


LISTED_BITS = 16
"""Widest elements whose values are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatFacts(Entry):
    """The ends and bits of formats."""

    draws: ClassVar[bool] = False
    formats: Annotated[tuple[str, ...], Field(min_length=1)]
    """By name."""
    between: tuple[float, float] = (0.5, 2.0)
    """The interval whose values `values` counts, its upper end not."""

    def rows(self, seed: int) -> Rows:
        """`<format> bits` with scales, `largest`, `smallest`; `values` of up to 16 bits."""
        del seed
        found: dict[str, float] = {}
        for name in self.formats:
            stored = format(name)
            found |= {f"{name} bits": stored.bits_per_element,
                      f"{name} largest": stored.element.max,
                      f"{name} smallest": stored.element.min_subnormal}  # fmt: skip
            if stored.element.bits <= LISTED_BITS:
                values = sorted_values(stored.element)
                low, high = self.between
                found[f"{name} values"] = float(((values >= low) & (values < high)).sum())
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeTable(Entry):
    """A format beside the same one by other hands: every code, and casts of random numbers."""

    draws: ClassVar[bool] = True
    formats: Annotated[Mapping[str, str], Field(min_length=1)]
    """Name in ml_dtypes or numpy, by name here."""
    casts: Size = 1_000_000
    """Random float32 numbers, over all binades of the format and two beyond."""

    def rows(self, seed: int) -> Rows:
        """`<format> codes` and `casts` that differ; `values` of the table."""
        found = {}
        for name, other in self.formats.items():
            theirs = _values(OTHERS[other])
            ours = sorted_values(format(name).element)
            found[f"{name} values"] = float(len(ours))
            found[f"{name} codes"] = float(len(set(ours.tolist()) ^ set(theirs.tolist())))
            found[f"{name} casts"] = self._casts(name, theirs, seed)
        return found

    def _casts(self, name: str, theirs: np.ndarray, seed: int) -> float:
        """Casts that are not the nearest of their values, ties to the even one; ends saturate."""
        rng = np.random.default_rng(seed)
        sizes = np.abs(theirs[theirs != 0])
        low, high = np.log2(sizes.min()) - 2, min(np.log2(sizes.max()) + 2, 127.0)
        x = np.exp2(rng.uniform(low, high, self.casts)) * rng.choice([-1.0, 1.0], self.casts)
        x = x.astype(np.float32)
        x = np.abs(x) if theirs.min() >= 0 else x
        inside = np.abs(x) <= sizes.max()
        ours = quantize(torch.from_numpy(x)[None], quantizer(name), axes=(1,))[0].numpy()
        dtype = OTHERS[self.formats[name]]
        cast = x[inside].astype(dtype).astype(np.float32)
        return float((ours[inside] != cast).sum())


def _values(dtype: Any) -> np.ndarray:
    """All finite values of a type, each once, rising."""
    bits = np.dtype(dtype).itemsize * 8
    codes = np.arange(1 << bits, dtype=np.uint16 if bits == 16 else np.uint8)
    if not isinstance(dtype, type) or dtype is not np.float16:
        narrow = int(ml_dtypes.finfo(dtype).bits)
        codes = codes[: 1 << narrow]
    with np.errstate(invalid="ignore"):  # signalling NaN among the codes
        values = codes.view(dtype).astype(np.float64)
    return np.unique(values[np.isfinite(values)])
