"""Nearness of a kernel on a device to where the same code was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from hwmodels.devices.device import Architecture, Device

Standing = Literal["seen", "sibling", "unseen"]
SHARES: Mapping[Standing, float] = {"seen": 1.0, "sibling": 1.0, "unseen": 0.5}
"""Share of the trees' correction: half where the kernel was not measured on the architecture
(equal weights of two forecasts, as for GEMMs)."""
SAME_GENERATION = 0.5
"""Versions of an architecture that are nearer are one generation: 10.0 and 10.3, not 8.0, 8.6."""
Measured = Mapping[str, Mapping[str, str]]
"""By kernel: devices that it was measured on, with their architectures as `sm 9.0`."""


def standing_of(measured: Measured, kernel: str, device: Device) -> Standing:
    """The nearness of a kernel, by the name of its code, on a device."""
    known = measured.get(kernel, {})
    if device.name in known:
        return "seen"
    same = (_is_near(text, device.architecture) for text in known.values())
    return "sibling" if any(same) else "unseen"


def written(architecture: Architecture) -> str:
    """An architecture as `Measured` has it."""
    return f"{architecture.family} {architecture.version:g}"


def _is_near(text: str, architecture: Architecture) -> bool:
    family, version = text.split()
    return (
        family == architecture.family
        and abs(float(version) - architecture.version) < SAME_GENERATION
    )
