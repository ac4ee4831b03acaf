"""Kernels as the arrays that the skeleton computes on, kind by kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hwmodels.devices.device import Device, Rate
from hwmodels.errors import WorkError
from hwmodels.estimators.gpu.attention import Attentions, attention_terms
from hwmodels.estimators.gpu.constants import SkeletonConstants
from hwmodels.estimators.gpu.convolution import Convolutions, convolution_terms
from hwmodels.estimators.gpu.moves import Moves, move_terms
from hwmodels.estimators.gpu.skeleton import Floats, Gemms, GpuFigures, Terms
from hwmodels.estimators.gpu.tiled import TiledGemms, tiled_terms
from hwmodels.formats.element import is_integer
from hwmodels.formats.quantizer import Format
from hwmodels.work.kernel import Kernel, KernelKind
from hwmodels.work.loops import ConvolutionLoops, ProductLoops

WIDE_ELEMENTS = ("fp32", "tf32")
"""Elements that attention has no tensor-core kernel for."""


def gemms_of(kernels: Sequence[Kernel], device: Device) -> Gemms:
    """GEMM and convolution kernels as arrays.

    Elements are as wide as their formats say. A tile of a convolution reads each input element
    once for all taps that it is under, and a stride beyond the kernel leaves pixels out: there the
    width is the input's bytes over the implicit GEMM's elements.
    """
    products = [product_of(kernel) for kernel in kernels]
    m, n, k, batch = (
        np.array([getattr(product, name) for product in products], dtype=float)
        for name in ("m", "n", "k", "batch")
    )
    weights = array(kernels, lambda kernel: kernel.weight_bytes)
    cold, warm = temperatures(kernels)
    skipped = array(kernels, _skipped_bytes)
    warm_inputs = array(kernels, lambda kernel: not kernel.inputs_are_cold)
    copies = array(kernels, lambda kernel: kernel.weight_copies)
    return Gemms(
        batch=batch,
        m=m,
        n=n,
        k=k,
        input_bytes=array(kernels, _tile_input_bytes),
        weight_bytes=array(kernels, lambda kernel: _element_bytes(kernel.weight_format)),
        cold_bytes=cold - skipped * (1 - warm_inputs),
        warm_bytes=warm - skipped * warm_inputs,
        copied_bytes=weights * (copies > 1),
        copies=copies,
        ops_per_s=rates(kernels, device) * array(kernels, lambda kernel: kernel.efficiency),
        peak_ops_per_s=rates(kernels, device),
        integer=array(kernels, lambda kernel: is_integer(kernel.input_element)),
    )


def product_of(kernel: Kernel) -> ProductLoops:
    """The product that a GEMM or a convolution amounts to."""
    assert isinstance(kernel.loops, ProductLoops | ConvolutionLoops), kernel.kind
    return kernel.loops.product


def _element_bytes(stored: Format | None) -> float:
    """Bytes of an element with its share of the group's scale."""
    assert stored is not None, "kernels that multiply have both formats"
    return stored.bits_per_element / 8


def _tile_input_bytes(kernel: Kernel) -> float:
    if not isinstance(kernel.loops, ConvolutionLoops):
        return _element_bytes(kernel.input_format)
    product = kernel.loops.product
    return kernel.input_bytes / max(product.batch * product.m * product.k, 1)


def _width(kernel: Kernel) -> float:
    stored = kernel.input_format or kernel.output_format
    return _element_bytes(stored) if stored else 0.0


def _skipped_bytes(kernel: Kernel) -> float:
    """Bytes of the input under no tap."""
    if not isinstance(kernel.loops, ConvolutionLoops):
        return 0.0
    return kernel.input_bytes * (1 - kernel.loops.read_share)


def _convolution(
    kernels: Sequence[Kernel], device: Device, gpu: GpuFigures, constants: SkeletonConstants
) -> Terms:
    convolutions = Convolutions(
        gemms=gemms_of(kernels, device),
        taps=array(kernels, lambda kernel: kernel.loops.taps),  # type: ignore[union-attr]
        fp32=array(kernels, lambda kernel: kernel.input_element == "fp32"),
    )
    return convolution_terms(convolutions, gpu, constants)


def _attention(
    kernels: Sequence[Kernel], device: Device, gpu: GpuFigures, constants: SkeletonConstants
) -> Terms:
    cold, warm = temperatures(kernels)
    attentions = Attentions(
        batch=sizes(kernels, "batch"),
        heads=sizes(kernels, "heads"),
        kv_heads=sizes(kernels, "kv_heads"),
        queries=sizes(kernels, "queries"),
        keys=sizes(kernels, "keys"),
        depth=sizes(kernels, "depth"),
        ops=array(kernels, lambda kernel: 2 * kernel.macs),
        cold_bytes=cold,
        warm_bytes=warm,
        kv_bytes=array(kernels, lambda kernel: kernel.weight_bytes),
        ops_per_s=rates(kernels, device) * array(kernels, lambda kernel: kernel.efficiency),
        peak_ops_per_s=rates(kernels, device),
        fp32=array(kernels, lambda kernel: kernel.input_element in WIDE_ELEMENTS),
    )
    return attention_terms(attentions, gpu, constants)


