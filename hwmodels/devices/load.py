"""Device files: YAML to `Device`, all errors at once with field path and file name."""

from __future__ import annotations

from pathlib import Path

from hwmodels.devices.check import absurd_figures
from hwmodels.devices.device import (
    Architecture,
    ArrayShape,
    ComputeUnit,
    Device,
    ElementEnergy,
    Link,
    Measurement,
    Memory,
    Power,
    Rate,
)
from hwmodels.devices.entry import (
    DeviceFile,
    Figure,
    MemoryEntry,
    PowerEntry,
    ShapeEntry,
    UnitEntry,
)
from hwmodels.devices.quantity import Dimension, SourcedValue
from hwmodels.errors import DeviceError
from hwmodels.yaml_file import Shelf, loaded, names_in, read_yaml, validated

DEVICE_FOLDER = Path(__file__).parent
DEVICES = Shelf(what="device", folder=DEVICE_FOLDER, error=DeviceError)


def device_names() -> tuple[str, ...]:
    """Names of the shipped devices."""
    return names_in(DEVICE_FOLDER)


def load_device(name_or_path: str | Path) -> Device:
    """The device of that name, or of that YAML file.

    Raises:
        DeviceError: An unknown name, or a file with missing, unknown or absurd entries; the
            message lists all of them.
    """
    return loaded(DEVICES, name_or_path, _read)


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
