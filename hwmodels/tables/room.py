"""Memory that a call needs beside what a device has: said where a price assumes more."""

from __future__ import annotations

import math
from collections.abc import Iterator

from hwmodels.devices.device import Device
from hwmodels.work.cost import CostEstimate

PREFIXES = ("B", "kB", "MB", "GB", "TB")


def lacking_room(cost: CostEstimate, device: Device, label: str) -> Iterator[str]:
    """Remarks on a call of one device that its memories do not hold.

    Prices know nothing of it: they are those of a device with enough of that memory.

    Args:
        cost: of the call.
        device: the one that runs it, alone.
        label: name of the formats.
    """
    needed = cost.weight_bytes + cost.kv_bytes + cost.peak_bytes
    yield from beyond_main_memory(needed, "weights, caches and activations", device, label)
    main = device.main_memory
    arena = device.memory(device.npu.arena) if device.npu is not None else None
    if arena is not None and cost.peak_bytes > arena.capacity_bytes.value:
        yield (
            f"{label} on {device.name}: activations and staged weights take "
            f"{_text(cost.peak_bytes)} at their peak, {arena.name} holds "
            f"{_text(arena.capacity_bytes.value)}: a compiler moves tensors to {main.name} or "
            f"refuses the network, the price is that of a {arena.name} with room for them"
        )


def beyond_main_memory(needed: float, what: str, device: Device, label: str) -> Iterator[str]:
    """A remark where bytes are more than a device's main memory has.

    Args:
        needed: bytes.
        what: takes them, for the remark.
        device: the one that would hold them, alone.
        label: what runs there.
    """
    main = device.main_memory
    if needed > main.capacity_bytes.value:
        yield (
            f"{label} on {device.name}: {what} take {_text(needed)}, {main.name} holds "
            f"{_text(main.capacity_bytes.value)}: the price is that of a {main.name} with room "
            "for them"
        )


def _text(size: float) -> str:
    power = min(int(math.log10(max(size, 1))) // 3, len(PREFIXES) - 1)
    return f"{size / 1000**power:.3g} {PREFIXES[power]}"
