"""Families of kernels that libraries write alike, which measurements correct together."""

from __future__ import annotations

from hwmodels.work.kernel import Kernel
from hwmodels.work.loops import AttentionLoops, ConvolutionLoops, ProductLoops

FEW_ROWS = 4
"""Rows of a product up to which libraries take kernels for vectors."""
SHALLOW = 8
"""Input channels of a group below which convolutions have kernels of their own: images."""


def family_of(kernel: Kernel) -> str:
    """The family's name: of rows and elements the kernel's detail."""
    loops = kernel.loops
    if isinstance(loops, ConvolutionLoops):
        return _of_convolution(loops)
    if isinstance(loops, AttentionLoops):
        return "decoding" if loops.queries <= FEW_ROWS else "attention"
    if kernel.kind == "gemm" and isinstance(loops, ProductLoops):
        if kernel.weight_is_cold or kernel.weight_copies > 1:
            return "vector" if loops.m <= FEW_ROWS else "product"
        return "batched"
    return kernel.detail or kernel.kind


def element_of(kernel: Kernel) -> str:
    """The element that is multiplied, or that rows are stored in."""
    stored = kernel.input_format or kernel.output_format
    return kernel.input_element or (stored.element.name if stored else "")


def is_depthwise(loops: ConvolutionLoops) -> bool:
    """Whether every channel has kernels of its own."""
    return loops.groups > 1 and loops.in_channels == loops.groups


def _of_convolution(loops: ConvolutionLoops) -> str:
    if is_depthwise(loops):
        return "depthwise"
    if loops.in_channels // loops.groups < SHALLOW:
        return "shallow"
    return "convolution" if loops.taps > 1 else "pointwise_convolution"
