"""Memory in the arena: maps in bricks of channels, and weights that are staged there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from hwmodels.devices.device import Device
from hwmodels.errors import WorkError
from hwmodels.estimators.npu.lowering import operations_of
from hwmodels.estimators.npu.schedule import Schedule, block_wise, schedule
from hwmodels.estimators.npu.system import System, system_of
from hwmodels.estimators.npu.traffic import LINEAR
from hwmodels.estimators.npu.weights import scale_bytes
from hwmodels.formats.encodings import ENCODINGS
from hwmodels.work.kernel import Kernel
from hwmodels.work.work import Operand

MAP_AXES = 4


def map_bytes(operand: Operand, stored_bytes: float, device: Device) -> float:
    """Bytes of an activation in the arena, from those that its format takes.

    A map, (images, channels, height, width), is filled up to whole bricks of channels, unless it
    has so few that it is an image. On devices that are no NPUs it takes what its format takes.
    """
    if device.npu is None or len(operand.shape) != MAP_AXES or operand.shape[1] < LINEAR:
        return stored_bytes
    channels, brick = operand.shape[1], device.npu.brick
    return stored_bytes * math.ceil(channels / brick) * brick / channels


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """Bytes that the operations of a region hold in the arena beside its maps."""

    held_bytes: float = 0.0
    """Of one of its operations at most: staged weights, sums of a product by columns."""
    early_bytes: float = 0.0
    """Of its first operation, all of it staged while the region before still runs."""
    last_cycles: float = 0.0
    """Cycles of its last operation, in which weights of the next region can be staged."""
    operations: int = 0


def scratch_of(kernels: Sequence[Kernel], device: Device, slack_cycles: float) -> Scratch:
    """The scratch of a region on an NPU; nothing on other devices.

    Args:
        kernels: What the region runs, in order.
        device: Where.
        slack_cycles: Cycles of the operation before, in which its first weights can be staged.
    """
    if device.npu is None:
        return Scratch()
    system = system_of(device)
    runs = [run for kernel in kernels for run in _runs(kernel, system)]
    held, early, before = 0.0, 0.0, slack_cycles
    for place, run in enumerate(runs):
        found = _staging(run, system, before)
        held = max(held, found.held_bytes)
        if place == 0 and found.early:
            early = found.held_bytes
        before = found.last_cycles
    return Scratch(
        held_bytes=held, early_bytes=early, last_cycles=before, operations=len(runs),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Staging:
    """Staging of one operation in the arena."""

    held_bytes: float = 0.0
    early: bool = False
    """All of it is there before the operation begins."""
    last_cycles: float
    """Cycles at its end in which it stages nothing."""


def _runs(kernel: Kernel, system: System) -> list[Schedule]:
    if kernel.macs and kernel.input_element not in ENCODINGS:
        return []
    try:
        return [schedule(one, system) for one in operations_of(kernel, system.npu)]
    except WorkError:
        return []  # no block fits: its price is an error


def _staging(run: Schedule, system: System, slack_cycles: float) -> _Staging:
    """Staging of an operation, with so many cycles of the one before to do it in.

    All weights are held where they can be staged before; else slices of output channels in two
    buffers: what can be staged before, then what can while a slice is computed. Weights that are
    read once are not staged where the slices come later than they are read from the store, nor
    those of fewer channels than a slice has.
    """
    if run.operation.result == "wide_multiply":
        return _Staging(held_bytes=run.traffic.output_bytes, last_cycles=run.compute_cycles)
    tiling = run.tiling
    if not run.traffic.staged_bytes or tiling is None:
        return _Staging(last_cycles=run.compute_cycles)
    staged = run.traffic.staged_bytes + scale_bytes(run.operation, tiling, system.npu)
    channels, granule = run.operation.target[2], system.npu.blocks.depth
    direct = block_wise(run.operation, tiling, system, staged=False).cycles
    high, wide, _ = tiling.counts(run.operation)
    once = high * wide == 1 and run.operation.kind != "depthwise"
    if once and channels < granule:
        return _Staging(last_cycles=direct)
    copied = _copied(staged, system)
    if copied <= slack_cycles:
        return _Staging(held_bytes=staged, early=True, last_cycles=run.compute_cycles)
    slices = _slices(run, copied, slack_cycles, granule)
    if once and _sliced_cycles(run, slices, staged, slack_cycles, system) >= direct:
        return _Staging(last_cycles=direct)
    both = max(slices[::2]) + max(slices[1::2], default=0)
    return _Staging(
        held_bytes=staged * min(both / channels, 1.0),
        last_cycles=run.compute_cycles * slices[-1] / channels,
    )


def _slices(run: Schedule, copied: float, slack_cycles: float, granule: int) -> list[int]:
    """Output channels of each slice, granules and where they can be blocks."""
    channels = run.operation.target[2]
    first = _rounded(channels * slack_cycles / copied, granule)
    then = channels * run.compute_cycles * first / channels / copied
    assert run.tiling is not None, "what is staged has blocks"
    block = max(run.tiling.block[2], granule)
    then = _rounded(then, granule) if then <= block else -(-then // block) * block
    starts = [0, *range(first, channels, round(then)), channels]
    return [end - start for start, end in pairwise(starts) if end > start]


def _sliced_cycles(
    run: Schedule, slices: list[int], staged: float, slack_cycles: float, system: System
) -> float:
    """Cycles of an operation whose slices are staged in two buffers, one after another."""
    channels = run.operation.target[2]
    loaded, done = -slack_cycles, [0.0, 0.0]
    for place, count in enumerate(slices):
        free = done[-2] if place else loaded
        share = count / channels
        loaded = max(loaded, free) + _copied(staged * share, system)
        done.append(max(loaded, done[-1]) + run.compute_cycles * share)
    return done[-1]


def _copied(staged_bytes: float, system: System) -> float:
    """Cycles of staging so many bytes."""
    store = system.store
    return staged_bytes / store.channel(system.npu.channels.copy) + store.port.read_latency


def _rounded(channels: float, granule: int) -> int:
    return max(int(channels / granule), 1) * granule
