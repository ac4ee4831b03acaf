"""Memory in the arena: maps in bricks of channels, and weights that are staged there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hwmodels.devices.device import Device
from hwmodels.errors import WorkError
from hwmodels.estimators.npu.lowering import operations_of
from hwmodels.estimators.npu.schedule import Schedule, schedule
from hwmodels.estimators.npu.system import System, system_of
from hwmodels.estimators.npu.traffic import LINEAR
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
        kept, free = _held(run, system, before)
        held = max(held, kept)
        if place == 0 and free == 1.0:
            early = run.traffic.staged_bytes
        before = run.compute_cycles * free
    return Scratch(
        held_bytes=held, early_bytes=early, last_cycles=before if runs else slack_cycles,
        operations=len(runs),
    )  # fmt: skip


def _runs(kernel: Kernel, system: System) -> list[Schedule]:
    if kernel.macs and kernel.input_element not in ENCODINGS:
        return []
    try:
        return [schedule(one, system) for one in operations_of(kernel, system.npu)]
    except WorkError:
        return []  # no block fits: its price is an error


def _held(run: Schedule, system: System, slack_cycles: float) -> tuple[float, float]:
    """Bytes that an operation holds, and the share of its cycles in which it stages nothing.

    All weights are held where they can be staged before; else two slices of output channels: the
    first one is what can be staged before, the next one what can while that one is computed.
    """
    if run.operation.result == "wide_multiply":
        return run.traffic.output_bytes, 1.0
    staged, store = run.traffic.staged_bytes, system.store
    copied = staged / store.channel(system.npu.channels.copy) + store.port.read_latency
    if not staged or copied <= slack_cycles:
        return staged, 1.0
    channels, granule = run.operation.target[2], system.npu.blocks.depth
    first = _slice(channels * slack_cycles / copied, granule)
    then = _slice(first * run.compute_cycles / copied, granule)
    return staged * min((first + then) / channels, 1.0), min(then / channels, 1.0)


def _slice(channels: float, granule: int) -> int:
    return max(int(channels / granule), 1) * granule
