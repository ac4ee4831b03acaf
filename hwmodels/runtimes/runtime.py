"""A runtime: which kernels it has, what it fuses, where it quantises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hwmodels.devices.device import Architecture
from hwmodels.formats.element import unit_element
from hwmodels.formats.quantizer import Quantizer
from hwmodels.work.cost import Status
from hwmodels.work.work import OperandName, OpKind

Placement = Literal["consumer", "tensor", "free"]

# 16-bit operands that every kernel of a runtime takes where a site is not quantised.
PLAIN_ELEMENTS = ("bf16", "fp16", "fp32", "tf32")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperandLayout:
    """Which formats a kernel accepts for one operand; an empty tuple accepts anything.

    Formats are matched by what they are (element, granularity, group, scale), not by name, so
    that a user's own format of the same layout is accepted too.
    """

    elements: tuple[str, ...]
    granularities: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()
    scales: tuple[str, ...] = ()
    timings: tuple[str, ...] = ()
    zero_point: bool | None = None

    def accepts(self, quantizer: Quantizer | None, default_element: str) -> bool:
        """Whether the kernel takes this quantizer; None is the default 16-bit format."""
        if quantizer is None:
            return default_element in self.elements
        fmt = quantizer.format
        if unit_element(fmt.element) not in self.elements:
            return False
        if fmt.scale is None:
            return True
        return (
            _among(fmt.granularity, self.granularities)
            and (fmt.granularity not in ("group", "block") or _among(fmt.group, self.groups))
            and _among(fmt.scale.encoding.name, self.scales)
            and _among(quantizer.timing, self.timings)
            and self.zero_point in (None, fmt.zero_point is not None)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchitectureRange:
    """Architectures of one family from `low` to `high`, both included."""

    family: str
    low: float
    high: float

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


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelMode:
    """One kernel of a runtime: operand formats in, accumulator, output, where it exists."""

    name: str
    ops: tuple[OpKind, ...]
    operands: Mapping[OperandName, OperandLayout]
    """Operands that are not named here must be in a plain format."""
    compute: tuple[str, str]
    """Elements that the unit multiplies: of the second operand (weight, key) and of the first."""
    accumulator: str
    output: str
    status: Status
    architectures: tuple[ArchitectureRange, ...]
    align: Mapping[str, int]
    """Multiples that loop sizes must have (K, N; after tensor-parallel sharding)."""
    efficiency: float
    """Share of the unit's rate that this kernel can reach; 1 where nothing is known against it."""
    source: str
    """Where this was read; `unverified` where no source was opened."""
    note: str = ""

    def runs_on(self, architecture: Architecture) -> bool:
        """Whether the kernel exists for the architecture; no range means every one."""
        return not self.architectures or any(
            bounds.includes(architecture) for bounds in self.architectures
        )

    def accepts(
        self, kind: OpKind, quantizers: Mapping[OperandName, Quantizer], default_element: str
    ) -> bool:
        """Whether the kernel executes the op with these quantizers (layouts only)."""
        if kind not in self.ops:
            return False
        plain = OperandLayout(elements=PLAIN_ELEMENTS)
        names = {*self.operands, *quantizers}
        return all(
            self.operands.get(name, plain).accepts(quantizers.get(name), default_element)
            for name in names
            if name in self.operands or name not in ("output", "bias", "other")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """An op that a runtime launches as several kernels."""

    kernels: int
    passes: float
    """How often all of its operands move, over all kernels."""
    channel_kernels: int = 0
    """Further kernels that work on a vector of channels only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Software that executes networks on devices."""

    name: str
    title: str
    version: str
    placement: Placement
    """Where Q/DQ stands: at the consumer (the residual stream stays 16 bit), at the tensor (a
    value is stored once, in one format), or free (every operand its own)."""
    modes: tuple[KernelMode, ...]
    epilogue: tuple[str, ...]
    """Elementwise ops that a contracting kernel takes in: `bias`, `relu`, `add`, ..."""
    bias_kernel: tuple[OpKind, ...]
    """Contracting ops whose bias is added by a kernel of its own."""
    pieces: Mapping[str, Pieces]
    """Elementwise ops, by detail, that are several kernels here (rotary embedding in eager
    mode: negate, concatenate, two products and a sum for q and for k)."""
    runs_as_written: bool
    """Whether attention and activations that a graph writes out node by node run as these nodes
    (eager mode); others recognise the pattern and run one kernel."""
    fuses_pointwise: bool
    """Whether neighbouring pointwise ops and normalisations run as one kernel."""
    fuses_shared_input: bool
    """Whether GEMMs that share their input (q/k/v, gate/up) run as one GEMM, N summed."""
    quantize_into: tuple[str, ...]
    """Kinds of producers that a quantisation is fused into (`rmsnorm`, `silu_mul`, ...)."""
    ties: tuple[str, ...]
    """Roles of regions whose ops must have equal formats, as one kernel runs them."""
    source: str
    takes_expanded_masks: bool = True
    """Whether fused attention takes a mask that is expanded along the keys."""
    switch_cycles: float = 0.0
    """Cycles that a kernel starts later after one of another kind than after itself."""
    peer_all_reduce: bool = False
    """Whether it has all-reduce kernels over peer memory beside NCCL."""
    every_combination: bool = False
    """An architect's runtime: every pair of formats has a kernel at the unit's rate."""


def _among(value: object, allowed: tuple[object, ...]) -> bool:
    return not allowed or value in allowed
