"""Kernels that quantise an activation and rescale a product, as the runtime's file lists them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from hwmodels.formats.quantizer import Format
from hwmodels.plans.launches import STRIDED
from hwmodels.runtimes.quantisation import Bits, Quantisation, QuantisationKernel
from hwmodels.work.kernel import Kernel
from hwmodels.work.loops import RowLoops
from hwmodels.work.work import Operand, plain_format

SCALE_BITS = 32
PRODUCT_BITS = 32
"""Of an element of an integer product."""
ONE_BLOCK, MANY_BLOCKS = "whole_reduction", "split_reduction"
"""Details of reductions of a whole tensor (`hwmodels.estimators.gpu.constants`)."""


def quantising(
    operand: Operand, rule: Quantisation, *, fused: bool = False, cold: bool = False
) -> tuple[Kernel, ...]:
    """The kernels that bring a 16-bit activation into its operand's format.

    `fused`: those that run within the producer are left out. `cold`: the first one finds the
    activation in main memory.
    """
    assert operand.quantizer is not None, "only quantized operands are converted"
    steps = [step for step in rule.kernels if not (fused and step.fuses)]
    return _launched(steps, operand, operand.quantizer.format, cold=cold)


def rounding(operand: Operand, steps: Sequence[QuantisationKernel]) -> tuple[Kernel, ...]:
    """The kernels that round a 16-bit activation and leave it in 16 bit."""
    assert operand.quantizer is not None, "only quantized operands are rounded"
    return _launched(steps, operand, operand.quantizer.format, cold=False)


def rescaling(product: Operand, rule: Quantisation) -> tuple[Kernel, ...]:
    """The kernels that bring an int32 product to 16 bit."""
    return _launched(rule.rescale, product, plain_format(PRODUCT_BITS), cold=False)


def _launched(
    steps: Sequence[QuantisationKernel], operand: Operand, fmt: Format, *, cold: bool
) -> tuple[Kernel, ...]:
    kernels = [kernel for step in steps for kernel in _kernels(step, operand, fmt)]
    return tuple(
        replace(kernel, inputs_are_cold=cold and place == 0)
        for place, kernel in enumerate(kernels)
    )


def _kernels(step: QuantisationKernel, operand: Operand, fmt: Format) -> list[Kernel]:
    rows, cols = math.prod(operand.shape[:-1]), operand.shape[-1] if operand.shape else 1
    writes = step.kind == "quantize"
    written = _bytes(step.write, operand)
    if step.kind == "reduce":
        written = SCALE_BITS // 8 * (rows if fmt.granularity == "token" else 1)
    kernel = Kernel(
        kind=step.kind,
        detail=STRIDED if step.broadcasts else step.op or fmt.granularity,
        loops=RowLoops(rows=rows, cols=cols),
        input_format=_format(step.read, fmt),
        output_format=fmt if writes else _format(step.write, fmt),
        grid=fmt if writes else None,
        input_bytes=_bytes(step.read, operand),
        write_bytes=written,
    )
    return _whole(step, kernel, rows * cols) if step.alone else [kernel]


def _whole(step: QuantisationKernel, kernel: Kernel, count: int) -> list[Kernel]:
    """A reduction of a tensor of `count` elements."""
    if count <= step.alone:
        return [replace(kernel, detail=ONE_BLOCK, loops=RowLoops(rows=1, cols=count))]
    blocks = RowLoops(rows=-(-count // step.part), cols=step.part)
    counter = Kernel(kind="pointwise", detail="memset", write_bytes=SCALE_BITS // 8)
    return [counter, replace(kernel, detail=MANY_BLOCKS, loops=blocks)]


def _bytes(bits: Bits, operand: Operand) -> int:
    return -(-operand.elements * bits // 8) if isinstance(bits, int) else operand.bytes


def _format(bits: Bits, fmt: Format) -> Format | None:
    if isinstance(bits, int):
        return plain_format(bits) if bits else None
    return fmt
