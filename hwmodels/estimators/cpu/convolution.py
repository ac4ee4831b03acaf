"""Convolutions on processors: over maps as they lie, over unfolded windows, or transformed.

Direct kernels walk along a row of outputs in tiles of registers, the channels of a tap inside;
`im2col` writes all windows as a matrix and multiplies that; F(2 x 2, 3 x 3) multiplies 16 values
where 36 were, between transforms of maps. Kernels of single channels run on the vector unit.
"""

from __future__ import annotations

import math

from hwmodels.estimators.cpu.demand import Demand
from hwmodels.estimators.cpu.family import element_of, family_of, is_depthwise
from hwmodels.estimators.cpu.processor import Processor
from hwmodels.estimators.cpu.product import (
    counted_rows,
    macs_per_s,
    outliers_s,
    packed_s,
    staging,
    temperatures,
    vector_rate,
    whole_share,
)
from hwmodels.formats.encodings import ENCODINGS
from hwmodels.granules import up
from hwmodels.work.kernel import Kernel
from hwmodels.work.loops import ConvolutionLoops

WINOGRAD_TAPS = (3, 3)
WINOGRAD_SAVES = 36 / 16
WINOGRAD_INPUTS = 4.0
"""Values of a transformed map for one of the map: tiles of 4 x 4 are 2 apart."""
FLOAT_BYTES = 4


def convolution_demand(kernel: Kernel, processor: Processor) -> Demand:
    """The demand of a convolution.

    Raises:
        WorkError: Elements that nothing multiplies.
    """
    loops = kernel.loops
    assert isinstance(loops, ConvolutionLoops), "kernels check their loops"
    if is_depthwise(loops):
        return _depthwise(kernel, loops, processor)
    one = processor.instructions(kernel)
    rate = macs_per_s(one, kernel, processor)
    product = loops.product
    unfolded = kernel.algorithm == "im2col" and loops.taps > 1
    height, width = loops.out_size
    if unfolded or loops.taps == 1:
        rows = counted_rows(product.m, one, processor)
        pieces = math.ceil(product.m / one.tile[0])
        whole = whole_share(rows, product.n, one)
    else:
        rows = loops.images * height * counted_rows(width, one, processor)
        pieces = loops.images * height
        across = min(one.tile[1], up(product.n, one.lanes)) / up(product.n, one.lanes)
        whole = across / pieces
    channels = up(loops.in_channels // loops.groups, one.depth)
    depth = up(product.k, one.depth) if unfolded else channels * loops.taps
    padded = loops.groups * rows * up(product.n, one.lanes) * depth
    staged, prepared = staging(kernel, processor, product)
    if unfolded:
        staged += 2 * product.batch * product.m * product.k * _input_bytes(kernel)
    transformed = _is_transformed(kernel, loops)
    if transformed:
        padded = math.ceil(padded / WINOGRAD_SAVES)
        maps = loops.images * (loops.in_channels * math.prod(loops.in_size)
                               + loops.out_channels * math.prod(loops.out_size))  # fmt: skip
        staged += 2 * WINOGRAD_INPUTS * FLOAT_BYTES * maps
        prepared += WINOGRAD_INPUTS * maps / vector_rate(processor)
    cold, warm = temperatures(kernel)
    factor = processor.factor("compute", family_of(kernel), element_of(kernel))
    least = kernel.macs / (WINOGRAD_SAVES if transformed else 1.0)
    return Demand(
        core_s=padded / rate * factor + outliers_s(kernel, processor),
        pieces=loops.groups * pieces * math.ceil(product.n / one.tile[1]),
        whole_share=whole / loops.groups,
        cold=cold,
        warm=warm,
        staged=staged,
        prepared_s=prepared,
        packed_s=packed_s(kernel, processor)
        * processor.factor("pack", family_of(kernel), element_of(kernel)),
        light_s=least / rate / processor.cores,
    )


def _depthwise(kernel: Kernel, loops: ConvolutionLoops, processor: Processor) -> Demand:
    """A multiplication a tap and output, on vectors of channels."""
    one = processor.instructions(kernel)
    lanes = round(processor.lanes)
    channels = up(loops.out_channels, lanes)
    outputs = loops.images * math.prod(loops.out_size) * channels
    cold, warm = temperatures(kernel)
    factor = processor.factor("compute", family_of(kernel), element_of(kernel))
    light = kernel.macs / processor.macs_per_s(one) / processor.cores
    return Demand(
        core_s=max(outputs * loops.taps / vector_rate(processor) * factor, light),
        pieces=loops.images * loops.out_size[0] * (channels // lanes),
        cold=cold,
        warm=warm,
        light_s=light,
    )


def _is_transformed(kernel: Kernel, loops: ConvolutionLoops) -> bool:
    plain = loops.stride == (1, 1) and loops.dilation == (1, 1)
    return kernel.algorithm == "winograd" and loops.kernel == WINOGRAD_TAPS and plain


def _input_bytes(kernel: Kernel) -> float:
    element = kernel.input_element
    return ENCODINGS[element].bits / 8 if element in ENCODINGS else FLOAT_BYTES
