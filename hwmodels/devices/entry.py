"""What a device file may hold, as pydantic models: the device JSON schema."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hwmodels.devices.device import DeviceKind, UnitRole
from hwmodels.devices.quantity import LIMITS, UNITS, Dimension, Kind, SourcedValue
from hwmodels.errors import nearest
from hwmodels.yaml_file import Entry

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Figure(Entry):
    """One figure of a device file."""

    value: Positive
    """The figure in `unit`."""
    unit: str
    """Unit with prefix: TFLOP/s, GB/s, MiB, MHz, us, W, pJ/op, pJ/B, mm2, count, USD/h."""
    kind: Kind
    """measured, datasheet, scaled (from a sibling by a stated rule) or assumed."""
    source: str
    """A key of `sources`, or the citation itself."""
    low: Positive | None = None
    """Lowest value that a source gives, in `unit`."""
    high: Positive | None = None
    """Highest value that a source gives, in `unit`."""

    @model_validator(mode="after")
    def _known_unit(self) -> Figure:
        if self.unit not in UNITS:
            raise ValueError(f"unknown unit {self.unit!r}{nearest(self.unit, UNITS)}")
        return self

    def in_base_units(self, dimension: Dimension, sources: dict[str, str]) -> SourcedValue:
        """The figure as `SourcedValue`.

        Raises:
            ValueError: A unit of another dimension, or a value outside the physical limits.
        """
        found, factor = UNITS[self.unit]
        if found != dimension:
            units = ", ".join(unit for unit, (kind, _) in UNITS.items() if kind == dimension)
            raise ValueError(f"expected a {dimension} ({units}), got {self.value:g} {self.unit}")
        low, high, words = LIMITS[dimension]
        if not low <= self.value * factor <= high:
            raise ValueError(
                f"{self.value:g} {self.unit} is outside the physical limits ({words}); "
                "check the unit's prefix"
            )
        return SourcedValue(
            value=self.value * factor,
            unit=self.unit,
            source=sources.get(self.source, self.source),
            kind=self.kind,
            low=None if self.low is None else self.low * factor,
            high=None if self.high is None else self.high * factor,
        )


class RateEntry(Figure):
    """Throughput of one pair of operand elements and one accumulator."""

    elements: tuple[str, ...] = ()
    """Elements any two of which run at this rate."""
    weight: tuple[str, ...] = ()
    """With `input`: elements of the first and of the second operand."""
    input: tuple[str, ...] = ()
    accumulator: str
    """Element of the accumulator; a rate holds for one accumulator only."""

    @model_validator(mode="after")
    def _operands(self) -> RateEntry:
        if bool(self.elements) == bool(self.weight and self.input):
            raise ValueError("expected either `elements` or both `weight` and `input`")
        return self


class ShapeEntry(Entry):
    """MACs of a spatial array in one cycle, by what they compute."""

    rows: Figure
    inputs: Figure
    outputs: Figure


class UnitEntry(Entry):
    """Equal cores."""

    name: str
    role: UnitRole
    count: Figure
    clock: Figure
    rates: tuple[RateEntry, ...] = Field(min_length=1)
    shape: ShapeEntry | None = None


class MemoryEntry(Entry):
    """One memory level; the first one of a file holds the weights."""

    name: str
    capacity: Figure
    bandwidth: Figure
    energy: Figure | None = None


class LinkEntry(Entry):
    """A link to other devices, both directions together."""

    name: str
    bandwidth: Figure
    start: Figure | None = None
    """Least time of a collective, beside its steps."""
    step: Figure | None = None
    """Latency of one step of a ring."""


class EnergyEntry(Figure):
    """Dynamic energy of an operation on these elements."""

    elements: tuple[str, ...] = Field(min_length=1)


class PowerEntry(Entry):
    """Idle draw, limit, and dynamic energy per operation."""

    idle: Figure
    limit: Figure
    per_op: tuple[EnergyEntry, ...] = ()


class ArchitectureEntry(Entry):
    """Instruction set family and version, matched against the modes of a runtime."""

    family: Literal["sm", "cdna", "xe", "tpu", "gaudi", "apple", "groq", "x86", "ethos-u", "array"]
    version: float


class MeasurementEntry(Entry):
    """One operator timed on the device, as in an operator table."""

    op: str
    shape: dict[str, int]
    dtype: str
    runtime: str
    median_us: Positive


class DeviceFile(Entry):
    """A device file. `DeviceFile.model_json_schema()` is its JSON schema."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    title: str
    vendor: str
    family: str
    kind: DeviceKind
    architecture: ArchitectureEntry
    year: int = Field(ge=1990, le=2100)
    validation: str = ""
    sources: dict[str, str] = Field(default_factory=dict)
    """Citation by key; a figure's `source` names the key."""
    units: tuple[UnitEntry, ...] = Field(min_length=1)
    memories: tuple[MemoryEntry, ...] = Field(min_length=1)
    links: tuple[LinkEntry, ...] = ()
    launch: Figure
    power: PowerEntry
    area: Figure | None = None
    price: Figure | None = None
    measurements: tuple[MeasurementEntry, ...] = ()
    """Few-shot samples; `dse fit` writes them."""
