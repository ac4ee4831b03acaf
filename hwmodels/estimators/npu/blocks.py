"""The choice of a block of outputs: the one that fits the buffers and moves least.

Every block of outputs reads the inputs under it and the weights above it once. Wide blocks read
few inputs twice, tall ones (many output channels) read few inputs again for further channels; a
compiler looks through the sizes that fit and takes the one that fetches least an output:

    inputs  = in_h in_w C passes (H/h) (W/w) ceil(D/d)        ceil(D/d) = 1 where depth is equal
    weights = taps C D ceil(H/h) ceil(W/w)                      (of convolutions)

and halves what it counts where the whole input is in the buffers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hwmodels.devices.npu import Block, Layout, Npu, Steps, Walk
from hwmodels.errors import WorkError
from hwmodels.estimators.npu.areas import area_of
from hwmodels.estimators.npu.inputs import Axes, extent, units
from hwmodels.estimators.npu.operation import Operation
from hwmodels.granules import up

SUMS = 8
"""Channels that accumulators are padded to."""
EQUAL = 1e-6
"""Share by which blocks may differ of which the largest is taken."""
SMALL = 4
"""Height and width of blocks that are taken where several move equally little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """A block of outputs, the inputs under it, and the steps over it."""

    block: Block
    inputs: Block
    micro: Block
    steps: Steps
    layout: Layout

    def counts(self, operation: Operation) -> tuple[int, int, int]:
        """Blocks along height, width and channels."""
        return _ceil(operation.target, self.block)


