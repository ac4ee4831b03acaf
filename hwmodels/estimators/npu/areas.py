"""The block of an operation without sums over channels, where a compiler fits areas.

For each number of channels the largest area of the map's aspect is taken whose sums and inputs fit
the buffers once; of all these blocks that which covers the map best. Where more than one block
runs, it shrinks until the next row of inputs has room beside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hwmodels.devices.npu import Block, Layout, Npu
from hwmodels.estimators.npu.inputs import extent, units
from hwmodels.estimators.npu.operation import Operation
from hwmodels.granules import down, up

POOL_BITS = 32
"""Of a sum or a maximum of a pool, whatever its inputs."""
SAME = 25
"""Tries at one size before a smaller one is forced."""
FORCED = 0.9
"""Share of the inputs that is tried then."""
TENTH = 0.1
"""Weight of channels that are left out or padded, beside that of the area."""


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """The map, the micro-block and the buffers that areas are fitted to."""

    operation: Operation
    npu: Npu
    layout: Layout
    micro: Block
    whole: Block
    """The map of outputs, in whole granules."""
    limit: Block
    sums: int
    """Elements that the accumulators hold."""
    inputs: int
    """The same of the buffer of inputs."""

    @property
    def granule(self) -> int:
        """Channels that blocks differ by."""
        return self.npu.blocks.depth

    @property
    def least(self) -> int:
        """Sums of the least block."""
        return self.micro[0] * self.micro[1] * self.granule

    @property
    def most_channels(self) -> int:
        """Of a block: as many as there are multipliers."""
        most = max(int(self.npu.macs_per_cycle(8)), self.sums // self.least)
        return min(most, self.limit[2])

    def unit(self, channels: int) -> Block:
        """Rows, columns and channels that inputs of so many channels are padded to."""
        rows, columns, deep = units(np.array([channels]), self.layout, self.micro)
        return int(rows[0]), int(columns[0]), int(deep[0])

    def read(self, block: Block) -> Block:
        """The inputs under a block."""
        unit = self.unit(block[2])
        rows, columns = (
            int(
                extent(self.operation, np.array(block[axis]), axis, self.npu, np.array(unit[axis]))
            )
            for axis in (0, 1)
        )
        return rows, columns, up(block[2], unit[2])

    def covers(self, block: Block) -> bool:
        """Whether one block is the whole map."""
        return all(part >= whole for part, whole in zip(block, self.whole, strict=True))


def area_of(
    operation: Operation, npu: Npu, layout: Layout, micro: Block
) -> tuple[Block, Block] | None:
    """The block of outputs and the inputs under it, with their padding; None where none fits."""
    buffers, granule = npu.buffers, (micro[0], micro[1], npu.blocks.depth)
    assert buffers.inputs is not None, "checked when it was made"
    assert buffers.accumulators is not None, "checked when it was made"
    height, width, channels = (
        up(size, part) for size, part in zip(operation.target, granule, strict=True)
    )
    most = npu.blocks.largest
    bits = POOL_BITS if operation.kind == "pool" else layout.accumulator_bits
    fit = _Fit(
        operation=operation,
        npu=npu,
        layout=layout,
        micro=micro,
        whole=(height, width, channels),
        limit=(min(height, most[0]), min(width, most[1]), min(channels, most[2])),
        sums=int(buffers.accumulators.value) * 8 // bits,
        inputs=int(buffers.inputs.value) * 8 // operation.bits,
    )
    best = _best(fit)
    if best is None:
        return None
    block = _with_room(fit, best)
    return block, fit.read(block)


def _best(fit: _Fit) -> Block | None:
    """The block that covers the map best, of the largest of each number of channels."""
    flat = fit.operation.reach == (1, 1)
    height, width, channels = fit.whole
    area = width * (channels if flat else height)
    found, least = None, math.inf
    for deep in range(fit.granule, fit.most_channels + 1, fit.granule):
        block = _largest(fit, deep)
        if block is None:
            break  # more channels fit no better
        unit = fit.unit(deep)[2]
        padded = (up(deep, unit) - deep) / unit
        other = deep if flat else block[0]
        measure = 1 + abs(1 - area / (block[1] * other))
        measure *= 1 + abs(1 - fit.limit[2] / deep) * TENTH
        measure *= 1 + padded * TENTH
        if measure < least:
            found, least = block, measure
            if fit.covers(block):
                return fit.whole
    return found


def _largest(fit: _Fit, deep: int) -> Block | None:
    """The largest block of so many channels whose sums and inputs fit; None where none does."""
    room, before, tries = fit.sums, -1, SAME
    unit = fit.unit(deep)
    whole = math.prod(
        up(size, part) for size, part in zip(fit.operation.source, unit, strict=True)
    )
    while True:
        block = _area(fit, room // deep, deep)
        sums = math.prod(block)
        of_sums = fit.sums / sums
        of_inputs = fit.inputs / min(math.prod(fit.read(block)), whole)
        if min(of_sums, of_inputs) >= 1:
            return block
        if sums == before:
            tries -= 1
            of_inputs = FORCED if tries <= 0 else of_inputs
        before = sums
        if of_inputs < 1 < of_sums:
            room = min(room, sums)
        less = int(room // fit.least * min(of_inputs, of_sums)) * fit.least
        room = room - fit.least if less == room else less
        if room < fit.least:
            return None


def _area(fit: _Fit, places: int, deep: int) -> Block:
    """A block of about so many places with the aspect of the map, in whole granules."""
    aspect = fit.whole[0] / fit.whole[1]
    wide = math.sqrt(places / aspect)
    high = wide * aspect
    if high < 1:
        wide, high = wide * high, 1.0
    elif wide < 1:
        wide, high = 1.0, high * wide
    height = min(down(int(high), fit.micro[0]), fit.limit[0])
    width = min(down(int(wide), fit.micro[1]), fit.limit[1])
    area = height * width
    if width < fit.whole[1]:
        width = _even(fit.whole[1], fit.micro[1], width)
    return max(area // width // fit.micro[0] * fit.micro[0], fit.micro[0]), width, deep


def _even(size: int, granule: int, part: int) -> int:
    """The part, at most so large, whose last one of a size is largest."""
    if size % part == 0:
        return part
    even = max(up(size // (size // part + 1), granule), granule)
    least = max(even - 2 * granule, (even + 1) // 2, granule)
    best, most = part, size % part
    for one in range(part, least - 1, -granule):
        rest = size % one or one
        if rest > most:
            best, most = one, rest
    return best


def _with_room(fit: _Fit, block: Block) -> Block:
    """The block, smaller until another row of inputs fits beside it if there is another block.

    Rows are given up first, then channels of blocks that are deeper than wide, then columns; what
    spans the whole map is kept as long as something else can be given up.
    """
    rows, columns, granule = fit.micro[0], fit.micro[1], fit.granule
    any_of: set[int] = set()
    while not fit.covers(block) and not _has_room(fit, block):
        height, width, deep = block
        if (height != fit.whole[0] or 1 in any_of) and height > rows:
            block = (height - rows, width, deep)
        elif (deep > width or 2 in any_of) and deep > granule:
            block = (height, width, deep - granule)
        elif (width != fit.whole[1] or 0 in any_of) and width > columns:
            block = (height, width - columns, deep)
        elif len(any_of) < 3:
            any_of.add((2, 1, 0)[len(any_of)])
        elif deep > granule:
            block = (height, width, max(deep // 2, granule))
        else:
            break
    return block


def _has_room(fit: _Fit, block: Block) -> bool:
    row = math.prod(fit.read((fit.micro[0], block[1], block[2])))
    return fit.inputs - math.prod(fit.read(block)) >= row
