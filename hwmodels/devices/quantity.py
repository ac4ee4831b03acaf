"""Figures with unit, kind and source, and the physical limits that catch a wrong prefix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["measured", "datasheet", "scaled", "assumed"]
Dimension = Literal[
    "rate", "bandwidth", "capacity", "frequency", "time", "power",
    "energy_per_op", "energy_per_byte", "area", "count", "price",
]  # fmt: skip

UNITS: dict[str, tuple[Dimension, float]] = {
    "op/s": ("rate", 1.0), "GOP/s": ("rate", 1e9), "TOP/s": ("rate", 1e12),
    "TFLOP/s": ("rate", 1e12), "PFLOP/s": ("rate", 1e15),
    "B/s": ("bandwidth", 1.0), "MB/s": ("bandwidth", 1e6), "GB/s": ("bandwidth", 1e9),
    "TB/s": ("bandwidth", 1e12),
    "B": ("capacity", 1.0), "KiB": ("capacity", 2.0**10), "MiB": ("capacity", 2.0**20),
    "GiB": ("capacity", 2.0**30), "KB": ("capacity", 1e3), "MB": ("capacity", 1e6),
    "GB": ("capacity", 1e9),
    "Hz": ("frequency", 1.0), "MHz": ("frequency", 1e6), "GHz": ("frequency", 1e9),
    "s": ("time", 1.0), "ms": ("time", 1e-3), "us": ("time", 1e-6), "ns": ("time", 1e-9),
    "W": ("power", 1.0), "mW": ("power", 1e-3),
    "J/op": ("energy_per_op", 1.0), "pJ/op": ("energy_per_op", 1e-12),
    "fJ/op": ("energy_per_op", 1e-15),
    "J/B": ("energy_per_byte", 1.0), "pJ/B": ("energy_per_byte", 1e-12),
    "mm2": ("area", 1.0), "count": ("count", 1.0), "USD/h": ("price", 1.0),
}  # fmt: skip
"""Unit to dimension and factor to the dimension's base unit (SI; mm2 for area)."""

LIMITS: dict[Dimension, tuple[float, float, str]] = {
    "rate": (1e8, 1e17, "one MAC at 50 MHz to 100 PFLOP/s, ten times the fastest FP4 package"),
    "bandwidth": (1e7, 1e15, "10 MB/s of serial flash to 1 PB/s of on-chip SRAM"),
    "capacity": (1e2, 4e12, "100 bytes to 4 TB"),
    "frequency": (1e6, 1e10, "1 MHz to 10 GHz"),
    "time": (1e-9, 1e-2, "1 ns to 10 ms of overhead"),
    "power": (1e-5, 5e4, "10 uW to 50 kW"),
    "energy_per_op": (1e-15, 1e-9, "1 fJ to 1 nJ an operation"),
    "energy_per_byte": (1e-14, 1e-8, "0.01 pJ to 10 nJ a byte"),
    "area": (1e-3, 5e4, "0.001 mm2 to one wafer"),
    "count": (1, 1e6, "1 to a million"),
    "price": (1e-3, 1e3, "0.001 to 1000 USD an hour"),
}
"""What any device of today can have, in base units: a prefix that is off by 1000 or a unit that is
bits for bytes on an extreme part falls outside; `hwmodels.devices.check` relates figures to each
other, which catches the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcedValue:
    """A figure in base units (op/s, B/s, B, Hz, s, W, J, mm2) and where it comes from."""

    value: float
    unit: str
    """As written in the file; `value` is already converted."""
    source: str
    kind: Kind
    low: float | None = None
    """Where sources disagree: the lowest and highest value that one of them gives."""
    high: float | None = None

    def __float__(self) -> float:
        return self.value
