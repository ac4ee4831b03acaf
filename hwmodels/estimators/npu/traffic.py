"""Bytes that an operation moves between the NPU and its memories, and the cycles they take.

Maps lie in bricks of channels, so that a short row of a brick is a short burst; a map of few
channels (an image) lies channel after channel.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwmodels.estimators.npu.blocks import Tiling
from hwmodels.estimators.npu.operation import Map, Operation
from hwmodels.estimators.npu.system import Side, System
from hwmodels.estimators.npu.weights import scale_bytes, weight_bytes

BRICK = 16
"""Channels of a piece that is written at once."""
LINEAR = 8
"""Channels below which a map lies channel after channel: those of images, which networks read."""


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
    rows = tiling.inputs[2] if operation.linear else 0
    written = _volume(_least(operation.target, tiling.block)) * operation.target_bits / 8
    return (
        arena.port.read_latency
        + read * _bursts(operation.source, tiling.inputs, operation.bits, arena, linear=rows)
        / arena.bytes_per_cycle,
        arena.port.write_latency
        + written * _bursts(operation.target, tiling.block, operation.target_bits, arena,
                            linear=_brick_of_cores(system) if operation.linear else 0)
        / arena.bytes_per_cycle,
    )  # fmt: skip


def _written(operation: Operation, tiling: Tiling | None, system: System) -> float:
    count = _stored(operation.target, system) * operation.target_bits / 8
    if not operation.linear:
        return count
    block = operation.target if tiling is None else tiling.block
    bits = operation.target_bits
    linear = _brick_of_cores(system)
    return count * _bursts(operation.target, block, bits, system.arena, linear=linear)


def _brick_of_cores(system: System) -> int:
    """Channels that are written at once, a brick of each core."""
    return BRICK * system.npu.blocks.cores


def _inputs(operation: Operation, tiling: Tiling | None, system: System) -> float:
    further = operation.others * _stored(operation.target, system) * operation.bits / 8
    if tiling is None:
        return _stored(operation.source, system) * operation.bits / 8 + further
    npu = system.npu
    passes = 1
    for axis in (0, 1):
        passes *= -(-operation.kernel[axis] // npu.blocks.window)
    high, wide, deep = tiling.counts(operation)
    deep = 1 if operation.equal_depth else deep
    rows, columns, _ = _least(operation.source, tiling.inputs)
    depth = (
        operation.source[2]
        if operation.source[2] < LINEAR
        else _brick(operation.source, npu.brick)
    )
    fetched = rows * columns * depth * passes * high * wide * deep * operation.bits / 8
    rows = tiling.inputs[2] if operation.linear else 0
    whole, block, bits = operation.source, tiling.inputs, operation.bits
    return fetched * _bursts(whole, block, bits, system.arena, linear=rows) + further


def _bursts(whole: Map, block: Map, bits: int, side: Side, *, linear: int = 0) -> float:
    """Bytes of full bursts for a byte that is wanted.

    linear: channels that are moved at once of a map that lies row after row; 0 for bricks.
    """
    full = side.port.burst
    if whole[2] < LINEAR:
        return full / min(full, max(block[2] * bits // 8, 1))
    if linear:
        return full / min(full, min(linear, block[2]) * bits // 8)
    return full / min(full, BRICK * bits // 8 * block[1])


def _stored(sizes: Map, system: System) -> float:
    """Elements of a map in bricks."""
    depth = sizes[2] if sizes[2] < LINEAR else _brick(sizes, system.npu.brick)
    return float(sizes[0] * sizes[1] * depth)


def _brick(sizes: Map, brick: int) -> int:
    return -(-sizes[2] // brick) * brick


def _least(whole: Map, block: Map) -> Map:
    return (min(whole[0], block[0]), min(whole[1], block[1]), min(whole[2], block[2]))


def _volume(sizes: Map) -> int:
    return sizes[0] * sizes[1] * sizes[2]
