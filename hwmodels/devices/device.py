"""A device: compute units, memories, links, overheads, power; every figure has a source.

One operation is one multiply or one add, so that a multiply-accumulate counts two; rates are
dense. These records are the device file: pydantic fills them (`hwmodels.devices.load`), an alias
is the key in the file where the attribute adds the unit.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field, replace
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler, GetPydanticSchema
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import CoreSchema, core_schema

from hwmodels.devices.cpu import Cpu
from hwmodels.devices.element import AccumulatorName, Element
from hwmodels.devices.npu import Npu
from hwmodels.devices.quantity import (
    FIGURE_INLINE,
    Area,
    Bandwidth,
    Capacity,
    Count,
    EnergyPerByte,
    EnergyPerOp,
    Exponent,
    Frequency,
    Length,
    Positive,
    Price,
    SourcedValue,
    Throughput,
    Time,
    Watts,
)
from hwmodels.devices.spatial import RunLengths, SpatialArray
from hwmodels.formats import catalog
from hwmodels.formats.accumulator import accumulator as named_accumulator
from hwmodels.formats.encodings import ENCODINGS
from hwmodels.tensors import TensorName
from hwmodels.validation import INLINE, Entry, Name, no_flag

DeviceKind = Literal["gpu", "array", "cpu", "npu"]
UnitRole = Literal["matrix", "vector", "host"]
ArchitectureFamily = Literal[
    "sm", "cdna", "xe", "tpu", "gaudi", "apple", "groq", "x86", "arm", "ethos-u", "hexagon",
    "array", "npu",
]  # fmt: skip

DEFAULT_RUNTIMES: dict[DeviceKind, str] = {
    "gpu": "torch-eager",
    "cpu": "torch-cpu",
    "array": "free",
    "npu": "vela",
}
"""Runtime of a device whose file names none. No software is modelled that runs on every spatial
array, so that one takes every combination of formats until its file names a compiler."""

DEFAULT_ESTIMATORS: dict[DeviceKind, str] = {
    "gpu": "gpu",
    "cpu": "cpu",
    "array": "array",
    "npu": "npu",
}
"""Estimator of a device whose file names none (`hwmodels.estimators.registry`)."""

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
class Architecture(Entry):
    """A family of instruction sets and its version: `sm` 9.0, `cdna` 3, `ethos-u` 55."""

    family: ArchitectureFamily
    """Runtimes list the families that they exist for; `array`: none of them, an array on paper."""
    version: Positive
    """Within the family; kernels exist from a version or up to one."""

    def __str__(self) -> str:
        if self.family == "sm":
            return f"sm_{round(self.version * 10)}"
        separator = "v" if self.family[-1].isdigit() else ""
        return f"{self.family}{separator}{self.version:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate(Entry):
    """Dense throughput of one unit for operands of these elements, into this accumulator."""

    weight: tuple[Element, ...] = ()
    """Elements of the second operand (weight, key)."""
    input: tuple[Element, ...] = ()
    """Elements of the first operand (activation, query)."""
    elements: InitVar[tuple[Element, ...]] = ()
    """Instead of both: elements any two of which run at this rate."""
    accumulator: AccumulatorName
    """A rate holds for one accumulator only (`fp32`, `int20:saturate`): those that a unit has are
    those of its rates."""
    ops_per_s: Annotated[Throughput, Field(validation_alias=INLINE)]
    """Dense, of all cores together; one multiply or one add is an operation."""

    def __post_init__(self, elements: tuple[str, ...]) -> None:
        if bool(elements) == bool(self.weight and self.input):
            raise ValueError("expected either `elements` or both `weight` and `input`")
        if elements:
            object.__setattr__(self, "weight", elements)
            object.__setattr__(self, "input", elements)

    @property
    def sum_bits(self) -> int:
        """Bits of its accumulator; of a quire those of its first elements' products."""
        first = (catalog.format(one[0]).element for one in (self.weight, self.input))
        return named_accumulator(self.accumulator).sum_bits(*first)

    def accepts(self, weight: str, input_: str) -> bool:
        """Whether the unit multiplies these two elements."""
        return weight in self.weight and input_ in self.input

    @property
    def widest_input_bits(self) -> int:
        """Bits of the widest input; 0 where none is a known element."""
        known = (ENCODINGS[one].bits for one in self.input if one in ENCODINGS)
        return max(map(round, known), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeUnit(Entry):
    """`count` equal cores at one clock: SMs, compute units, MAC arrays.

    A `host` unit is the processor that runs what the accelerator cannot.
    """

    name: Name
    """For people and for paths of figures."""
    role: UnitRole
    """`matrix` multiplies matrices, `vector` does everything else on the accelerator, `host` what
    the accelerator cannot."""
    count: Count
    """Enabled cores, which compute as many tiles at once."""
    clock_hz: Annotated[Frequency, Field(validation_alias="clock")]
    """Clock under load, at which the rates hold; a sheet's boost clock is the most it can be."""
    sustained_hz: Annotated[Frequency | None, Field(validation_alias="sustained")] = None
    """Clock that a board at its power limit holds while the unit computes; none: `clock`.
    Rates are those at `clock`."""
    rates: Annotated[tuple[Annotated[Rate, FIGURE_INLINE], ...], Field(min_length=1)]
    """Throughput by operands and accumulator; what no rate holds for runs in a wider element."""
    array: SpatialArray | None = None
    """Of a spatial array's matrix unit: how its multipliers are laid out."""

    @property
    def sustained_share(self) -> float:
        """Share of its rates that the unit keeps up."""
        return self.sustained_hz.value / self.clock_hz.value if self.sustained_hz else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory(Entry):
    """One level: `dram`, `l2`, `l3`, `smem` (per core), `sram`, `flash`, registers of an array.

    The fields after the energy describe levels of a spatial array (`hwmodels.devices.spatial`).
    """

    name: Name
    """`l1`, `l2` and `l3` are the caches that processors are priced with, the last two those of
    GPUs; other names are for people and for paths of figures."""
    capacity_bytes: Annotated[Capacity, Field(validation_alias="capacity")]
    """Of one instance."""
    bandwidth_bytes_per_s: Annotated[Bandwidth, Field(validation_alias="bandwidth")]
    """Of one instance, reads and writes together."""
    core_bandwidth_bytes_per_s: Annotated[
        Bandwidth | None, Field(validation_alias="core_bandwidth")
    ] = None
    """The most that one core of a processor draws from a level that several share: its misses
    under way over their latency; none: all of it."""
    energy_per_byte_j: Annotated[EnergyPerByte | None, Field(validation_alias="energy")] = None
    """Of a read, and of a write where `write_energy` is not given."""
    write_energy_per_byte_j: Annotated[
        EnergyPerByte | None, Field(validation_alias="write_energy")
    ] = None
    """Of a write, where it is not that of a read."""
    technology: str | None = None
    """`sram`, `registers`, or a kind of DRAM (`lpddr5`, `hbm2e`, ...): what energy follows where
    the file gives none. By default registers below 1 KiB, SRAM above."""
    holds: tuple[TensorName, ...] = ("input", "weight", "output")
    """Tensors that pass through it; the others bypass it."""
    per: tuple[str, ...] = ()
    """Axes of the array that have one instance a place (`cores` are one more, and the only one of
    a processor); on the others one instance serves all places."""
    double_buffered: bool | tuple[TensorName, ...] = True
    """Whether it is filled while the array works on what it holds, or for which tensors: of those
    half of what they take is usable. Outputs that leave as the next ones come need no second
    half."""
    write_bandwidth_bytes_per_s: Annotated[
        Bandwidth | None, Field(validation_alias="write_bandwidth")
    ] = None
    """Of a port for writes alone: `bandwidth` is that of reads then. Not of main memory."""
    streamed: bool | tuple[TensorName, ...] = False
    """Whether the array works on a tile while it comes, and results leave as they are done, or for
    which tensors: nothing waits for a whole tile then, be there a second half or not. Of levels
    nearer to the array than main memory, to which nothing comes."""
    waits_for_room: bool | tuple[TensorName, ...] = False
    """Whether the next tile of what is streamed waits for room, or for which tensors: where it
    fits beside all that the memory holds it comes meanwhile, else as the last pass over the tile
    before it leaves its places. By default it never waits. What is double-buffered always has
    room."""
    word_bytes: Annotated[Capacity | None, Field(validation_alias="word")] = None
    """Least that one instance moves at a time, a word or a burst: a tile's bytes are rounded up to
    whole ones. None: nothing is rounded."""
    run_lengths: RunLengths | None = None
    """Of main memory: the code in which inputs and outputs of an array are stored. It counts where
    their share of zeros is known; a network's price knows none, and takes plain elements."""

    def named(self, given: bool | tuple[TensorName, ...]) -> tuple[TensorName, ...]:
        """Tensors that a field names: some, all that it holds, or none."""
        if isinstance(given, tuple):
            return given
        return self.holds if given else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Link(Entry):
    """A connection to other devices; bandwidth is the sum of both directions."""

    name: Name
    """`pcie` passes through the host; links without latencies have those of their name and
    generation."""
    bandwidth_bytes_per_s: Annotated[Bandwidth, Field(validation_alias="bandwidth")]
    """Of one device, both directions together."""
    start_s: Annotated[Time | None, Field(validation_alias="start")] = None
    """Least time of a collective, beside its steps (`hwmodels.tables.collectives`)."""
    step_s: Annotated[Time | None, Field(validation_alias="step")] = None
    """Latency of one step of a ring."""
    contention: Exponent | None = None
    """Of a link through the host: n GPUs have (n/2)^-contention of the bandwidth of two, each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementEnergy(Entry):
    """Dynamic energy of one operation whose operands are one of these elements."""

    elements: Annotated[tuple[Element, ...], Field(min_length=1)]
    """Elements that the energy holds for; others take the nearest wider one's."""
    energy_per_op_j: Annotated[EnergyPerOp, Field(validation_alias=INLINE)]
    """Of one multiply or one add."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Power(Entry):
    """Power draw when idle and at most, and energy per operation."""

    idle_w: Annotated[Watts, Field(validation_alias="idle")]
    """With a context held and nothing running; some files have only a sleeping board's."""
    limit_w: Annotated[Watts, Field(validation_alias="limit")]
    """The most that it may draw."""
    per_op: tuple[Annotated[ElementEnergy, FIGURE_INLINE], ...] = ()
    """Energy of operations by element; none: multiplying counts nothing."""


FLAGS = ("causal",)
"""Flags of a shape beside its sizes; absent or 0 means no."""


def _sizes_schema(_: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
    """The mapping of a file as pairs in order of their names, which can be hashed."""

    def pairs(sizes: dict[str, int]) -> tuple[tuple[str, int], ...]:
        for name, size in sizes.items():
            if size == 0 and name not in FLAGS:
                raise ValueError(f"{name}: expected greater than 0, got 0")
        return tuple(sorted(sizes.items()))

    whole = Annotated[int, Field(ge=0), BeforeValidator(no_flag)]
    return core_schema.no_info_after_validator_function(pairs, handler(dict[str, whole]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement(Entry):
    """One operator timed on the device: a row of an operator table."""

    op: str
    """Operator, as in tables of `dse profile`: gemm, conv2d, attention, ..."""
    sizes: Annotated[
        tuple[tuple[str, int], ...],
        Field(validation_alias="shape"),
        GetPydanticSchema(_sizes_schema),
    ]
    """Sizes of its loops by name."""
    dtype: str
    """Format of its operands."""
    runtime: str
    """Runtime that it was timed under."""
    median_us: Positive
    """Median time in microseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction(Entry):
    """A factor on the time of kernels in networks, found from networks that were timed.

    Every correction whose runtime, kind, formats and bound are a kernel's multiplies its time; an
    empty one holds for all.
    """

    runtime: str
    """Runtime that the networks were timed under."""
    kind: str = ""
    """Of the kernel: gemm, attention, rowwise, ..."""
    formats: str = ""
    """Elements of its operands: `bf16`, `bf16 x int4`."""
    bound: str = ""
    """Its regime: launch, memory, compute, ..."""
    factor: Positive
    """On the predicted time."""

    def holds_for(self, kind: str, formats: str, bound: str) -> bool:
        """Whether it corrects kernels of that group."""
        return (
            self.kind in ("", kind) and self.formats in ("", formats) and self.bound in ("", bound)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Device(Entry):
    """Hardware that executes work."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    """Small letters, digits, - and . (the file of a shipped device is named so)."""
    title: str
    """Its name among people."""
    vendor: str
    """Who makes it."""
    family: str
    """Chips that share a design: `hopper`, `blackwell`, `ampere`, `cdna3`, ..."""
    kind: DeviceKind
    """Sort of hardware: its estimator and its runtime, where the file names none, follow."""
    architecture: Architecture
    """Instruction set, which says which kernels of a runtime exist for it."""
    year: Annotated[int, Field(ge=1990, le=2100)]
    """Year in which it came out."""
    runtime: str | None = None
    """A runtime's name or file that drives it where nobody says another; by default that of its
    kind."""
    estimator: str | None = None
    """Name of the estimator that prices it; by default that of its kind."""
    units: Annotated[tuple[ComputeUnit, ...], Field(min_length=1)]
    """Compute units, by role; for a role that none has, the first one works."""
    memories: Annotated[tuple[Memory, ...], Field(min_length=1)]
    """Levels; the first one, main memory, holds the weights."""
    links: tuple[Link, ...] = ()
    """Connections to other devices of its kind; the first one is used."""
    launch_s: Annotated[Time, Field(validation_alias="launch")]
    """Least time from one dependent kernel's start to the next one's in a captured graph."""
    power: Power
    """Power draw, and energy per operation."""
    npu: Npu | None = None
    """Blocks, steps and ports of a device of kind `npu`."""
    cpu: Cpu | None = None
    """Instructions, vectors and waiting times of a device of kind `cpu`."""
    process_nm: Annotated[Length | None, Field(validation_alias="process")] = None
    """Node that a spatial array is made at: energies and areas that the file leaves out come of
    circuits at it (`hwmodels.circuits`)."""
    area_mm2: Annotated[Area | None, Field(validation_alias="area")] = None
    """Area of the die."""
    price_usd_per_h: Annotated[Price | None, Field(validation_alias="price")] = None
    """Price of one device an hour, for costs of a million tokens."""
    measurements: tuple[Measurement, ...] = ()
    """Few-shot samples, timed on this very device; predictions are corrected by them."""
    corrections: tuple[Correction, ...] = ()
    """Factors on kernels in networks, from networks that were timed on this very device."""
    validation: str = ""
    """Measurements that its predictions were checked against; empty: datasheet only."""
    varied_from: SkipJsonSchema[Device | None] = field(
        default=None, init=False, repr=False, hash=False
    )
    """The device of the file, where figures of it were varied: what was learned of its silicon
    beyond its figures stays. No file has it."""
    sources: InitVar[dict[str, str] | None] = None
    """Citations by key; a figure's `source` names the key."""

    def __post_init__(self, sources: dict[str, str] | None) -> None:
        """Drops the citations by key, which the figures hold themselves."""

    def as_varied_from(self, device: Device) -> Self:
        """The same device, which says of what device it is a variation."""
        found = replace(self)
        object.__setattr__(found, "varied_from", device)  # what no file has is no argument either
        return found

    @property
    def default_runtime(self) -> str:
        """Runtime that drives the device where nobody says another."""
        return self.runtime or DEFAULT_RUNTIMES[self.kind]

    @property
    def priced_by(self) -> str:
        """Name of the estimator that prices the device's kernels."""
        return self.estimator or DEFAULT_ESTIMATORS[self.kind]

    @property
    def validated(self) -> bool:
        """Whether predictions for this device were compared with measurements."""
        return bool(self.validation)

    @property
    def note(self) -> str:
        """Evidence behind the predictions, for people."""
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
        """Home of the weights: the first memory of the file."""
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

    def rate_into(self, weight: str, input_: str, accumulator: str = "") -> Rate | None:
        """The rate of this exact pair into that accumulator; into the widest where none is named.

        A network whose author names none expects no narrower sums than there are.
        """
        found = [
            rate
            for unit in self.units
            for rate in unit.rates
            if rate.accepts(weight, input_) and accumulator in ("", rate.accumulator)
        ]
        return max(found, key=lambda rate: (rate.sum_bits, rate.ops_per_s.value), default=None)

    def sustained_share(self, rate: Rate) -> float:
        """Share of one of its rates that the device keeps up under load."""
        return next(unit.sustained_share for unit in self.units if rate in unit.rates)

    def widened(self, weight: str, input_: str) -> tuple[str, str] | None:
        """The nearest pair of elements that a unit multiplies and that holds both exactly.

        The pair itself, where a unit multiplies it.
        """
        for pair in ((weight, input_), *_wider_pairs(weight, input_)):
            if self.rate(*pair) is not None:
                return pair
        return None

    def energy_per_op_j(self, element: str) -> float:
        """Dynamic joules of one operation on this element; zero for kernels that do not multiply.

        An element that the file has no figure for takes the nearest wider one's.
        """
        if not element:
            return 0.0
        for name in (element, *WIDER.get(element, ()), "fp32"):
            for entry in self.power.per_op:
                if name in entry.elements:
                    return entry.energy_per_op_j.value
        return max((entry.energy_per_op_j.value for entry in self.power.per_op), default=0.0)

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
        said = (name for name, one in record.__dataclass_fields__.items() if one.init)
        return [figure for name in said for figure in _figures(getattr(record, name))]
    return []
