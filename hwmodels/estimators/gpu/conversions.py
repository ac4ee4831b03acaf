"""Time of quantising and widening kernels, where a runtime's tables show it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwmodels.estimators.gpu.kernels import array, sizes
from hwmodels.estimators.gpu.overhead import conversion_basis, overhead_s, widening_basis
from hwmodels.estimators.gpu.residual import GpuArtefact
from hwmodels.estimators.gpu.skeleton import Floats, GpuFigures, Terms
from hwmodels.formats.quantizer import Format
from hwmodels.operators.number_type import NUMBER_TYPES, WEIGHT_ONLY_SHARE
from hwmodels.work.kernel import Kernel

WHOLE_BITS = 8
"""Narrower elements share bytes: kernels pack and unpack them."""


def quantised_as(kernel: Kernel) -> str:
    """The number type whose quantisation a kernel is; empty for other kernels.

    To 8 bits, or to a grid that is stored in more, only what shares a scale matters: a row, or a
    group within it. Packed elements are those of the measured type of the same layout; others go
    by their format's own name, which nobody measured (`overhead_s`). A static cast of a whole
    tensor is a cast and nothing else.
    """
    if kernel.detail == "compute_scale":
        return "fp8_dynamic"
    grid, stored = kernel.grid, kernel.output_format
    if grid is None or stored is None or grid.granularity == "tensor":
        return ""
    if stored.element.bits >= WHOLE_BITS:
        return "fp8_block" if grid.granularity in ("group", "block") else "fp8_dynamic"
    same = [
        name
        for name, number in NUMBER_TYPES.items()
        if number.quantizes and _layout(number.input) == _layout(grid)
    ]
    return same[0] if same else grid.name


def _layout(fmt: Format) -> tuple[object, ...]:
    """Everything that a quantising kernel does differently: not the name, not the source."""
    scale = fmt.scale.encoding if fmt.scale else None
    return fmt.element, fmt.granularity, fmt.group, fmt.block_rows, scale, fmt.tensor_scale


def conversions_s(
    artefact: GpuArtefact, kernels: Sequence[Kernel], terms: Terms, gpu: GpuFigures, runtime: str
) -> Floats:
    """The skeleton's seconds, but those of measured quantisation kernels.

    A scale over the whole tensor and its cast were measured together: the first kernel takes what
    the cast leaves.
    """
    names = [quantised_as(kernel) for kernel in kernels]
    if not any(names) or not artefact.quantises(runtime):
        return terms.latency_s
    moved = array(kernels, lambda kernel: kernel.bytes)
    rows, cols = sizes(kernels, "rows"), sizes(kernels, "cols")
    basis = conversion_basis(rows, cols, moved, gpu, artefact.constants)
    seconds = terms.latency_s.copy()
    for index, (kernel, name) in enumerate(zip(kernels, names, strict=True)):
        if name:
            row = basis[index : index + 1]
            whole = float(overhead_s(artefact.overheads, runtime, name, row)[0])
            scale = kernel.detail == "compute_scale"
            seconds[index] = max(whole - seconds[index], gpu.launch_s) if scale else whole
    return seconds


def widening_s(
    kernels: Sequence[Kernel], artefact: GpuArtefact, gpu: GpuFigures, runtime: str
) -> Floats:
    """Seconds that weight-only and integer kernels were seen to take beside their GEMM."""
    rows, outputs, depth = (sizes(kernels, name) for name in ("m", "n", "k"))
    basis = widening_basis(rows, outputs, depth, gpu)
    seconds = np.zeros(len(kernels))
    for index, kernel in enumerate(kernels):
        name = f"{runtime}/{_widened_as(kernel)}"
        if name in artefact.overheads:
            seconds[index] = artefact.overheads[name].seconds(basis[index : index + 1])[0]
    return seconds


def _widened_as(kernel: Kernel) -> str:
    """The number type whose work beside the product a kernel has; empty where it has none."""
    if kernel.input_element == "int8" and kernel.weight_element == "int8":
        return "w8a8_int8_dynamic"
    weight, input_ = kernel.weight_format, kernel.input_format
    assert weight is not None, "kernels that multiply have both formats"
    assert input_ is not None, "kernels that multiply have both formats"
    if weight.bits_per_element >= WEIGHT_ONLY_SHARE * input_.bits_per_element:
        return ""
    return "w4a16" if weight.element.bits < WHOLE_BITS else "w8a16"