def _move(
    kernels: Sequence[Kernel], _device: Device, gpu: GpuFigures, constants: SkeletonConstants
) -> Terms:
    cold, warm = temperatures(kernels)
    moves = Moves(
        constants=[constants.move(kernel.kind, kernel.detail) for kernel in kernels],
        rows=sizes(kernels, "rows"),
        cols=sizes(kernels, "cols"),
        widths=array(kernels, _width),
        cold_bytes=cold,
        warm_bytes=warm,
    )
    return move_terms(moves, gpu, constants)


def _tiled(
    kernels: Sequence[Kernel], device: Device, gpu: GpuFigures, constants: SkeletonConstants
) -> Terms:
    cold, warm = temperatures(kernels)
    gemms = TiledGemms(
        m=sizes(kernels, "m") * sizes(kernels, "batch"),
        n=sizes(kernels, "n"),
        k=sizes(kernels, "k"),
        rows=array(kernels, lambda kernel: kernel.tile[0]),
        cols=array(kernels, lambda kernel: kernel.tile[1]),
        input_bytes=array(kernels, lambda kernel: kernel.input_bytes),
        weight_bytes=array(kernels, lambda kernel: kernel.weight_bytes),
        cold_bytes=cold,
        warm_bytes=warm,
        ops=array(kernels, lambda kernel: 2 * kernel.macs),
        ops_per_s=rates(kernels, device) * array(kernels, lambda kernel: kernel.efficiency),
        peak_ops_per_s=rates(kernels, device),
    )
    return tiled_terms(gemms, gpu, constants)


_TermsOf = Callable[[Sequence[Kernel], Device, GpuFigures, SkeletonConstants], Terms]
TERMS: dict[KernelKind, _TermsOf] = {
    "tiled_gemm": _tiled,
    "conv2d": _convolution,
    "attention": _attention,
    "pointwise": _move,
    "rowwise": _move,
    "reduce": _move,
    "embedding": _move,
    "quantize": _move,
}
"""The skeleton of every kind of kernel but GEMMs of libraries, whose residual is learned."""


def sizes(kernels: Sequence[Kernel], name: str) -> Floats:
    """One loop size of kernels of one kind, by its field in their loops."""
    return np.array([getattr(kernel.loops, name) for kernel in kernels], dtype=float)


def array(kernels: Sequence[Kernel], figure: Callable[[Kernel], float]) -> Floats:
    """One figure of every kernel."""
    return np.array([figure(kernel) for kernel in kernels], dtype=float)


def rates(kernels: Sequence[Kernel], device: Device) -> Floats:
    """Peak operations per second of what each kernel multiplies, shape (kernels,).

    At the clock that the unit keeps up under load.

    Raises:
        WorkError: Operands that no unit of the device multiplies.
    """
    return array(kernels, lambda kernel: _ops_per_s(kernel, device))


def sustained_shares(kernels: Sequence[Kernel], device: Device) -> Floats:
    """Share of its rate that the unit of each kernel keeps up under load; 1 for what moves."""
    return array(
        kernels,
        lambda kernel: device.sustained_share(_rate(kernel, device)) if kernel.macs else 1.0,
    )


def _rate(kernel: Kernel, device: Device) -> Rate:
    rate = device.rate(kernel.weight_element, kernel.input_element, kernel.accumulator)
    rate = rate or device.rate(kernel.weight_element, kernel.input_element)
    if rate is None:
        raise WorkError(
            f"{device.name} has no unit that multiplies {kernel.weight_element} with "
            f"{kernel.input_element}; it has {', '.join(sorted(device.elements))}"
        )
    return rate


def _ops_per_s(kernel: Kernel, device: Device) -> float:
    rate = _rate(kernel, device)
    return rate.ops_per_s.value * device.sustained_share(rate)


def temperatures(kernels: Sequence[Kernel]) -> tuple[Floats, Floats]:
    """Bytes that must come from main memory, and bytes that may be in the cache."""
    cold = array(
        kernels,
        lambda kernel: (
            kernel.bytes if kernel.inputs_are_cold else kernel.weight_bytes * kernel.weight_is_cold
        ),
    )
    total = array(kernels, lambda kernel: kernel.bytes)
    return cold, total - cold
