"""A runtime: its kernels, what it fuses, where it quantises.

These records are the runtime file: pydantic fills them (`hwmodels.runtimes.load`), an alias is
the key in the file where the attribute has another name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from hwmodels.devices.device import Architecture, ArchitectureFamily
from hwmodels.formats.element import unit_element
from hwmodels.formats.quantizer import Granularity, Quantizer, Timing
from hwmodels.runtimes.quantisation import DEFAULT, Quantisation, QuantisationKernel
from hwmodels.runtimes.words import DETAILS, TAGS, misspelt
from hwmodels.validation import Entry
from hwmodels.work.cost import Status
from hwmodels.work.lookup import Algorithm, Lookup
from hwmodels.work.work import OperandName, OpKind

Placement = Literal["consumer", "tensor", "free"]
Order = Literal["written", "backwards"]

ASSUMED = "assumed"
"""The source of what nothing was read about."""
# 16-bit operands that every kernel of a runtime takes where a site is not quantised.
PLAIN_ELEMENTS = ("bf16", "fp16", "fp32", "tf32")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperandLayout(Entry):
    """Formats that a kernel accepts for one operand; an empty list accepts anything.

    Formats are matched by what they are (element, granularity, group, scale), not by name, so
    that a user's own format of the same layout is accepted too.
    """

    elements: Annotated[tuple[str, ...], Field(validation_alias="element", min_length=1)]
    """Elements that it takes: of units, or an encoding by its name (`nf4`, not all `decoded`)."""
    granularities: Annotated[tuple[Granularity, ...], Field(validation_alias="granularity")] = ()
    """Extent of one scale."""
    groups: Annotated[tuple[int, ...], Field(validation_alias="group")] = ()
    """Sizes of groups, or of the sides of blocks."""
    scales: Annotated[tuple[str, ...], Field(validation_alias="scale")] = ()
    """Encodings of scales."""
    timings: Annotated[tuple[Timing, ...], Field(validation_alias="timing")] = ()
    """Moment at which scales are known: before (`static`), from each tensor as it comes
    (`dynamic`), ..."""
    zero_point: bool | None = None
    """Whether it has zero points; either where it is not said."""
    offset: bool = False
    """Whether it adds offsets of groups (GGUF's minima)."""
    super_groups: Annotated[tuple[int, ...], Field(validation_alias="super_group")] = ()
    """Sizes of super groups whose scales of scales it multiplies; none by default."""

    def accepts(self, quantizer: Quantizer | None, default_element: str) -> bool:
        """Whether the kernel takes this quantizer; None is the default 16-bit format."""
        if quantizer is None:
            return default_element in self.elements
        fmt = quantizer.format
        if not {unit_element(fmt.element), fmt.element.name} & {*self.elements}:
            return False
        if fmt.scale is None:
            return True
        return (
            _among(fmt.granularity, self.granularities)
            and (fmt.granularity not in ("group", "block") or _among(fmt.group, self.groups))
            and _among(fmt.scale.encoding.name, self.scales)
            and _among(quantizer.timing, self.timings)
            and self.zero_point in (None, fmt.zero_point is not None)
            and (fmt.offset is None or self.offset)
            and fmt.super_group in (0, *self.super_groups)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchitectureRange(Entry):
    """Architectures of one family from `low` to `high`, both included."""

    family: ArchitectureFamily
    """Family of instruction sets."""
    low: Annotated[float, Field(validation_alias="min")] = 0.0
    """First version."""
    high: Annotated[float, Field(validation_alias="max")] = float("inf")
    """Last version; none: all later ones, too."""

    def includes(self, architecture: Architecture) -> bool:
        """Whether the architecture lies in the range."""
        return architecture.family == self.family and self.low <= architecture.version <= self.high

    def __str__(self) -> str:
        low = Architecture(family=self.family, version=self.low)
        if self.high == self.low:
            return str(low)
        if self.high == float("inf"):
            return f"{low} and later"
        return f"{low} to {Architecture(family=self.family, version=self.high)}"


def _in_memory(
    operands: Mapping[OperandName, OperandLayout],
) -> Mapping[OperandName, OperandLayout]:
    if "sum" in operands:
        raise ValueError("a sum is no operand in memory: its format is the mode's `accumulator`")
    return operands


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelMode(Entry):
    """One kernel of a runtime: operand formats in, accumulator, output, where it exists."""

    name: str
    """Of this file, each once."""
    ops: Annotated[tuple[OpKind, ...], Field(min_length=1)]
    """Operators that it executes."""
    operands: Annotated[Mapping[OperandName, OperandLayout], AfterValidator(_in_memory)]
    """Operands that are not named here must be in a plain format."""
    compute: tuple[str, str]
    """Elements that the unit multiplies: of the second operand (weight, key) and of the first."""
    accumulator: str
    """Element that products are summed in."""
    output: str = "bf16"
    """Element that it writes."""
    status: Status = "native"
    """`native`: the unit multiplies the formats themselves; `weight_only`, `upcast`: it multiplies
    wider ones, after a conversion in the kernel."""
    architectures: tuple[ArchitectureRange, ...] = ()
    """Devices that the kernel exists for; none means all that the runtime does."""
    align: Mapping[str, int] = field(default_factory=dict)
    """Multiples that loop sizes must have (K, N; after tensor-parallel sharding)."""
    efficiency: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the unit's rate that this kernel can reach; 1 where nothing is known against it."""
    tile: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] | None = None
    """Rows and columns of outputs that each block computes by itself, where the kernel has one
    small tile for all sizes: what it reads goes through the cache once for each of them. None: a
    library that chooses among large ones."""
    convolution: Algorithm = "direct"
    """The way that convolutions go on a processor: over maps as they lie, over a matrix of all
    windows (`im2col`), or 3 x 3 kernels in F(2 x 2) (`winograd`)."""
    lookup: Lookup | None = None
    """The table of a kernel that looks products up instead of multiplying."""
    coded: bool = False
    """Whether its narrow weights are 8-bit ones of few values, which a compiler codes: no draft
    offers it, since files with narrow tensors are refused."""
    outliers: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the weights that do not fit a narrow accumulator and are multiplied apart, as a
    sparse matrix with a wide one."""
    source: str
    """The citation; `unverified` where no source was opened."""
    note: str = ""
    """Anything else, for people."""

    def runs_on(self, architecture: Architecture) -> bool:
        """Whether the kernel exists for the architecture, as far as its ranges say."""
        return _runs_on(self.architectures, architecture)

    def accepts(
        self, kind: OpKind, quantizers: Mapping[OperandName, Quantizer], default_element: str
    ) -> bool:
        """Whether the kernel executes the op with these quantizers (layouts only).

        Probabilities that no quantizer names stay inside of the kernel, in whatever it has.
        """
        if kind not in self.ops:
            return False
        plain = OperandLayout(elements=PLAIN_ELEMENTS)
        names = {*self.operands, *quantizers} - ({"probabilities"} - quantizers.keys())
        return all(
            self.operands.get(name, plain).accepts(quantizers.get(name), default_element)
            for name in names
            if name in self.operands or name not in ("output", "bias", "other")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionKernel(Entry):
    """A kernel over a paged cache of keys and values, as serving runtimes pick it by device."""

    name: str
    """Of the code, not of the runtime: what was measured of it under one holds under another."""
    architectures: Annotated[tuple[ArchitectureRange, ...], Field(min_length=1)]
    """Devices that it runs on."""
    cache: tuple[str, ...] = ()
    """Elements of the cache that it takes; none: every one."""
    packs_when_decoding: bool = False
    """Whether the query heads of a key head are one block of rows only for a single query without
    a window, and keys are split over the cores only then; others always do both."""
    source: str
    """The citation."""
    note: str = ""
    """Anything else, for people."""

    def takes(self, architecture: Architecture, element: str) -> bool:
        """Whether it runs on the architecture with a cache of the element."""
        return _among(element, self.cache) and any(
            bounds.includes(architecture) for bounds in self.architectures
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertKernel(Entry):
    """Code that multiplies the experts of a mixture, as serving runtimes pick it by device."""

    name: str
    """Of the code, not of the runtime."""
    architectures: Annotated[tuple[ArchitectureRange, ...], Field(min_length=1)]
    """Devices that it runs on."""
    weights: tuple[str, ...] = ()
    """Stored elements of the weights that it takes; none: every one."""
    inputs: tuple[str, ...] = ()
    """Stored elements of the activations that it takes; none: every one."""
    source: str
    """The citation."""
    note: str = ""
    """Anything else, for people."""

    def takes(self, architecture: Architecture, weight: str, activation: str) -> bool:
        """Whether it runs on the architecture with these stored elements."""
        return (
            _among(weight, self.weights)
            and _among(activation, self.inputs)
            and _runs_on(self.architectures, architecture)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAllReduce(Entry):
    """All-reduce kernels over peer memory (one shot, two shots) and the messages they are for."""

    limits: Annotated[Mapping[int, Annotated[int, Field(gt=0)]], Field(min_length=1)]
    """Largest message in bytes, by up to how many GPUs; longer ones are NCCL's, and so are those
    of more GPUs."""
    architectures: tuple[ArchitectureRange, ...] = ()
    """None: all."""
    source: str
    """The citation."""

    def runs_on(self, architecture: Architecture) -> bool:
        """Whether the limits are those of the architecture."""
        return _runs_on(self.architectures, architecture)

    def limit_bytes(self, ways: int) -> int:
        """Largest message of so many GPUs; 0 for more than the kernels take."""
        return self.limits[min(most)] if (most := [n for n in self.limits if n >= ways]) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces(Entry):
    """An op that a runtime launches as several kernels."""

    kernels: Annotated[int, Field(gt=0)]
    """Their number."""
    passes: Annotated[float, Field(gt=0)]
    """Times that all of its operands move, over all kernels."""
    channel_kernels: Annotated[int, Field(ge=0)] = 0
    """Further kernels that work on a vector of channels only."""


def _parted(modes: tuple[KernelMode, ...]) -> tuple[KernelMode, ...]:
    names = [mode.name for mode in modes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two modes are named {', '.join(twice)}")
    return modes


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching(Entry):
    """The requests and prompts that a serving runtime puts into one iteration."""

    tokens: Annotated[int, Field(gt=0)] = 8192
    """Tokens of an iteration at most, each request that decodes one of them."""
    cuts: bool = True
    """Whether a prompt is cut where the tokens end, its rest left for the next iteration."""
    mixes: bool = True
    """Whether prompts and decoding requests share an iteration; else prompts go first, alone."""
    requests: Annotated[int, Field(gt=0)] | None = None
    """Requests that decode together at most, where memory holds more."""
    source: str = ASSUMED
    """The citation."""
    note: str = ""
    """Anything else, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime(Entry):
    """Software that executes networks on devices."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    """Small letters, digits and - (the file of a shipped runtime is named so)."""
    title: str
    """Its name among people."""
    version: str
    """Version that the file describes, in quotes."""
    placement: Placement
    """Place of Q/DQ: at the consumer (the residual stream stays 16 bit), at the tensor (a
    value is stored once, in one format), or free (every operand its own)."""
    families: tuple[ArchitectureFamily, ...] = ()
    """Families of devices that it exists for; none means every one, as a definition does."""
    modes: Annotated[tuple[KernelMode, ...], AfterValidator(_parted)] = ()
    """Kernels by the formats of their operands; what none takes runs in 16 bits."""
    epilogue: tuple[str, ...] = ()
    """Elementwise ops that a contracting kernel takes in, `bias`, `relu`, `add`, ..., by the type
    of their operator in small letters. A slip of an operator's name is refused."""
    bias_kernel: tuple[OpKind, ...] = ()
    """Contracting ops whose bias is added by a kernel of its own."""
    pieces: Mapping[str, Pieces] = field(default_factory=dict)
    """Elementwise ops, by detail, that are several kernels here (rotary embedding in eager
    mode: negate, concatenate, two products and a sum for q and for k)."""
    runs_as_written: bool = False
    """Whether attention and activations that a graph writes out node by node run as these nodes
    (eager mode); others recognise the pattern and run one kernel."""
    fuses_pointwise: bool = False
    """Whether neighbouring pointwise ops and normalisations run as one kernel."""
    fuses_shared_input: bool = False
    """Whether GEMMs that share their input (q/k/v, gate/up) run as one GEMM, N summed."""
    quantize_into: tuple[str, ...] = ()
    """Kinds of producers that a quantisation is fused into (`rmsnorm`, `silu_mul`, ...)."""
    quantisation: tuple[Quantisation, ...] = ()
    """Kernels that quantise activations, by format; the first that takes a format counts."""
    rounding: tuple[QuantisationKernel, ...] = ()
    """Kernels that round an activation whose product has no kernel and leave it in 16 bit, after
    the maximum that a dynamic scale needs; none: one kernel does."""
    shares_quantisation: bool = True
    """Whether products that read one activation in one format share its quantisation. Modules
    that quantise their own input (eager mode) don't."""
    ties: tuple[str, ...] = ()
    """Roles of regions whose ops must have equal formats, as one kernel runs them."""
    source: str
    """The citation of what the file says as a whole."""
    takes_expanded_masks: bool = True
    """Whether fused attention takes a mask that is expanded along the keys."""
    order: Order = "written"
    """Order of operations: as the network has them, or `backwards` from its outputs, each right
    behind what it reads, last operands first. NPUs stage weights, and hold maps, by it."""
    switch_cycles: Annotated[float, Field(ge=0)] = 0.0
    """Cycles that a kernel starts later after one of another kind than after itself."""
    peer_all_reduce: tuple[PeerAllReduce, ...] = ()
    """All-reduce kernels over peer memory beside NCCL; the first for the architecture counts."""
    shares_tables: bool = False
    """Whether a look-up reads the table that a product of the same constant stores, in whatever
    format; others keep a table of look-ups in 16 bits."""
    paged_attention: tuple[AttentionKernel, ...] = ()
    """Kernels of attention over a paged cache; the first that takes device and cache counts.
    None: attention reads plain tensors."""
    tuned: bool = False
    """Whether its products are the fastest that a tuner found for each shape. Its tables time them
    alone: operands come quantised, and from main memory."""
    expert_kernels: tuple[ExpertKernel, ...] = ()
    """Kernels of a mixture's experts; the first that takes device and elements counts."""
    batching: Batching = Batching()
    """The way that requests wait for one another in serving."""
    every_combination: bool = False
    """An architect's runtime: every pair of formats has a kernel at the unit's rate."""

    def __post_init__(self) -> None:
        for place, words, known in (
            ("epilogue", self.epilogue, DETAILS),
            ("pieces", self.pieces, DETAILS),
            ("quantize_into", self.quantize_into, TAGS),
        ):
            if problems := misspelt(words, known):
                raise ValueError(f"{place}: {' '.join(problems)}")
        for mode in self.modes if self.families else ():
            if strange := {one.family for one in mode.architectures} - {*self.families}:
                raise ValueError(
                    f"mode {mode.name} is for {', '.join(sorted(strange))}, which `families` lacks"
                )

    @property
    def stores_tensors(self) -> bool:
        """Whether every tensor is stored once, in one format, beside no 16-bit stream."""
        return self.placement == "tensor"

    def exists_for(self, architecture: Architecture) -> bool:
        """Whether the software runs on devices of that architecture at all."""
        return not self.families or architecture.family in self.families

    def attention_kernel(self, architecture: Architecture, element: str) -> AttentionKernel | None:
        """The kernel of attention over a cache of that element; None where none is known."""
        fitting = (one for one in self.paged_attention if one.takes(architecture, element))
        return next(fitting, None)

    def expert_kernel(
        self, architecture: Architecture, weight: str, activation: str
    ) -> ExpertKernel | None:
        """The kernel of experts with these stored elements; None where none is known."""
        fitting = (
            one for one in self.expert_kernels if one.takes(architecture, weight, activation)
        )
        return next(fitting, None)

    def peer_limit_bytes(self, architecture: Architecture, ways: int) -> int:
        """Largest message that so many GPUs sum over peer memory; 0 where they never do."""
        fitting = (one for one in self.peer_all_reduce if one.runs_on(architecture))
        return next((one.limit_bytes(ways) for one in fitting), 0)

    def quantisation_of(self, quantizer: Quantizer) -> Quantisation:
        """The kernels that quantise an activation in a format: the file's, else the fewest."""
        return next(one for one in (*self.quantisation, *DEFAULT) if one.takes(quantizer))


def _among(value: object, allowed: tuple[object, ...]) -> bool:
    return not allowed or value in allowed


def _runs_on(ranges: tuple[ArchitectureRange, ...], architecture: Architecture) -> bool:
    return not ranges or any(bounds.includes(architecture) for bounds in ranges)
