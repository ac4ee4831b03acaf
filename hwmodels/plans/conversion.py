"""Kernels that quantise an activation: what a low-precision GEMM pays before it starts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hwmodels.formats.quantizer import Quantizer
from hwmodels.work.kernel import Kernel
from hwmodels.work.work import Operand

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

    @property
    def key(self) -> tuple[str, str]:
        """What makes two conversions the same."""
        return self.value, self.target


def quantize_kernels(operand: Operand, *, fused: bool) -> Conversion:
    """The conversion of a 16-bit activation into its operand's quantizer.

    A scale over the whole tensor that is computed at run time needs the tensor's maximum first:
    one more pass that no producer can take in. Everything else is one kernel, or none if `fused`.
    """
    quantizer = operand.quantizer
    assert quantizer is not None, "only quantized operands are converted"
    whole = quantizer.timing == "dynamic" and quantizer.format.granularity == "tensor"
    needs_maximum = whole and quantizer.format.scale is not None
    kernels: list[Kernel] = []
    if needs_maximum:
        kernels.append(_maximum(operand))
    if needs_maximum or not fused:
        kernels.append(_cast(operand, _plain_bytes(operand), operand.bytes, quantizer))
    return Conversion(
        value=operand.value,
        target=quantizer.name,
        kernels=tuple(kernels),
        copy_bytes=operand.bytes,
    )


def fake_quantize_kernels(operand: Operand) -> tuple[Kernel, ...]:
    """Kernels that round a 16-bit activation onto a grid and write it back in 16 bit."""
    quantizer = operand.quantizer
    assert quantizer is not None, "only quantized operands are rounded"
    plain = _plain_bytes(operand)
    cast = _cast(operand, plain, plain, quantizer)
    dynamic = quantizer.timing == "dynamic" and quantizer.format.scale is not None
    return (_maximum(operand), cast) if dynamic else (cast,)


def requantize_kernel(
    operand: Operand, stored: Quantizer | None, wanted: Quantizer | None
) -> Kernel:
    """Tensor-side Q/DQ: a stored value read in one format and written in another."""
    return Kernel(
        kind="quantize",
        detail="requantize",
        sizes=_rows(operand),
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
        sizes=_rows(operand),
        input_bytes=_plain_bytes(operand),
        write_bytes=4,
    )


def _cast(operand: Operand, read: int, written: int, quantizer: Quantizer) -> Kernel:
    return Kernel(
        kind="quantize",
        detail=quantizer.format.granularity,
        sizes=_rows(operand),
        input_bytes=read,
        write_bytes=written,
    )


def _plain_bytes(operand: Operand) -> int:
    return operand.elements * PLAIN_BYTES


def _rows(operand: Operand) -> dict[str, int]:
    cols = operand.shape[-1] if operand.shape else 1
    return {"rows": math.prod(operand.shape[:-1]), "cols": cols}
