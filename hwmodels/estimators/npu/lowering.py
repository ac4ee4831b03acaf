"""Kernels as operations of a block-wise NPU."""

from __future__ import annotations

import math
from dataclasses import replace

from hwmodels.devices.npu import Npu
from hwmodels.estimators.npu.operation import Operation, Result
from hwmodels.formats.encodings import ENCODINGS
from hwmodels.work.kernel import Kernel
from hwmodels.work.loops import (
    AttentionLoops,
    ConvolutionLoops,
    MapLoops,
    ProductLoops,
)

RESULTS: dict[str, Result] = {
    "add": "add", "sub": "add", "mul": "multiply", "relu": "other", "clip": "other",
    "max": "other", "min": "other", "abs": "other", "quantizelinear": "other",
}  # fmt: skip
"""Work of the output unit in an elementwise kernel, by its detail; a table for all others."""
BINARY = ("add", "sub", "mul", "div", "max", "min")
IN_PLACE = (
    "concat", "reshape", "flatten", "squeeze", "unsqueeze", "identity", "slice", "split", "cast",
    "dropout",
)  # fmt: skip
"""Copies that a compiler leaves out: who writes a part of a tensor writes it where it belongs."""
ONES_BITS = 1
"""Bits of a weight of a mean: all are one, which codes well."""
LINEAR = 8
"""Channels below which a map that nobody knows more of is an image, which lies pixel after pixel.
"""
SUM_BITS = 32
"""Bits of what a mean, and a product of activations without an array for it, sum in."""


def operations_of(kernel: Kernel, npu: Npu) -> tuple[Operation, ...]:
    """The operations that a kernel of the NPU is compiled to; none where nothing runs."""
    found = _lowered(kernel, npu)
    if not found:
        return ()
    return _last(_first(found, kernel.linear_input), kernel.linear_output)


def _first(operations: tuple[Operation, ...], linear: bool | None) -> tuple[Operation, ...]:
    first = operations[0]
    known = first.source[2] < LINEAR if linear is None else linear
    return (replace(first, linear_source=first.linear_source or known), *operations[1:])


def _last(operations: tuple[Operation, ...], linear: bool | None) -> tuple[Operation, ...]:
    last = operations[-1]
    known = last.target[2] < LINEAR if linear is None else linear
    return (*operations[:-1], replace(last, linear_target=last.linear_target or known))


def _lowered(kernel: Kernel, npu: Npu) -> tuple[Operation, ...]:
    match kernel.kind:
        case "conv2d":
            return _convolution(kernel, npu)
        case "gemm" | "tiled_gemm":
            assert isinstance(kernel.loops, ProductLoops), "kernels check their loops"
            return _product(kernel, kernel.loops, npu)
        case "attention":
            return _attention(kernel, npu)
        case "reduce":
            return _window(kernel, npu)
        case "rowwise":
            return _passes(kernel, npu)
        case _:
            return _elementwise(kernel)


def _bits(kernel: Kernel) -> int:
    """Bits of an input in the array; where nothing multiplies those in memory."""
    if kernel.macs and kernel.input_element in ENCODINGS:
        return round(ENCODINGS[kernel.input_element].bits)
    return 8 if kernel.input_format is None else round(kernel.input_format.element.bits)


def _target_bits(kernel: Kernel) -> int:
    if kernel.output_format is None:
        return _bits(kernel)
    return round(kernel.output_format.element.bits)


def _weight_bits(kernel: Kernel, weights: int) -> float:
    """Bits of a weight as it is stored, its share of a scale included."""
    return kernel.weight_bytes * 8 / weights


def _element_bits(kernel: Kernel) -> float | None:
    return None if kernel.weight_format is None else kernel.weight_format.element.bits


