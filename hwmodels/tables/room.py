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
    main = device.main_memory
    needed = cost.weight_bytes + cost.kv_bytes + cost.peak_bytes
    if needed > main.capacity_bytes.value:
        yield (
            f"{label} on {device.name}: weights, caches and activations take {_text(needed)}, "
            f"{main.name} holds {_text(main.capacity_bytes.value)}: the price is that of a "
            f"{main.name} with room for them"
        )
    arena = device.memory(device.npu.arena) if device.npu is not None else None
    if arena is not None and cost.peak_bytes > arena.capacity_bytes.value:
        yield (
            f"{label} on {device.name}: activations and staged weights take "
            f"{_text(cost.peak_bytes)} at their peak, {arena.name} holds "
            f"{_text(arena.capacity_bytes.value)}: a compiler moves tensors to {main.name} or "
            f"refuses the network, the price is that of a {arena.name} with room for them"
        )


def _text(size: float) -> str:
    power = min(int(math.log10(max(size, 1))) // 3, len(PREFIXES) - 1)
    return f"{size / 1000**power:.3g} {PREFIXES[power]}"
