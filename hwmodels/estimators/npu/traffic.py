"""Bytes that an operation moves between the NPU and its memories, and the cycles they take.

Maps lie in bricks of channels, so that a short row of a brick is a short burst. What a caller
hands over or takes lies pixel after pixel: a pixel of few channels is a short burst, too. Read of
`EstimateMemoryTransfer` in Vela 5.2's source, in words of our own.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwmodels.estimators.npu.blocks import Tiling
from hwmodels.estimators.npu.operation import Map, Operation
from hwmodels.estimators.npu.system import Side, System
from hwmodels.estimators.npu.weights import scale_bytes, weight_bytes
from hwmodels.granules import up

BRICK = 16
"""Channels of a piece that is written at once."""
PIECE = 64
"""Bytes of such a piece at most, where a map lies pixel after pixel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Bytes by memory and tensor; those of weights and scales as the stream has them."""

    input_bytes: float
    """Read from the arena: maps, further maps, a second operand that is an activation."""
    output_bytes: float
    """Written to the arena."""
    stored_bytes: float
    """Of weights and scales, read from the store."""
    staged_bytes: float
    """Of weights, written to the arena before they are read."""
    streamed_bytes: float
    """Of weights, read from the arena."""
    arena_cycles: float
    """Without what is staged, which happens before the operation runs."""
    store_cycles: float
    scale_cycles: float
    """Of the store's, those of scales, which blocks read there though weights be staged."""


def traffic_of(
    operation: Operation, tiling: Tiling | None, system: System, *, staged: bool = False
) -> Traffic:
    """The traffic of one run of an operation.

    Args:
        operation: What runs.
        tiling: Its blocks; None where it runs by element.
        system: The memories.
        staged: Whether its weights are copied to the arena first.
    """
    arena, store, channels = system.arena, system.store, system.npu.channels
    inputs = _inputs(operation, tiling, system)
    outputs = _written(operation, tiling, system)
    weights = scales = again = 0.0
    if tiling is not None:
        high, wide, _ = tiling.counts(operation)
        again = float(high * wide)
        weights = weight_bytes(operation, tiling, system.npu)
        scales = scale_bytes(operation, tiling, system.npu)
    if operation.weights_are_activations:
        second = operation.weights * operation.weight_bits / 8
        inputs += second * max(again, 1.0)
    copies = weights if staged else 0.0
    streamed = copies * again
    fetched = weights if staged else weights * max(again, 1.0)
    copied = fetched / store.channel(channels.copy if staged else channels.weight)
    scaled = scales * max(again, 1.0)
    scale_cycles = max(scaled / store.bytes_per_cycle, scaled / store.channel(channels.scale))
    return Traffic(
        input_bytes=inputs,
        output_bytes=outputs,
        stored_bytes=fetched + scaled,
        staged_bytes=copies,
        streamed_bytes=streamed,
        arena_cycles=max(
            (inputs + outputs + streamed) / arena.bytes_per_cycle,
            inputs / arena.channel(channels.input),
            streamed / arena.channel(channels.weight),
        ),
        store_cycles=max(
            (fetched + scaled) / store.bytes_per_cycle,
            copied,
            scale_cycles,
        ),
        scale_cycles=scale_cycles,
    )


def block_cycles(operation: Operation, tiling: Tiling, system: System) -> tuple[float, float]:
    """Cycles of reading the inputs of one block, and of writing its outputs."""
    arena = system.arena
    read = _volume(_least(operation.source, tiling.inputs)) * operation.bits / 8
    written = _volume(_least(operation.target, tiling.block)) * operation.target_bits / 8
    return (
        arena.port.read_latency
        + read * _read_bursts(operation, tiling.inputs, arena) / arena.bytes_per_cycle,
        arena.port.write_latency
        + written * _write_bursts(operation, tiling.block, system) / arena.bytes_per_cycle,
    )


def _written(operation: Operation, tiling: Tiling | None, system: System) -> float:
    count = stored(operation.target, system, linear=operation.linear_target)
    block = operation.target if tiling is None else tiling.block
    return count * operation.target_bits / 8 * _write_bursts(operation, block, system)


def _inputs(operation: Operation, tiling: Tiling | None, system: System) -> float:
    source, linear = operation.source, operation.linear_source
    further = operation.others * stored(operation.target, system) * operation.bits / 8
    if tiling is None:
        return stored(source, system, linear=linear) * operation.bits / 8 + further
    npu = system.npu
    passes = 1
    for axis in (0, 1):
        passes *= -(-operation.kernel[axis] // npu.blocks.window)
    high, wide, deep = tiling.counts(operation)
    deep = 1 if operation.equal_depth else deep
    rows, columns, _ = _least(source, tiling.inputs)
    depth = source[2] if linear else up(source[2], npu.brick)
    fetched = rows * columns * depth * passes * high * wide * deep * operation.bits / 8
    return fetched * _read_bursts(operation, tiling.inputs, system.arena) + further


def _read_bursts(operation: Operation, block: Map, arena: Side) -> float:
    """Bytes of full bursts for a byte of a block that is wanted.

    A row of a brick is one piece. Of a map that lies pixel after pixel the channels of a pixel
    are, or those of a row where the block has all of them.
    """
    bits = operation.bits
    if not operation.linear_source:
        return _bursts(BRICK * block[1] * bits // 8, arena)
    whole = operation.source[2] * bits // 8 == block[2]
    return _bursts((block[1] if whole else 1) * block[2] * bits // 8, arena)


def _write_bursts(operation: Operation, block: Map, system: System) -> float:
    """The same of what is written; each core writes a brick of its own beside the others."""
    bits, channels = operation.target_bits, BRICK * system.npu.blocks.cores
    if not operation.linear_target:
        return _bursts(channels * block[1] * bits // 8, system.arena)
    if block[2] <= BRICK and operation.target[2] * bits // 8 == block[2]:
        return _bursts(block[1] * block[2] * bits // 8, system.arena)
    return _bursts(min(PIECE, min(channels, block[2]) * bits // 8), system.arena)


def _bursts(piece: int, side: Side) -> float:
    """Bytes of full bursts for a byte of pieces of so many."""
    return side.port.burst / min(side.port.burst, max(piece, 1))


def stored(sizes: Map, system: System, *, linear: bool = False) -> float:
    """Elements of a map, in whole bricks of channels unless it lies pixel after pixel."""
    depth = sizes[2] if linear else up(sizes[2], system.npu.brick)
    return float(sizes[0] * sizes[1] * depth)


def _least(whole: Map, block: Map) -> Map:
    return (min(whole[0], block[0]), min(whole[1], block[1]), min(whole[2], block[2]))


def _volume(sizes: Map) -> int:
    return sizes[0] * sizes[1] * sizes[2]