def _convolution(kernel: Kernel, npu: Npu) -> tuple[Operation, ...]:
    loops = kernel.loops
    assert isinstance(loops, ConvolutionLoops), "kernels check their loops"
    alone = loops.groups == loops.in_channels and loops.groups > 1
    groups = 1 if alone else loops.groups
    one = Operation(
        kind="depthwise" if alone else "convolution",
        source=(*loops.in_size, loops.in_channels // groups),
        target=(*loops.out_size, loops.out_channels // groups),
        kernel=loops.kernel,
        stride=loops.stride,
        dilation=loops.dilation,
        bits=_bits(kernel),
        target_bits=_target_bits(kernel),
        weight_bits=_weight_bits(kernel, loops.product.n * loops.product.k * loops.groups),
        element_bits=_element_bits(kernel),
        repeats=loops.images * groups,
    )
    one = _filled(one, npu)
    if too_far(loops, npu):
        one = _by_taps(one) if alone or is_padded(loops) else _by_places(one)
    return _with_residual(one, kernel, npu)


def _filled(one: Operation, npu: Npu) -> Operation:
    """The operation with a kernel whose taps are no further apart than the NPU can skip.

    They are as far apart as it can that divides the dilation; zeros lie between.
    """
    most = npu.blocks.dilation
    if most is None or max(one.dilation) <= most:
        return one
    apart = tuple(
        max(step for step in range(1, most + 1) if dilation % step == 0)
        for dilation in one.dilation
    )
    rows, columns = (
        (taps - 1) * dilation // step + 1
        for taps, dilation, step in zip(one.kernel, one.dilation, apart, strict=True)
    )
    return replace(
        one, kernel=(rows, columns), dilation=(apart[0], apart[1]),
        filled_taps=rows * columns - one.taps,
    )  # fmt: skip


def too_far(loops: ConvolutionLoops | MapLoops, npu: Npu) -> bool:
    """Whether windows are more steps apart than the NPU walks in one operation.

    Along an axis of one place nothing steps.
    """
    most = npu.blocks.stride
    pairs = zip(loops.stride, loops.out_size, strict=True)
    return most is not None and any(step > most and places > 1 for step, places in pairs)


def is_padded(loops: ConvolutionLoops) -> bool:
    """Whether windows reach beyond the map."""
    sizes = zip(
        loops.out_size, loops.stride, loops.kernel, loops.dilation, loops.in_size, strict=True
    )
    return any(
        (places - 1) * step + (taps - 1) * apart + 1 > size
        for places, step, taps, apart, size in sizes
    )


def _by_places(one: Operation) -> Operation:
    """Every place of the output as an operation of its own."""
    return replace(
        one,
        source=(*one.reach, one.source[2]),
        target=(1, 1, one.target[2]),
        stride=(1, 1),
        repeats=one.repeats * one.target[0] * one.target[1],
    )


def _by_taps(one: Operation) -> Operation:
    """Every tap of the kernel as an operation over the places that it reads."""
    return replace(
        one,
        source=(*one.target[:2], one.source[2]),
        kernel=(1, 1),
        stride=(1, 1),
        dilation=(1, 1),
        filled_taps=0,
        repeats=one.repeats * (one.taps - one.filled_taps),
    )


def _product(kernel: Kernel, loops: ProductLoops, npu: Npu) -> tuple[Operation, ...]:
    rows = square(loops.m) if kernel.weight_is_cold else (1, loops.m)
    one = Operation(
        kind="product",
        source=(*rows, loops.k),
        target=(*rows, loops.n),
        linear_source=loops.m > 1,
        linear_target=loops.m > 1,
        bits=_bits(kernel),
        target_bits=_target_bits(kernel),
        weight_bits=(
            _weight_bits(kernel, loops.batch * loops.n * loops.k)
            if kernel.weight_is_cold
            else _bits(kernel)
        ),
        element_bits=_element_bits(kernel),
        weights_are_activations=not kernel.weight_is_cold,
        repeats=loops.batch,
    )
    if one.weights_are_activations and not npu.output.products_of_activations:
        return _by_columns(one)
    return _with_residual(one, kernel, npu)


def square(rows: int) -> tuple[int, int]:
    """Rows as a map that is as square as it can be; a compiler turns it so."""
    height = max(one for one in range(1, math.isqrt(rows) + 1) if rows % one == 0)
    return (height, rows // height)


def _by_columns(product: Operation) -> tuple[Operation, ...]:
    """A product of activations, column by column: multiplied element by element, then summed."""
    _, rows, columns = product.target
    deep = product.source
    return (
        replace(
            product, kind="elementwise", target=deep, result="wide_multiply", target_bits=SUM_BITS,
            linear_source=False, linear_target=False,
            weight_bits=0, weights_are_activations=False, others=1,
            repeats=product.repeats * columns,
        ),
        replace(
            product, target=(1, rows, 1), weight_bits=0, weights_are_activations=False,
            bits=product.bits, repeats=product.repeats * columns,
        ),
    )  # fmt: skip


def _with_residual(one: Operation, kernel: Kernel, npu: Npu) -> tuple[Operation, ...]:
    """The operation with a map that is added to its result, on the way out where it can be."""
    elements = one.target[0] * one.target[1] * one.target[2] * one.repeats
    if kernel.other_bytes * 8 < elements * one.bits:
        return (one,)
    if npu.output.chains and not (one.kind == "product" and one.linear_target):
        return (replace(one, chained=("add",), others=1),)
    added = Operation(
        kind="elementwise", source=one.target, target=one.target, result="add", bits=one.bits,
        target_bits=one.target_bits, others=1, repeats=one.repeats,
    )  # fmt: skip
    return (one, added)


def _attention(kernel: Kernel, npu: Npu) -> tuple[Operation, ...]:
    loops = kernel.loops
    assert isinstance(loops, AttentionLoops), "kernels check their loops"
    heads = loops.batch * loops.heads
    keys = loops.reach
    scores = ProductLoops(batch=heads, m=loops.queries, n=keys, k=loops.depth)
    mixed = ProductLoops(batch=heads, m=loops.queries, n=loops.depth, k=keys)
    second = replace(kernel, weight_is_cold=False, other_bytes=0)
    shares = _rows(heads * loops.queries * keys, npu.output.softmax_passes, _bits(kernel))
    return (*_product(second, scores, npu), shares, *_product(second, mixed, npu))


def _window(kernel: Kernel, npu: Npu) -> tuple[Operation, ...]:
    loops = kernel.loops
    if not isinstance(loops, MapLoops):
        return _elementwise(kernel)
    height, width = (
        (places - 1) * step + window
        for places, step, window in zip(loops.out_size, loops.stride, loops.window, strict=True)
    )
    largest = "max" in kernel.detail
    whole = loops.out_size == (1, 1)
    one = Operation(
        kind="pool" if largest else "depthwise",
        source=(height, width, loops.channels),
        target=(*loops.out_size, loops.channels),
        kernel=loops.window,
        stride=loops.stride,
        result="maximum" if largest else "product",
        bits=_bits(kernel),
        target_bits=_target_bits(kernel) if largest or not whole else SUM_BITS,
        weight_bits=0 if largest else ONES_BITS,
        repeats=loops.images,
    )
    if too_far(loops, npu):
        one = _by_places(one)
    if largest or not whole:
        return (one,)
    scaled = Operation(
        kind="elementwise", source=one.target, target=one.target, result="multiply",
        bits=SUM_BITS, target_bits=_target_bits(kernel), repeats=one.repeats,
    )  # fmt: skip
    return (one, scaled)


def _passes(kernel: Kernel, npu: Npu) -> tuple[Operation, ...]:
    elements = kernel.write_bytes * 8 // _target_bits(kernel)
    return (_rows(elements, npu.output.softmax_passes, _bits(kernel)),)


def _rows(elements: int, passes: float, bits: int) -> Operation:
    """So many passes over elements."""
    sizes = (1, max(round(elements * passes / 16), 1), 16)
    return Operation(
        kind="elementwise", source=sizes, target=sizes, result="other", bits=bits,
        target_bits=bits,
    )  # fmt: skip


def _elementwise(kernel: Kernel) -> tuple[Operation, ...]:
    if kernel.detail in IN_PLACE:
        return ()
    loops, bits = kernel.loops, _target_bits(kernel)
    if isinstance(loops, MapLoops):
        sizes, repeats = (*loops.out_size, loops.channels), loops.images
    else:
        sizes, repeats = (1, max(-(-kernel.write_bytes * 8 // bits // 16), 1), 16), 1
    moved = kernel.input_bytes + kernel.other_bytes + kernel.weight_bytes
    others = 1 if kernel.detail in BINARY and moved > kernel.write_bytes else 0
    result: Result = "other" if kernel.kind == "quantize" else RESULTS.get(kernel.detail, "lookup")
    rows = not isinstance(loops, MapLoops)
    by_block = kernel.detail in ("relu", "clip") or kernel.kind == "quantize"
    return (
        Operation(
            kind="pool" if by_block else "elementwise",
            source=sizes, target=sizes, result=result, bits=_bits(kernel), target_bits=bits,
            others=others, repeats=repeats, linear_source=rows, linear_target=rows,
        ),
    )  # fmt: skip
