"""The loop nest of a contracting kernel: sizes, what each tensor depends on, bytes an element."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwmodels.devices.spatial import LOOPS, Loop
from hwmodels.errors import FormatError, WorkError
from hwmodels.formats import catalog
from hwmodels.formats.accumulator import accumulator as named_accumulator
from hwmodels.tensors import TensorName
from hwmodels.work.kernel import Kernel
from hwmodels.work.loops import AttentionLoops, ConvolutionLoops, ProductLoops

Floats = NDArray[np.float64]

RELEVANT: dict[TensorName, frozenset[Loop]] = {
    "input": frozenset({"G", "B", "C", "OY", "OX", "FY", "FX"}),
    "weight": frozenset({"G", "K", "C", "FY", "FX"}),
    "output": frozenset({"G", "B", "K", "OY", "OX"}),
}
"""Loops that a tensor depends on; the others reuse it."""
REUSES: dict[TensorName, frozenset[Loop]] = {
    name: frozenset(LOOPS) - loops for name, loops in RELEVANT.items()
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Nest:
    """One contraction: eight loops, the windows of its input, bytes of its tensors."""

    sizes: tuple[int, ...]
    """Steps of each loop, in the order of `LOOPS`."""
    in_size: tuple[int, int] = (0, 0)
    """Height and width of the input without padding; 0 where windows do not overlap."""
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    input_bytes: float = 1.0
    """Of one element, scales included."""
    weight_bytes: float = 1.0
    output_bytes: float = 1.0
    partial_bytes: float = 4.0
    """Of one partial sum."""
    register_bytes: float = 1.0
    """Of an element as the array multiplies it, without scales."""
    input_zeros: float = 0.0
    """Share of its elements that are zero, as far as it is known."""
    output_zeros: float = 0.0
    taps: int = 1
    """Of a window, where they are one loop with the channels, which are inside (`flattened`)."""
    expansion: float = 1.0
    """Reads of an input element by these taps."""

    @property
    def macs(self) -> float:
        """Multiply-accumulates."""
        return math.prod(self.sizes)

    def size(self, loop: Loop) -> int:
        """Steps of one loop."""
        return self.sizes[LOOPS.index(loop)]

    def element_bytes(self, tensor: TensorName) -> float:
        """Bytes of one element in memory; of the output when it is complete."""
        return {
            "input": self.input_bytes,
            "weight": self.weight_bytes,
            "output": self.output_bytes,
        }[tensor]

    def flattened(self) -> Nest:
        """The matrix product that a convolution amounts to: (B OY OX) x (C FY FX) x K.

        Buffers hold a pixel once, the array reads it for each of its taps (im2col on the fly);
        the loop over both has the channels inside, as SCALE-Sim's and Gemmini's.
        """
        group, images, outs, ins, rows, cols, taps_y, taps_x = self.sizes
        m, k = images * rows * cols, ins * taps_y * taps_x
        pixels = float(self.footprint("input", np.array(self.sizes, dtype=float))) / group
        return replace(
            self,
            sizes=(group, 1, outs, k, 1, m, 1, 1),
            in_size=(0, 0),
            taps=taps_y * taps_x,
            expansion=m * k / pixels,
        )

    def footprint(self, tensor: TensorName, tile: Floats) -> Floats:
        """Elements of a tensor that a tile of the loops touches.

        tile: (..., 8) steps in the order of `LOOPS`; returns (...). The input of a convolution is
        (OY - 1) stride + (FY - 1) dilation + 1 rows, at most those there are, and columns alike.
        Of a flattened one, channels of one tap are channels of as many pixels, and more taps
        share pixels.
        """
        group, images, outs, ins, rows, cols, taps_y, taps_x = np.moveaxis(tile, -1, 0)
        if tensor == "weight":
            return group * outs * ins * taps_y * taps_x  # type: ignore[no-any-return]
        if tensor == "output":
            return group * images * outs * rows * cols  # type: ignore[no-any-return]
        windows = self._window(rows, taps_y, 0) * self._window(cols, taps_x, 1)
        if self.taps > 1:
            channels = self.size("C") / self.taps
            covered = np.minimum(np.maximum(ins / channels, 1.0), self.taps / self.expansion)
            ins = np.minimum(ins, channels) * covered
        return group * images * ins * windows  # type: ignore[no-any-return]

    def _window(self, places: Floats, taps: Floats, axis: int) -> Floats:
        if self.in_size[axis] == 0:
            return places * taps
        extent = (places - 1) * self.stride[axis] + (taps - 1) * self.dilation[axis] + 1
        touched = np.minimum(extent, places * taps)  # a stride beyond the kernel skips pixels
        return np.minimum(touched, self.in_size[axis])


def nests_of(kernel: Kernel) -> tuple[Nest, ...]:
    """The contractions of a kernel: one, or the two products of attention.

    Attention is softmax(Q K^T) V, the query heads of one key head side by side as rows; the mask
    shortens the loop over keys to what is seen in the mean. Scores are written and read in the
    input's format.
    """
    loops = kernel.loops
    if isinstance(loops, AttentionLoops):
        return _attention(kernel, loops)
    if isinstance(loops, ConvolutionLoops):
        nest = _convolution(loops)
    else:
        assert isinstance(loops, ProductLoops)
        nest = _product(loops.batch, loops.m, loops.n, loops.k)
    whole = np.array(nest.sizes, dtype=float)
    return (
        _with_bytes(
            nest,
            kernel,
            input_bytes=kernel.input_bytes / float(nest.footprint("input", whole)),
            weight_bytes=kernel.weight_bytes / float(nest.footprint("weight", whole)),
            output_bytes=kernel.write_bytes / float(nest.footprint("output", whole)),
        ),
    )


def _attention(kernel: Kernel, loops: AttentionLoops) -> tuple[Nest, Nest]:
    pairs = loops.macs / (2 * loops.batch * loops.heads * loops.depth)
    keys = max(round(pairs / loops.queries), 1)
    heads = loops.batch * loops.kv_heads
    rows = loops.queries * (loops.heads // loops.kv_heads)
    query = kernel.input_bytes / (loops.batch * loops.heads * loops.queries * loops.depth)
    # A mask shortens the mean loop, but every key and value is seen by some query, and read.
    cached = kernel.weight_bytes / (2 * heads * keys * loops.depth)
    written = kernel.write_bytes / (loops.batch * loops.heads * loops.queries * loops.depth)
    scores = _with_bytes(
        _product(heads, rows, keys, loops.depth),
        kernel, input_bytes=query, weight_bytes=cached, output_bytes=query,
    )  # fmt: skip
    values = _with_bytes(
        _product(heads, rows, loops.depth, keys),
        kernel, input_bytes=query, weight_bytes=cached, output_bytes=written,
    )  # fmt: skip
    return scores, values


def _product(batch: float, m: int, n: int, k: int) -> Nest:
    return Nest(sizes=(max(round(batch), 1), 1, n, k, 1, m, 1, 1))


def _convolution(loops: ConvolutionLoops) -> Nest:
    return Nest(
        sizes=(
            loops.groups,
            loops.images,
            loops.out_channels // loops.groups,
            loops.in_channels // loops.groups,
            *loops.out_size,
            *loops.kernel,
        ),
        in_size=loops.in_size,
        stride=loops.stride,
        dilation=loops.dilation,
    )


def _with_bytes(
    nest: Nest, kernel: Kernel, *, input_bytes: float, weight_bytes: float, output_bytes: float
) -> Nest:
    return replace(
        nest,
        input_bytes=input_bytes,
        weight_bytes=weight_bytes,
        output_bytes=output_bytes,
        partial_bytes=partial_bytes(
            kernel.accumulator, kernel.weight_element, kernel.input_element
        ),
        register_bytes=catalog.format(kernel.weight_element).element.bits / 8,
    )


def partial_bytes(accumulator: str, weight: str, other: str) -> float:
    """Bytes of a partial sum: those of the running sum, or of the 32 bits that it spills into.

    Args:
        accumulator: Its name.
        weight: Element of the second operand, on which the width of a quire depends.
        other: Of the first.

    Raises:
        WorkError: A quire of elements that none holds.
    """
    found = named_accumulator(accumulator)
    if found.promote_every:
        return 4.0
    try:
        elements = (catalog.format(one).element for one in (weight, other))
        return found.sum_bits(*elements) / 8
    except FormatError as error:
        raise WorkError(f"{accumulator}: {error}") from None
