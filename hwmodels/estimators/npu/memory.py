"""Memory in the arena: maps in bricks of channels, and weights that are staged there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hwmodels.devices.device import Device
from hwmodels.errors import WorkError
from hwmodels.estimators.npu.lowering import LINEAR, operations_of
from hwmodels.estimators.npu.schedule import Schedule, schedules
from hwmodels.estimators.npu.system import System, system_of
from hwmodels.formats.encodings import ENCODINGS
from hwmodels.work.kernel import Kernel
from hwmodels.work.work import Operand

MAP_AXES = 4


def map_bytes(
    operand: Operand, stored_bytes: float, device: Device, *, linear: bool | None = None
) -> float:
    """Bytes of an activation in the arena, from those that its format takes.

    A map, (images, channels, height, width), is filled up to whole bricks of channels, unless it
    lies pixel after pixel. On devices that are no NPUs it takes what its format takes.

    Args:
        operand: The activation.
        stored_bytes: Bytes in its format.
        device: Where.
        linear: Whether it lies pixel after pixel; None: if it has as few channels as an image.
    """
    if device.npu is None or len(operand.shape) != MAP_AXES:
        return stored_bytes
    if operand.shape[1] < LINEAR if linear is None else linear:
        return stored_bytes
    channels, brick = operand.shape[1], device.npu.brick
    return stored_bytes * math.ceil(channels / brick) * brick / channels


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """Bytes that the operations of a region hold in the arena beside its maps."""

    held_bytes: float = 0.0
    """Of one of its operations at most: staged weights, sums of a product by columns."""
    early_bytes: float = 0.0
    """Of its first operation's first buffer, filled while the region before still runs."""
    tail_bytes: float = 0.0
    """Of its last operation, as that ends: sums, or the buffer of the last slice."""
    slack_cycles: float = 0.0
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
    held, early, tail, before, count = 0.0, 0.0, 0.0, slack_cycles, 0
    for kernel in kernels:
        for run in _runs(kernel, system, before):
            held = max(held, _held_bytes(run))
            tail = _held_bytes(run) if run.staging is None else run.staging.tail_bytes
            if not count and run.staging is not None:
                early = run.staging.early_bytes
            before, count = run.slack_cycles, count + 1
    return Scratch(
        held_bytes=held, early_bytes=early, tail_bytes=tail, slack_cycles=before,
        operations=count,
    )  # fmt: skip


def in_sequence(
    kernels: Sequence[Kernel],
    device: Device,
    slack_cycles: float,
    *,
    linear: tuple[bool, bool] = (False, False),
) -> tuple[tuple[Kernel, ...], float]:
    """Kernels that know the cycles of the operation before, and the cycles of the last one.

    Args:
        kernels: In order.
        device: An NPU.
        slack_cycles: Cycles of the operation before the first, in which weights can be staged.
        linear: Whether what the first one reads lies pixel after pixel, and what the last one
            writes; between them maps lie in bricks.
    """
    system, before, found = system_of(device), slack_cycles, []
    for place, plain in enumerate(kernels):
        kernel = replace(
            plain,
            linear_input=linear[0] and place == 0,
            linear_output=linear[1] and place == len(kernels) - 1,
        )
        runs = _runs(kernel, system, before)
        found.append(replace(kernel, slack_cycles=before) if runs else kernel)
        before = runs[-1].slack_cycles if runs else before
    return tuple(found), before


def _runs(kernel: Kernel, system: System, slack_cycles: float) -> Sequence[Schedule]:
    if kernel.macs and kernel.input_element not in ENCODINGS:
        return ()
    try:
        return schedules(operations_of(kernel, system.npu), system, slack_cycles)
    except WorkError:
        return ()  # no block fits: its price is an error


def _held_bytes(run: Schedule) -> float:
    """Bytes beside the maps: sums of a product by columns, or staged weights."""
    if run.operation.result == "wide_multiply":
        return run.traffic.output_bytes
    return 0.0 if run.staging is None else run.staging.held_bytes