@lru_cache(maxsize=4096)
def tiling_of(operation: Operation, npu: Npu) -> Tiling:
    """The blocks that an operation runs in.

    Raises:
        WorkError: Inputs of more bits than there are steps for, or not even the least block fits
            the buffers.
    """
    layout = npu.buffers.layout(operation.bits)
    steps = _steps(operation, npu)
    if layout is None or steps is None:
        raise WorkError(
            f"npu.steps: nothing walks over inputs of {operation.bits} bits "
            f"({operation.kind}); they are for {_bits(npu)} bits"
        )
    micro = _micro(operation, npu)
    if npu.blocks.areas and operation.equal_depth:
        fitted = area_of(operation, npu, layout, micro)
        if fitted is None:
            raise WorkError(
                f"npu.buffers: no block of a {operation.kind} fits, not even outputs of "
                f"{micro[0]} x {micro[1]} x {npu.blocks.depth} at {operation.bits} bits; make the "
                "buffers larger"
            )
        return Tiling(block=fitted[0], inputs=fitted[1], micro=micro, steps=steps, layout=layout)
    channels = operation.source[2]
    deep = steps.block_inputs or npu.blocks.largest[2]
    heights, widths, depths = _candidates(operation, npu, micro)
    held = depths if operation.equal_depth else np.full_like(depths, deep)
    unit = units(held, layout, micro)
    rows = extent(operation, heights, 0, npu, unit[0])
    columns = extent(operation, widths, 1, npu, unit[1])
    read = depths if operation.equal_depth else np.full_like(depths, min(channels, deep))
    read = -(-read // unit[2]) * unit[2]
    fits = _fits(operation, npu, layout, (heights, widths, depths), (rows, columns, read))
    if not fits.any():
        raise WorkError(
            f"npu.buffers: no block of a {operation.kind} fits: outputs of {micro[0]} x "
            f"{micro[1]} x {int(depths[0])} need inputs of {int(rows[0])} x {int(columns[0])} x "
            f"{int(read[0])} at {operation.bits} bits; make the buffers larger"
        )
    moved = _moved(operation, npu, (heights, widths, depths), (rows, columns, read))
    moved = np.where(fits, moved, np.inf)
    if npu.blocks.covers and operation.equal_depth:
        best = _largest(moved, heights * widths * depths)
    else:
        best = _first(moved, operation, (heights, widths), (rows, columns))
    return Tiling(
        block=(int(heights[best]), int(widths[best]), int(depths[best])),
        inputs=(int(rows[best]), int(columns[best]), int(read[best])),
        micro=micro,
        steps=steps,
        layout=layout,
    )


def _bits(npu: Npu) -> str:
    return " and ".join(map(str, sorted({one.bits for one in npu.steps})))


def _steps(operation: Operation, npu: Npu) -> Steps | None:
    if operation.kind in ("depthwise", "pool"):
        walk: Walk = "depthwise" if operation.kind == "depthwise" else "pool"
        return npu.step(walk, operation.bits)
    by_depth = npu.step("depth", operation.bits)
    by_taps = npu.step("taps", operation.bits)
    if by_depth is None or by_taps is None or operation.kind != "convolution":
        return by_depth
    uses = [_use(operation, one) for one in (by_taps, by_depth)]
    return by_taps if uses[0] >= uses[1] else by_depth


def _use(operation: Operation, steps: Steps) -> float:
    """Share of the multiplications of its steps that an operation needs, as a compiler reckons."""
    channels, taps = operation.source[2], operation.taps
    inputs = steps.chosen_by_inputs or steps.inputs
    a_step = steps.chosen_by_taps or steps.taps
    rest = taps % a_step
    least = steps.rest_taps or (a_step if rest else 0)
    whole = taps - rest + max(rest, least)
    return channels / up(channels, inputs) * taps / whole


def _micro(operation: Operation, npu: Npu) -> Block:
    blocks, target = npu.blocks, operation.target
    in_row = operation.kind in ("convolution", "product") and operation.kernel[0] == 1
    if blocks.row is not None and in_row and target[0] == 1 and target[1] % 2 == 0:
        return blocks.row
    return min(blocks.micro, key=lambda micro: _volume(_rounded(target, micro)))


def _candidates(
    operation: Operation, npu: Npu, micro: Block
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Heights, widths and depths of all blocks of interest, shallow ones first."""
    blocks, target = npu.blocks, operation.target
    outputs = micro[2]
    most = _rounded(
        (
            min(target[0], blocks.largest[0]),
            min(target[1], blocks.largest[1]),
            min(target[2], blocks.largest[2]),
        ),
        (micro[0], micro[1], outputs),
    )
    depths = []
    depth = max(outputs, min(most[2], blocks.depth))
    while depth <= most[2]:
        depths.append(depth if depth >= target[2] else up(depth, blocks.depth))
        depth = depths[-1] + outputs
    grid = np.meshgrid(
        np.array([one for one in depths if one <= max(most[2], blocks.depth)]),
        np.arange(micro[0], most[0] + 1, micro[0]),
        np.arange(micro[1], most[1] + 1, micro[1]),
        indexing="ij",
    )
    deep, high, wide = (axis.reshape(-1) for axis in grid)
    return high, wide, deep


def _fits(
    operation: Operation, npu: Npu, layout: Layout, outputs: Axes, inputs: Axes
) -> NDArray[np.bool_]:
    buffers = npu.buffers
    heights, widths, depths = outputs
    rows, columns, read = inputs
    padded = _up_all(read, layout.input_channels)
    input_bytes = rows * columns * padded * operation.bits // 8
    high = np.ones_like(heights) if _flat(operation, npu) else heights
    sum_bytes = high * widths * _up_all(depths, SUMS) * layout.accumulator_bits // 8
    banks = _banks(input_bytes, buffers.bank, buffers.copies, layout.input_banks)
    sums = _banks(sum_bytes, buffers.bank, buffers.copies, layout.accumulator_banks)
    if buffers.shared is not None:
        fits: NDArray[np.bool_] = (banks + sums) * buffers.bank <= buffers.shared.value
        return fits
    assert buffers.inputs is not None, "checked when it was made"
    assert buffers.accumulators is not None, "checked when it was made"
    apart: NDArray[np.bool_] = (banks * buffers.bank <= buffers.inputs.value) & (
        sums * buffers.bank <= buffers.accumulators.value
    )
    return apart


def _flat(operation: Operation, npu: Npu) -> bool:
    """Whether the accumulators of a block lie in one row."""
    return npu.blocks.row is not None and operation.target[0] == operation.kernel[0] == 1


def _banks(count: NDArray[np.int64], bank: int, copies: int, granule: int) -> NDArray[np.int64]:
    banks: NDArray[np.int64] = -(-count // bank) * copies
    return _up_all(banks, granule)


def _moved(operation: Operation, npu: Npu, outputs: Axes, inputs: Axes) -> NDArray[np.float32]:
    """Elements fetched for an output, by block.

    In single precision, and in the order in which Vela multiplies: where windows do not overlap,
    all blocks move equally much, and its rounding decides which of them it takes.
    """
    single = np.float32
    heights, widths, depths = outputs
    rows, columns, read = inputs
    height, width, channels = operation.target
    passes = 1
    for axis in (0, 1):
        passes *= -(-operation.reach[axis] // npu.blocks.window)
    fetched = (rows * columns * operation.source[2] * passes).astype(single)
    fetched *= single(width) / widths.astype(single)
    fetched *= single(height) / heights.astype(single)
    if not operation.equal_depth:
        fetched *= (-(-channels // depths)).astype(single)
    if operation.kind != "pool":
        again = -(-height // heights) * -(-width // widths)
        weights = (operation.taps * operation.source[2] * again).astype(single)
        if operation.kind != "depthwise":
            weights *= single(channels) / depths.astype(single) * depths.astype(single)
        fetched += weights
    moved: NDArray[np.float32] = fetched / single(_volume(operation.target))
    whole = _volume(operation.source) < 2 * rows * columns * read
    return np.where(whole, moved / single(2), moved)


def _largest(moved: NDArray[np.float32], size: NDArray[np.int64]) -> int:
    """The place of the least, of several that of the largest block."""
    places = np.flatnonzero(moved <= moved.min() * (1 + EQUAL))
    return int(places[np.argmax(size[places])])


def _first(
    moved: NDArray[np.float32],
    operation: Operation,
    outputs: tuple[NDArray[np.int64], NDArray[np.int64]],
    inputs: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> int:
    """The place of the least; of several a small block that covers most of the input."""
    places = np.flatnonzero(moved <= moved.min())
    first = int(places[0])
    later = places[1:]
    small = later[(outputs[0][later] <= SMALL) & (outputs[1][later] <= SMALL)]
    if not small.size:
        return first
    covered = np.minimum(inputs[0][small], operation.source[0]) * np.minimum(
        inputs[1][small], operation.source[1]
    )
    return int(small[np.flatnonzero(covered == covered.max())[-1]])


def _up_all(values: NDArray[np.int64], granule: int) -> NDArray[np.int64]:
    rounded: NDArray[np.int64] = -(-values // granule) * granule
    return rounded


def _rounded(sizes: Block, granule: Block) -> Block:
    return (
        up(sizes[0], granule[0]), up(sizes[1], granule[1]), up(sizes[2], granule[2])
    )  # fmt: skip


def _ceil(sizes: Block, parts: Block) -> Block:
    return (
        -(-sizes[0] // parts[0]), -(-sizes[1] // parts[1]), -(-sizes[2] // parts[2])
    )  # fmt: skip


def _volume(sizes: Block) -> int:
    return sizes[0] * sizes[1] * sizes[2]
