"""Cycles of one operation: blocks in a pipeline of reading, computing and writing.

    macs    = walk over micro-blocks x steps of a block    outputs = cycles an element x block
    issue   = (|read - write| + macs + outputs) / commands
    t       = blocks max(macs, outputs, issue) + the other one once + first read + last write
    cycles  = max(t, arena traffic, store traffic)

Weights may be staged in the arena first (`staging`), while the operation before still computes.
One operation alone has nothing to hide them behind but itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from hwmodels.devices.npu import Npu, OutputUnit
from hwmodels.estimators.npu.blocks import Tiling, tiling_of
from hwmodels.estimators.npu.operation import Operation, Result
from hwmodels.estimators.npu.staging import Slice, Staging, Weights, staging_of
from hwmodels.estimators.npu.system import System
from hwmodels.estimators.npu.traffic import Traffic, block_cycles, traffic_of
from hwmodels.estimators.npu.weights import scale_bytes, weight_bytes
from hwmodels.granules import up

DENSE = 2
"""Input channels that leave two of four to padding."""
HALF = 0.5
WIDE = 32
"""Bits of an accumulator beyond which it is a wide one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One run of an operation."""

    operation: Operation
    tiling: Tiling | None
    """None: one result an element, without blocks."""
    compute_cycles: float
    """Filling and draining included."""
    traffic: Traffic
    staging: Staging | None = None
    """Of its weights; None: they are read from the store."""
    store_cycles: float
    """Of reading the store while it runs."""

    @property
    def cycles(self) -> float:
        """Cycles with waiting for memory."""
        arena, wait = self.traffic.arena_cycles, 0.0
        if self.staging is not None:
            arena += self.staging.arena_cycles
            wait = self.staging.wait_cycles
        return max(wait + self.compute_cycles, arena, self.store_cycles)

    @property
    def slack_cycles(self) -> float:
        """Cycles at its end in which it copies nothing, and weights of the next one can be."""
        if self.staging is not None:
            return self.staging.last_cycles
        return self.compute_cycles * self.operation.repeats


@lru_cache(maxsize=4096)
def schedule(operation: Operation, system: System, slack_cycles: float | None = None) -> Schedule:
    """The schedule of an operation.

    Args:
        operation: What runs.
        system: The NPU and its memories.
        slack_cycles: Cycles of the operation before, in which its weights can be copied; None: it
            runs alone, and they are copied while it runs.

    Raises:
        WorkError: As `tiling_of`.
    """
    npu = system.npu
    if operation.kind == "elementwise":
        traffic = traffic_of(operation, None, system)
        return Schedule(
            operation=operation,
            tiling=None,
            compute_cycles=_elementwise_cycles(operation, npu),
            traffic=traffic,
            store_cycles=traffic.store_cycles,
        )
    tiling = tiling_of(operation, npu)
    direct = _block_wise(operation, tiling, system, staged=False)
    if not operation.weights or operation.weights_are_activations:
        return direct
    weights = _weights(direct, system)
    staging = staging_of(weights, system, math.inf if slack_cycles is None else slack_cycles)
    if staging is None:
        return direct
    staged = _block_wise(operation, tiling, system, staged=True)
    if slack_cycles is None:
        return replace(staged, staging=staging)
    late = max(staging.late_cycles, staged.traffic.scale_cycles)
    return replace(staged, staging=staging, store_cycles=late)


def schedules(
    operations: Iterable[Operation], system: System, slack_cycles: float | None
) -> tuple[Schedule, ...]:
    """The schedules of operations one after another.

    Raises:
        WorkError: As `tiling_of`.
    """
    found: list[Schedule] = []
    for operation in operations:
        found.append(schedule(operation, system, slack_cycles))
        if slack_cycles is not None:
            slack_cycles = found[-1].slack_cycles
    return tuple(found)


def _weights(direct: Schedule, system: System) -> Weights:
    operation, tiling, npu = direct.operation, direct.tiling, system.npu
    assert tiling is not None, "operations with weights run in blocks"
    high, wide, _ = tiling.counts(operation)

    def sliced(channels: int) -> Slice:
        part = replace(operation, target=(*operation.target[:2], channels))
        read, written = block_cycles(part, tiling, system)
        return Slice(
            compute_cycles=_block_wise_cycles(part, tiling, system, staged=True),
            read_cycles=read,
            write_cycles=written,
            input_bytes=traffic_of(part, tiling, system, staged=True).input_bytes,
        )

    scales = scale_bytes(operation, tiling, npu)
    return Weights(
        stream_bytes=weight_bytes(operation, tiling, npu) + scales,
        scale_bytes=scales,
        channels=operation.target[2],
        block=tiling.block[2],
        reads=high * wide,
        direct_cycles=direct.compute_cycles,
        sliced=sliced,
    )


def _block_wise(operation: Operation, tiling: Tiling, system: System, *, staged: bool) -> Schedule:
    traffic = traffic_of(operation, tiling, system, staged=staged)
    return Schedule(
        operation=operation,
        tiling=tiling,
        compute_cycles=_block_wise_cycles(operation, tiling, system, staged=staged),
        traffic=traffic,
        store_cycles=traffic.store_cycles,
    )


def _elementwise_cycles(operation: Operation, npu: Npu) -> float:
    height, width, channels = operation.target
    depth = channels if operation.linear_target else up(channels, npu.brick)
    return height * width * depth * _of_element(operation, npu.output, wide=False)


def _block_wise_cycles(
    operation: Operation, tiling: Tiling, system: System, *, staged: bool
) -> float:
    npu, block = system.npu, _clipped(operation, tiling)
    micros = _micros(block, tiling)
    whole = _micros(operation.target, tiling)
    blocks = math.prod(whole) / math.prod(micros)
    macs = _macs_cycles(operation, tiling, npu)
    wide = tiling.layout.accumulator_bits > WIDE and operation.kind != "pool"
    outputs = _of_element(operation, npu.output, wide=wide) * math.prod(block)
    if operation.weights and not operation.weights_are_activations:
        side = system.arena if staged else system.store
        scales = npu.weights.channel_bytes * block[2] / npu.blocks.scale_bytes
        outputs = max(outputs, scales * side.port.read_latency)
    read, written = block_cycles(operation, tiling, system)
    apart = abs(read - written) if blocks > 1 else 0.0
    issue = (apart + macs + outputs) / npu.blocks.commands
    longer, shorter = sorted((max(macs, issue), max(outputs, issue)), reverse=True)
    return longer * blocks + shorter + read + written


def _of_element(operation: Operation, unit: OutputUnit, *, wide: bool) -> float:
    """Cycles of one result in the output unit."""
    cycles = _cycles(operation.result, unit, wide=wide)
    return cycles + sum(_cycles(one, unit, wide=False) for one in operation.chained)


def _cycles(result: Result, unit: OutputUnit, *, wide: bool) -> float:
    if result == "product":
        return unit.wide_product if wide else unit.product
    by_result = {
        "add": unit.add,
        "multiply": unit.multiply,
        "wide_multiply": unit.wide_multiply,
        "maximum": unit.maximum,
        "other": unit.other,
        "lookup": max(unit.lookup, unit.product),
    }
    return by_result[result]


def _macs_cycles(operation: Operation, tiling: Tiling, npu: Npu) -> float:
    """Cycles of the array for one block of outputs."""
    steps, micros = tiling.steps, _micros(_clipped(operation, tiling), tiling)
    plane, deep = micros[0] * micros[1], micros[2]
    channels = min(operation.source[2], tiling.inputs[2])
    a_step = steps.cycles * _share(channels, steps.inputs, steps.granule)
    over_plane = max(steps.least_cycles, a_step * plane)
    along = -(-channels // steps.inputs) if steps.walk == "taps" else 1
    zeros = npu.blocks.sparse and operation.kind == "convolution"
    if zeros and operation.source[2] <= DENSE:
        over_plane *= HALF
    total = 0.0
    for taps in _windows(operation.kernel, npu.blocks.window):
        count = max(steps.least_taps, -(-taps // steps.taps))
        total += over_plane * count * deep * along
        if plane == 1 and steps.walk != "pool":
            wide = tiling.layout.accumulator_bits > WIDE
            delay = npu.blocks.wide_delay if wide else npu.blocks.delay
            waits = count if deep == 1 else (count - 1) * deep
            total += delay * waits * along
    if operation.kind in ("convolution", "product"):
        total *= -(-operation.source[2] // tiling.inputs[2])
    return total / npu.blocks.cores


def _share(channels: int, inputs: int, granule: int | None) -> float:
    """Share of a step that fewer channels than it covers take."""
    if granule is None:
        return 1.0
    return min(-(-channels // granule) * granule / inputs, 1.0)


def _windows(kernel: tuple[int, int], window: int) -> list[int]:
    """Taps of each pass over a kernel."""
    rows, columns = (
        [min(window, size - start) for start in range(0, size, window)] for size in kernel
    )
    return [height * width for height in rows for width in columns]


def _clipped(operation: Operation, tiling: Tiling) -> tuple[int, int, int]:
    block, target = tiling.block, operation.target
    height = min(block[0], target[0])
    return (height, min(block[1], target[1]), min(block[2], target[2]))


def _micros(sizes: tuple[int, int, int], tiling: Tiling) -> tuple[int, int, int]:
    micro = tiling.micro
    return (-(-sizes[0] // micro[0]), -(-sizes[1] // micro[1]), -(-sizes[2] // micro[2]))
