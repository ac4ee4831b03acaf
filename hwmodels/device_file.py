"""Device files: YAML to `Device`, all errors at once with field path and file name."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hwmodels.device import (
    Architecture,
    ArrayShape,
    ComputeUnit,
    Device,
    DeviceKind,
    ElementEnergy,
    Link,
    Measurement,
    Memory,
    Power,
    Rate,
    UnitRole,
)
from hwmodels.device_check import absurd_figures
from hwmodels.errors import DeviceError, nearest
from hwmodels.quantity import LIMITS, UNITS, Dimension, Kind, SourcedValue
from hwmodels.yaml_file import names_in, read_yaml, validated

DEVICE_FOLDER = Path(__file__).parent / "devices"
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Figure(_Entry):
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


class ShapeEntry(_Entry):
    """MACs of a spatial array in one cycle, by what they compute."""

    rows: Figure
    inputs: Figure
    outputs: Figure


class UnitEntry(_Entry):
    """Equal cores."""

    name: str
    role: UnitRole
    count: Figure
    clock: Figure
    rates: tuple[RateEntry, ...] = Field(min_length=1)
    shape: ShapeEntry | None = None


class MemoryEntry(_Entry):
    """One memory level; the first one of a file holds the weights."""

    name: str
    capacity: Figure
    bandwidth: Figure
    energy: Figure | None = None


class LinkEntry(_Entry):
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


class PowerEntry(_Entry):
    """Idle draw, limit, and dynamic energy per operation."""

    idle: Figure
    limit: Figure
    per_op: tuple[EnergyEntry, ...] = ()


class ArchitectureEntry(_Entry):
    """Instruction set family and version, matched against the modes of a runtime."""

    family: Literal["sm", "cdna", "xe", "tpu", "gaudi", "apple", "groq", "x86", "ethos-u", "array"]
    version: float


class MeasurementEntry(_Entry):
    """One operator timed on the device, as in an operator table."""

    op: str
    shape: dict[str, int]
    dtype: str
    runtime: str
    median_us: Positive


class DeviceFile(_Entry):
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


@cache
def device_names() -> tuple[str, ...]:
    """Names of the shipped devices."""
    return names_in(DEVICE_FOLDER)


def load_device(name_or_path: str | Path) -> Device:
    """The device of that name, or of that YAML file.

    Raises:
        DeviceError: An unknown name, or a file with missing, unknown or absurd entries; the
            message lists all of them.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        if str(name_or_path) not in device_names():
            raise DeviceError(
                f"unknown device {str(name_or_path)!r}{nearest(str(name_or_path), device_names())}"
                f" Known: {', '.join(device_names())}; or give the path of a device file (.yaml)"
            )
        return _shipped(str(name_or_path))
    return _read(path)


@cache
def _shipped(name: str) -> Device:
    return _read(DEVICE_FOLDER / f"{name}.yaml")


def _read(path: Path) -> Device:
    entry = validated(DeviceFile, read_yaml(path, DeviceError), path, DeviceError)
    builder = _Builder(entry.sources)
    device = builder.device(entry)
    problems = builder.problems or absurd_figures(device)
    if problems:
        raise DeviceError("\n".join(f"{path}: {problem}" for problem in problems))
    return device


class _Builder:
    """Turns entries into domain objects and collects every figure that is wrong."""

    def __init__(self, sources: dict[str, str]) -> None:
        self.sources = sources
        self.problems: list[str] = []

    def figure(self, where: str, figure: Figure, dimension: Dimension) -> SourcedValue:
        try:
            return figure.in_base_units(dimension, self.sources)
        except ValueError as error:
            self.problems.append(f"{where}: {error}")
            return SourcedValue(value=figure.value, unit=figure.unit, source="", kind="assumed")

    def optional(self, where: str, figure: Figure | None, d: Dimension) -> SourcedValue | None:
        return None if figure is None else self.figure(where, figure, d)

    def device(self, entry: DeviceFile) -> Device:
        return Device(
            name=entry.name,
            title=entry.title,
            vendor=entry.vendor,
            family=entry.family,
            kind=entry.kind,
            architecture=Architecture(
                family=entry.architecture.family, version=entry.architecture.version
            ),
            year=entry.year,
            validation=entry.validation,
            units=tuple(self.unit(f"units.{i}", unit) for i, unit in enumerate(entry.units)),
            memories=tuple(
                self.memory(f"memories.{i}", memory) for i, memory in enumerate(entry.memories)
            ),
            links=tuple(
                Link(
                    name=link.name,
                    bandwidth_bytes_per_s=self.figure(
                        f"links.{i}.bandwidth", link.bandwidth, "bandwidth"
                    ),
                    start_s=self.optional(f"links.{i}.start", link.start, "time"),
                    step_s=self.optional(f"links.{i}.step", link.step, "time"),
                )
                for i, link in enumerate(entry.links)
            ),
            launch_s=self.figure("launch", entry.launch, "time"),
            power=self.power(entry.power),
            area_mm2=self.optional("area", entry.area, "area"),
            price_usd_per_h=self.optional("price", entry.price, "price"),
            measurements=tuple(
                Measurement(
                    op=sample.op,
                    sizes=tuple(sorted(sample.shape.items())),
                    dtype=sample.dtype,
                    runtime=sample.runtime,
                    median_us=sample.median_us,
                )
                for sample in entry.measurements
            ),
        )

    def unit(self, where: str, entry: UnitEntry) -> ComputeUnit:
        return ComputeUnit(
            name=entry.name,
            role=entry.role,
            count=self.figure(f"{where}.count", entry.count, "count"),
            clock_hz=self.figure(f"{where}.clock", entry.clock, "frequency"),
            rates=tuple(
                Rate(
                    weight=rate.weight or rate.elements,
                    input=rate.input or rate.elements,
                    accumulator=rate.accumulator,
                    ops_per_s=self.figure(f"{where}.rates.{i}", rate, "rate"),
                )
                for i, rate in enumerate(entry.rates)
            ),
            shape=None if entry.shape is None else self.shape(f"{where}.shape", entry.shape),
        )

    def shape(self, where: str, entry: ShapeEntry) -> ArrayShape:
        return ArrayShape(
            rows=self.figure(f"{where}.rows", entry.rows, "count"),
            inputs=self.figure(f"{where}.inputs", entry.inputs, "count"),
            outputs=self.figure(f"{where}.outputs", entry.outputs, "count"),
        )

    def memory(self, where: str, entry: MemoryEntry) -> Memory:
        return Memory(
            name=entry.name,
            capacity_bytes=self.figure(f"{where}.capacity", entry.capacity, "capacity"),
            bandwidth_bytes_per_s=self.figure(f"{where}.bandwidth", entry.bandwidth, "bandwidth"),
            energy_per_byte_j=self.optional(f"{where}.energy", entry.energy, "energy_per_byte"),
        )

    def power(self, entry: PowerEntry) -> Power:
        return Power(
            idle_w=self.figure("power.idle", entry.idle, "power"),
            limit_w=self.figure("power.limit", entry.limit, "power"),
            per_op=tuple(
                ElementEnergy(
                    elements=energy.elements,
                    energy_per_op_j=self.figure(f"power.per_op.{i}", energy, "energy_per_op"),
                )
                for i, energy in enumerate(entry.per_op)
            ),
        )
