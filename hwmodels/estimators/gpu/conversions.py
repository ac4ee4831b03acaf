"""What quantising and widening kernels take, where a runtime's tables show it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwmodels.estimators.gpu.kernels import array, product_of, sizes
from hwmodels.estimators.gpu.overhead import conversion_basis, overhead_s, widening_basis
from hwmodels.estimators.gpu.residual import GpuArtefact
from hwmodels.estimators.gpu.skeleton import Floats, GpuFigures, Terms
from hwmodels.work.kernel import Kernel
from hwmodels.work.loops import RowLoops

NARROW_BYTES = 0.8
"""Bytes of a quantised element below which it is a 4-bit one."""


def quantised_as(kernel: Kernel) -> str:
    """The measured number type whose quantisation a kernel is; empty for other kernels.

    A static cast of a whole tensor is a cast and nothing else.
    """
    if kernel.detail == "compute_scale":
        return "fp8_dynamic"
    if kernel.kind != "quantize" or kernel.detail in ("tensor", "requantize", "cast_fp8"):
        return ""
    assert isinstance(kernel.loops, RowLoops), kernel.kind
    elements = kernel.loops.rows * kernel.loops.cols
    if kernel.write_bytes < NARROW_BYTES * elements:
        return "nvfp4"
    return "fp8_block" if kernel.detail in ("group", "block") else "fp8_dynamic"


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
    """What weight-only and integer kernels were seen to take beside their GEMM."""
    rows, outputs, depth = (sizes(kernels, name) for name in ("m", "n", "k"))
    basis = widening_basis(rows, outputs, depth, gpu)
    seconds = np.zeros(len(kernels))
    for index, kernel in enumerate(kernels):
        name = f"{runtime}/{_widened_as(kernel)}"
        if name in artefact.overheads:
            seconds[index] = artefact.overheads[name].seconds(basis[index : index + 1])[0]
    return seconds


def _widened_as(kernel: Kernel) -> str:
    product = product_of(kernel)
    per_weight = kernel.weight_bytes / max(product.batch * product.n * product.k, 1)
    per_input = kernel.input_bytes / max(product.batch * product.m * product.k, 1)
    if kernel.input_element == "int8" and kernel.weight_element == "int8":
        return "w8a8_int8_dynamic"
    if per_weight >= 0.9 * per_input:
        return ""
    return "w4a16" if per_weight < NARROW_BYTES else "w8a16"
