"""Points of a sweep over figures of a device, as tables and figures show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dse.report.quantities.unit import si

CLOSE = 1.02
"""Latency over the least from which on a figure buys nothing that a user would notice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepAxis:
    """A figure, or a word, that is swept."""

    key: str
    """Its path in the device's file."""
    unit: str
    """That of its numbers; empty for counts and words."""
    numbers: Mapping[str, float | None]
    """Values as they were given, and their numbers in the unit; None for words."""
    of_files: Mapping[str, float | None]
    """The file's own number by device."""

    @property
    def is_numeric(self) -> bool:
        """Whether the values lie on an axis."""
        return None not in self.numbers.values()

    @property
    def title(self) -> str:
        """`memories.sram.capacity (MiB)`."""
        return f"{self.key} ({self.unit})" if self.unit else self.key


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPoint:
    """The price of a model in one format on one device of a sweep."""

    settings: Mapping[str, str]
    """Values of the swept keys, as they were given."""
    device: str
    format: str
    latency_s: float
    low_s: float
    high_s: float
    energy_j: float
    weight_bytes: float
    peak_bytes: float
    area_mm2: float | None
    """None where neither the file nor circuits say it."""
    bound: str
    status: str

    @property
    def line(self) -> tuple[str, str]:
        """The device and the format, which are not swept."""
        return self.device, self.format


def settings_text(settings: Mapping[str, str]) -> str:
    """`memories.sram.capacity=2MiB, units.mac_array.count=2`."""
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def sentences(points: Sequence[SweepPoint]) -> list[str]:
    """The answer of a sweep for every device and format: the fastest point, and what is enough."""
    lines: dict[tuple[str, str], list[SweepPoint]] = {}
    for point in points:
        lines.setdefault(point.line, []).append(point)
    return [_sentence(line) for line in lines.values()]


def _sentence(points: Sequence[SweepPoint]) -> str:
    best = min(points, key=lambda point: point.latency_s)
    worst = max(points, key=lambda point: point.latency_s)
    name = f"{best.format} on {best.device}"
    if worst.latency_s <= CLOSE * best.latency_s:
        return (
            f"{name}: latency is {si(best.latency_s, 's')} whatever the value, within "
            f"{CLOSE - 1:.0%}."
        )
    text = (
        f"{name}: fastest with {settings_text(best.settings)}, {si(best.latency_s, 's')}, "
        f"{worst.latency_s / best.latency_s:.2f} times as fast as with "
        f"{settings_text(worst.settings)}."
    )
    enough = next(point for point in points if point.latency_s <= CLOSE * best.latency_s)
    if enough is best or len(best.settings) > 1:
        return text
    return f"{text} {settings_text(enough.settings)} is within {CLOSE - 1:.0%} of it."


def record(point: SweepPoint) -> dict[str, str | float | None]:
    """A point as a row of a table for programs: the swept keys, then the price."""
    return {
        **point.settings,
        "device": point.device,
        "format": point.format,
        "latency_s": point.latency_s,
        "low_s": point.low_s,
        "high_s": point.high_s,
        "energy_j": point.energy_j,
        "weight_bytes": point.weight_bytes,
        "peak_bytes": point.peak_bytes,
        "area_mm2": point.area_mm2,
        "bound": point.bound,
        "status": point.status,
    }
