"""A device: compute units, memories, links, overheads, power; every figure has a source.

One operation is one multiply or one add, so that a multiply-accumulate counts two; rates are
dense. Files are read by `hwmodels.devices.load`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hwmodels.devices.quantity import SourcedValue

DeviceKind = Literal["gpu", "array", "cpu"]
UnitRole = Literal["matrix", "vector", "host"]

# Which wider element holds every value of a narrower one, nearest first: what a unit without the
# narrow format computes in after an exact conversion. (An integer of n bits fits a
# float with n - 1 mantissa bits.)
WIDER: dict[str, tuple[str, ...]] = {
    "int2": ("int4", "int8", "e4m3", "int16", "fp16", "bf16", "tf32", "fp32"),
    "int3": ("int4", "int8", "e4m3", "int16", "fp16", "bf16", "tf32", "fp32"),
    "int4": ("int8", "e4m3", "int16", "fp16", "bf16", "tf32", "fp32"),
    "int8": ("int16", "fp16", "bf16", "tf32", "fp32"),
    "int16": ("fp32",),
    "e2m1": ("e2m3", "e3m2", "e4m3", "fp16", "bf16", "tf32", "fp32"),
    "e2m3": ("e4m3", "fp16", "bf16", "tf32", "fp32"),
    "e3m2": ("e4m3", "e5m2", "fp16", "bf16", "tf32", "fp32"),
    "e4m3": ("fp16", "bf16", "tf32", "fp32"),
    "e5m2": ("fp16", "bf16", "tf32", "fp32"),
    "fp16": ("tf32", "fp32"),
    "bf16": ("tf32", "fp32"),
    "tf32": ("fp32",),
    "fp32": (),
}
# Two operands that no one wider element joins (int8 with e4m3) meet in a 16-bit float.
MEETING_POINT = ("fp16", "bf16", "tf32", "fp32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A family of instruction sets and its version: `sm` 9.0, `cdna` 3, `ethos-u` 55."""

    family: str
    version: float

    def __str__(self) -> str:
        if self.family == "sm":
            return f"sm_{round(self.version * 10)}"
        separator = "v" if self.family[-1].isdigit() else ""
        return f"{self.family}{separator}{self.version:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Dense throughput of one unit for operands of these elements, into this accumulator."""

    weight: tuple[str, ...]
    input: tuple[str, ...]
    accumulator: str
    ops_per_s: SourcedValue

    def accepts(self, weight: str, input_: str) -> bool:
        """Whether the unit multiplies these two elements."""
        return weight in self.weight and input_ in self.input


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayShape:
    """What a spatial array computes in one cycle: rows x inputs x outputs MACs."""

    rows: SourcedValue
    """Output pixels, or rows of a GEMM."""
    inputs: SourcedValue
    """Input channels."""
    outputs: SourcedValue
    """Output channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeUnit:
    """`count` equal cores at one clock: SMs, compute units, MAC arrays.

    A `host` unit is the processor that runs what the accelerator cannot.
    """

    name: str
    role: UnitRole
    count: SourcedValue
    clock_hz: SourcedValue
    rates: tuple[Rate, ...]
    shape: ArrayShape | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """One level: `dram`, `l2`, `l3`, `smem` (per core), `sram`, `flash`."""

    name: str
    capacity_bytes: SourcedValue
    bandwidth_bytes_per_s: SourcedValue
    energy_per_byte_j: SourcedValue | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A connection to other devices; bandwidth is the sum of both directions."""

    name: str
    bandwidth_bytes_per_s: SourcedValue
    start_s: SourcedValue | None = None
    """What a collective takes at least, beside its steps (`hwmodels.tables.collectives`)."""
    step_s: SourcedValue | None = None
    """Latency of one step of a ring."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementEnergy:
    """Dynamic energy of one operation whose operands are one of these elements."""

    elements: tuple[str, ...]
    energy_per_op_j: SourcedValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """What the device draws when idle, at most, and per operation."""

    idle_w: SourcedValue
    """With a context held and nothing running; some files have only a sleeping board's."""
    limit_w: SourcedValue
    per_op: tuple[ElementEnergy, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One operator timed on the device: a row of an operator table."""

    op: str
    sizes: tuple[tuple[str, int], ...]
    dtype: str
    runtime: str
    median_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Hardware that executes work."""

    name: str
    title: str
    vendor: str
    family: str
    """Chips that share a design: `hopper`, `blackwell`, `ampere`, `cdna3`, ..."""
    kind: DeviceKind
    architecture: Architecture
    year: int
    units: tuple[ComputeUnit, ...]
    memories: tuple[Memory, ...]
    links: tuple[Link, ...]
    launch_s: SourcedValue
    """Least time from one dependent kernel's start to the next one's in a captured graph."""
    power: Power
    area_mm2: SourcedValue | None = None
    price_usd_per_h: SourcedValue | None = None
    measurements: tuple[Measurement, ...] = ()
    """Few-shot: what was timed on this very device; predictions are corrected by it."""
    validation: str = ""
    """Against which measurements its predictions were checked; empty: datasheet only."""

    @property
    def validated(self) -> bool:
        """Whether predictions for this device were compared with measurements."""
        return bool(self.validation)

    @property
    def note(self) -> str:
        """What stands behind the predictions, for people."""
        if self.validated:
            return f"validated against {self.validation}"
        assumed = sum(figure.kind == "assumed" for figure in self.figures)
        return f"datasheet only, {assumed} of {len(self.figures)} figures assumed"

    def unit(self, role: UnitRole) -> ComputeUnit:
        """The first unit of that role; a device without vector unit uses its matrix unit."""
        return next((unit for unit in self.units if unit.role == role), self.units[0])

    def memory(self, name: str) -> Memory | None:
        """The memory of that name."""
        return next((memory for memory in self.memories if memory.name == name), None)

    @property
    def main_memory(self) -> Memory:
        """Where weights live: the first memory of the file."""
        return self.memories[0]

    def rate(self, weight: str, input_: str, accumulator: str | None = None) -> Rate | None:
        """The rate of this exact pair of elements; without `accumulator` the fastest."""
        found = [
            rate
            for unit in self.units
            for rate in unit.rates
            if rate.accepts(weight, input_) and accumulator in (None, rate.accumulator)
        ]
        return max(found, key=lambda rate: rate.ops_per_s.value, default=None)

    def widened(self, weight: str, input_: str) -> tuple[str, str] | None:
        """The nearest pair of elements that a unit multiplies and that holds both exactly."""
        for pair in _wider_pairs(weight, input_):
            if self.rate(*pair) is not None:
                return pair
        return None

    @property
    def elements(self) -> frozenset[str]:
        """Elements that some unit multiplies."""
        return frozenset(
            element for unit in self.units for rate in unit.rates for element in rate.weight
        )

    @property
    def figures(self) -> tuple[SourcedValue, ...]:
        """Every figure of the file."""
        return tuple(_figures(self))


def _wider_pairs(weight: str, input_: str) -> list[tuple[str, str]]:
    weights = (weight, *WIDER.get(weight, MEETING_POINT))
    inputs = (input_, *WIDER.get(input_, MEETING_POINT))
    both = [(element, element) for element in weights if element in inputs]
    mixed = [(w, i) for w in weights for i in inputs if w != i]
    narrow_first = sorted(mixed, key=lambda pair: weights.index(pair[0]) + inputs.index(pair[1]))
    return [*both[:1], *narrow_first[:1], *both[1:], *narrow_first[1:]]


def _figures(record: object) -> list[SourcedValue]:
    if isinstance(record, SourcedValue):
        return [record]
    if isinstance(record, tuple):
        return [figure for item in record for figure in _figures(item)]
    if hasattr(record, "__dataclass_fields__"):
        fields = [getattr(record, name) for name in record.__dataclass_fields__]
        return [figure for item in fields for figure in _figures(item)]
    return []
