"""Kernels that quantise an activation: what a low-precision GEMM pays before it starts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from hwmodels.formats.quantizer import Format, Quantizer
from hwmodels.plans.quantisation import quantising, rounding
from hwmodels.runtimes.quantisation import Quantisation
from hwmodels.runtimes.runtime import Runtime
from hwmodels.work.kernel import Kernel
from hwmodels.work.loops import RowLoops
from hwmodels.work.work import Operand, plain_format

BF16, FP32 = plain_format(16), plain_format(32)
PLAIN_BYTES = 2
"""An activation between kernels is 16 bit where Q/DQ stands at the consumer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """A value brought into another format once, for all consumers that want it."""

    value: str
    target: str
    """The quantizer's name."""
    kernels: tuple[Kernel, ...]
    """Empty where the producer writes the format itself."""
    copy_bytes: int
    """Bytes of the converted copy, alive until its consumer is done."""
    is_shared: bool = True
    """Whether consumers that want one value in one format convert it once for all of them."""

    @property
    def key(self) -> tuple[str, str]:
        """Identity: conversions of one value into one format are one."""
        return self.value, self.target


def kernels_of(conversions: Iterable[Conversion]) -> list[Kernel]:
    """Kernels of conversions, in order."""
    return [kernel for conversion in conversions for kernel in conversion.kernels]


def quantize_kernels(operand: Operand, rule: Quantisation, *, fused: bool) -> Conversion:
    """The conversion of a 16-bit activation into its operand's quantizer.

    `fused`: kernels that can run within the producer do so.
    """
    assert operand.quantizer is not None, "only quantized operands are converted"
    return Conversion(
        value=operand.value,
        target=operand.quantizer.name,
        kernels=quantising(operand, rule, fused=fused),
        copy_bytes=operand.bytes,
    )


def fake_quantize_kernels(operand: Operand, runtime: Runtime) -> tuple[Kernel, ...]:
    """Kernels that round a 16-bit activation onto a grid and write it back in 16 bit."""
    quantizer = operand.quantizer
    assert quantizer is not None, "only quantized operands are rounded"
    plain = _plain_bytes(operand)
    kernels = rounding(operand, runtime.rounding) or (
        _cast(operand, plain, plain, quantizer.format, BF16),
    )
    dynamic = quantizer.timing == "dynamic" and quantizer.format.scale is not None
    return (_maximum(operand), *kernels) if dynamic else kernels


def requantize_kernel(
    operand: Operand, stored: Quantizer | None, wanted: Quantizer | None
) -> Kernel:
    """Tensor-side Q/DQ: a stored value read in one format and written in another."""
    return Kernel(
        kind="quantize",
        detail="requantize",
        loops=_rows(operand),
        input_format=stored.format if stored else BF16,
        output_format=wanted.format if wanted else BF16,
        input_bytes=_bytes_in(operand, stored),
        write_bytes=_bytes_in(operand, wanted),
    )


def _bytes_in(operand: Operand, quantizer: Quantizer | None) -> int:
    if quantizer is None:
        return _plain_bytes(operand)
    return quantizer.format.storage_bytes(operand.shape, operand.contraction_axes or (-1,))


def _maximum(operand: Operand) -> Kernel:
    return Kernel(
        kind="reduce",
        detail="compute_scale",
        loops=_rows(operand),
        input_format=BF16,
        output_format=FP32,
        input_bytes=_plain_bytes(operand),
        write_bytes=4,
    )


def _cast(operand: Operand, read: int, written: int, grid: Format, stored: Format) -> Kernel:
    return Kernel(
        kind="quantize",
        detail=grid.granularity,
        loops=_rows(operand),
        input_format=BF16,
        output_format=stored,
        grid=grid,
        input_bytes=read,
        write_bytes=written,
    )


def _plain_bytes(operand: Operand) -> int:
    return operand.elements * PLAIN_BYTES


def _rows(operand: Operand) -> RowLoops:
    cols = operand.shape[-1] if operand.shape else 1
    return RowLoops(rows=math.prod(operand.shape[:-1]), cols=cols)
