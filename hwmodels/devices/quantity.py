"""Figures with unit, kind and source, and the physical limits that catch a wrong prefix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationInfo,
)
from pydantic_core import CoreSchema, core_schema

from hwmodels.errors import nearest
from hwmodels.validation import INLINE, Entry, no_flag

Kind = Literal["measured", "datasheet", "scaled", "assumed"]
Dimension = Literal[
    "rate", "bandwidth", "capacity", "frequency", "time", "power",
    "energy_per_op", "energy_per_byte", "area", "length", "count", "price", "exponent",
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
    "mm2": ("area", 1.0), "nm": ("length", 1.0), "count": ("count", 1.0), "USD/h": ("price", 1.0),
    "exponent": ("exponent", 1.0),
}  # fmt: skip
"""Unit to dimension and factor to the dimension's base unit (SI; mm2 for area, nm for length)."""

LIMITS: dict[Dimension, tuple[float, float, str]] = {
    "rate": (1e8, 1e17, "one MAC at 50 MHz to 100 PFLOP/s, ten times the fastest FP4 package"),
    "bandwidth": (1e7, 1e15, "10 MB/s of serial flash to 1 PB/s of on-chip SRAM"),
    "capacity": (1, 4e12, "a register of one byte to 4 TB"),
    "frequency": (1e6, 1e10, "1 MHz to 10 GHz"),
    "time": (1e-9, 1e-2, "1 ns to 10 ms of overhead"),
    "power": (1e-5, 5e4, "10 uW to 50 kW"),
    "energy_per_op": (1e-15, 1e-9, "1 fJ to 1 nJ an operation"),
    "energy_per_byte": (1e-15, 1e-8, "0.001 pJ of a register to 10 nJ a byte"),
    "area": (1e-3, 5e4, "0.001 mm2 to one wafer"),
    "length": (1, 1000, "1 to 1000 nm"),
    "count": (1, 1e6, "1 to a million"),
    "price": (1e-3, 1e3, "0.001 to 1000 USD an hour"),
    "exponent": (1e-3, 4.0, "0.001 to 4"),
}
"""Range of any device of today, in base units: a prefix that is off by 1000 or a unit that is
bits for bytes on an extreme part falls outside; `hwmodels.devices.check` relates figures to each
other, which catches the rest."""


ROUNDING = 1.01
"""A source's figure is rounded: 1953 for 1952.64."""


def _known_unit(unit: str) -> str:
    if unit not in UNITS:
        raise ValueError(f"unknown unit {unit!r}{nearest(unit, UNITS)}")
    return unit


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(no_flag)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcedValue(Entry):
    """A figure in base units (op/s, B/s, B, Hz, s, W, J, mm2, nm) and where it comes from.

    A file gives `value`, `low` and `high` in `unit`, and as `source` a key of its `sources` or
    the citation itself; validation turns them into base units and the citation.
    """

    value: Positive
    """Number in `unit`."""
    unit: Annotated[str, AfterValidator(_known_unit)]
    """That of `value`, `low` and `high`; they are base units once the file is read."""
    source: str
    """Citation, or a key of the file's `sources`."""
    kind: Kind
    """`measured`, printed on a `datasheet`, `scaled` from another device's, or `assumed`: nobody
    opened a source."""
    low: Positive | None = None
    """Lowest value that a source gives, where sources disagree."""
    high: Positive | None = None
    """Highest value that a source gives, where sources disagree."""

    def __float__(self) -> float:
        return self.value


@dataclass(frozen=True, slots=True)
class _Figure:
    """The validator of a figure as a file writes it: `SourcedValue` in base units.

    The sources of the file are the validation's context.
    """

    dimension: Dimension

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.with_info_after_validator_function(self.in_base_units, handler(source))

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The record's schema with the dimension as its title, and that dimension's units."""
        units = [unit for unit, (kind, _) in UNITS.items() if kind == self.dimension]
        return {
            **handler(core),
            "title": self.dimension,
            "properties": {"unit": {"enum": units}},
        }

    def in_base_units(self, written: SourcedValue, info: ValidationInfo) -> SourcedValue:
        """The figure in base units, with the citation instead of its key.

        Raises:
            ValueError: As `_factor`, or a figure without a source.
        """
        factor = _factor(written, self.dimension)
        source = (info.context or {}).get(written.source, written.source)
        if not isinstance(source, str) or not source.strip():
            raise ValueError("source: expected a citation, or a key of `sources`, got none")
        return replace(
            written,
            value=written.value * factor,
            source=source,
            low=None if written.low is None else written.low * factor,
            high=None if written.high is None else written.high * factor,
        )


def _factor(written: SourcedValue, dimension: Dimension) -> float:
    """Base units in one of the written unit.

    Raises:
        ValueError: A unit of another dimension, a value outside the physical limits, or one
            that is not between its own `low` and `high`.
    """
    found, factor = UNITS[written.unit]
    if found != dimension:
        units = ", ".join(unit for unit, (kind, _) in UNITS.items() if kind == dimension)
        raise ValueError(f"expected a {dimension} ({units}), got {written.value:g} {written.unit}")
    low, high, words = LIMITS[dimension]
    for name in ("value", "low", "high"):
        given = getattr(written, name)
        if given is not None and not low <= given * factor <= high:
            shown = "" if name == "value" else f"{name} "
            raise ValueError(
                f"{shown}{given:g} {written.unit} is outside the physical limits ({words}); "
                "check the unit's prefix"
            )
        if given is not None and dimension == "count" and given != round(given):
            raise ValueError(f"{name}: expected a whole number, got {given:g}")
    least, most = written.low or 0.0, written.high or float("inf")
    if not least / ROUNDING <= written.value <= most * ROUNDING:
        raise ValueError(
            f"value {written.value:g} is not between low {written.low} and high {written.high}"
        )
    return factor


def _gathered(content: object) -> object:
    """A mapping whose keys of a figure, which stand among others, are one entry."""
    if not isinstance(content, Mapping):
        return content
    keys = {field.name for field in fields(SourcedValue)}
    figure = {key: value for key, value in content.items() if key in keys}
    return {key: value for key, value in content.items() if key not in keys} | {INLINE: figure}


FIGURE_INLINE = BeforeValidator(_gathered)
"""Of a record that is one figure with a few words to it, in one mapping."""

Throughput = Annotated[SourcedValue, _Figure("rate")]
Bandwidth = Annotated[SourcedValue, _Figure("bandwidth")]
Capacity = Annotated[SourcedValue, _Figure("capacity")]
Frequency = Annotated[SourcedValue, _Figure("frequency")]
Time = Annotated[SourcedValue, _Figure("time")]
Watts = Annotated[SourcedValue, _Figure("power")]
EnergyPerOp = Annotated[SourcedValue, _Figure("energy_per_op")]
EnergyPerByte = Annotated[SourcedValue, _Figure("energy_per_byte")]
Area = Annotated[SourcedValue, _Figure("area")]
Length = Annotated[SourcedValue, _Figure("length")]
Count = Annotated[SourcedValue, _Figure("count")]
Price = Annotated[SourcedValue, _Figure("price")]
Exponent = Annotated[SourcedValue, _Figure("exponent")]
