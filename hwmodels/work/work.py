"""Work: loop sizes and operand formats of what a device has to execute; nothing of ONNX."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from operator import attrgetter
from typing import Literal

from hwmodels.formats.encodings import ENCODINGS
from hwmodels.formats.quantizer import Encoding, Format, Quantizer

OpKind = Literal[
    "gemm", "bmm", "grouped_gemm", "conv2d", "attention", "elementwise", "softmax", "layernorm",
    "rmsnorm", "reduce", "pool", "embedding", "copy", "quantize", "collective", "other",
]  # fmt: skip
CONTRACTING: tuple[OpKind, ...] = ("gemm", "bmm", "grouped_gemm", "conv2d", "attention")
"""Kinds that multiply and accumulate: what a unit's rate and a kernel mode speak of."""
OperandName = Literal[
    "input", "weight", "bias", "output", "q", "k", "v", "probabilities", "other", "sum"
]
"""`sum` is no tensor in memory: the accumulator of the product, where one is asked for."""


@cache
def plain_format(bits: int) -> Format:
    """The format of values without a quantizer, by their width.

    16 bits are called bf16 whatever float of 16 bits the device has, 32 bits fp32; other widths
    (token ids, truth values, constants that an exporter packed) are codes of that many bits.
    """
    name = {16: "bf16", 32: "fp32"}.get(bits)
    code = f"int{bits}"
    element = ENCODINGS[name] if name else Encoding(name=code, kind="int", bits=bits)
    return Format(name=element.name, element=element, source=element.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """One tensor that an op reads or writes."""

    name: OperandName
    value: str
    """The name of the tensor in the graph: two ops that name the same value share it."""
    shape: tuple[int, ...]
    contraction_axes: tuple[int, ...] = ()
    quantizer: Quantizer | None = None
    """None: the network's own precision (see `Work.default`)."""
    is_weight: bool = False
    """Constant over calls: stored once, read from memory cold."""
    is_cache: bool = False
    """A KV cache: persists between calls, counted in `kv_bytes`."""
    is_part: bool = False
    """A part of a value that was written as a whole, read in place: its rows have gaps."""
    is_stored: bool = False
    """Whether what writes it writes it in the quantizer's format: no kernel quantizes it."""
    bits: int = 16
    """Bits per element where no quantizer says otherwise: token ids, the default format."""

    @property
    def traits(self) -> tuple[Hashable, ...]:
        """Every field but the value's name: what operands of repeated blocks have in common."""
        found: tuple[Hashable, ...] = _TRAITS(self)
        return found

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def format(self) -> Format:
        """The format that it is stored in."""
        return plain_format(self.bits) if self.quantizer is None else self.quantizer.format

    @property
    def bytes(self) -> int:
        """Bytes in memory, scales included."""
        if self.quantizer is None:
            return -(-self.elements * self.bits // 8)
        return self.quantizer.format.storage_bytes(self.shape, self.contraction_axes or (-1,))


_TRAITS = attrgetter(*(field.name for field in fields(Operand) if field.name != "value"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One operation with its loop sizes.

    `sizes` are those of the operator table (`docs/design.md`, section 6): gemm M, K, N; bmm
    B, M, K, N; attention B, H, HK, S, L, D, causal (and window, the keys that a query sees at
    most); conv2d N, C, H, W, O, OH, OW, kh, kw, groups
    (and sh, sw, dh, dw, strides and dilations, 1 where they are absent); row-wise ops rows, cols
    (on maps also N, C, OH, OW, and kh, kw, sh, sw where each element is one of a window);
    embedding vocab, dim, tokens. A gemm or bmm whose weights an index picks out of a stack has E,
    the matrices in it, and the whole stack as its weight. A `grouped_gemm`, one weight
    matrix an expert, has E (experts), M (rows of all experts together: tokens x topk), K, N and
    topk; its weight is (E, K, N) or (E, N, K), its input holds the M rows, or the M / topk tokens
    that the kernel gathers them from.
    """

    name: str
    kind: OpKind
    sizes: Mapping[str, int]
    operands: tuple[Operand, ...]
    detail: str = ""
    """Name among elementwise or reduction ops: `silu`, `add`, `mean`, ..."""
    accumulator: str = ""
    """The one that its products are to be summed in; empty: whatever its kernel has."""
    decomposition: tuple[Op, ...] = ()
    """The op as the model's author wrote it out, node by node, where a pattern of several nodes
    was recognised as one op. A runtime that fuses no patterns runs these; empty for one node."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates; zero for ops that do not contract."""
        s = self.sizes
        match self.kind:
            case "gemm" | "grouped_gemm":
                return s["M"] * s["K"] * s["N"]
            case "bmm":
                return s["B"] * s["M"] * s["K"] * s["N"]
            case "attention":
                seen = min(s["L"], s.get("window", s["L"]))
                return 2 * s["B"] * s["H"] * s["S"] * seen * s["D"]
            case "conv2d":
                taps = s["C"] // s["groups"] * s["kh"] * s["kw"]
                return s["N"] * s["O"] * s["OH"] * s["OW"] * taps
            case _:
                return 0

    def operand(self, name: OperandName) -> Operand | None:
        """The first operand of that name."""
        return next((operand for operand in self.operands if operand.name == name), None)

    def quantized(self, quantizers: Mapping[OperandName, Quantizer]) -> Op:
        """A copy whose named operands take these quantizers."""
        return replace(
            self,
            operands=tuple(
                replace(operand, quantizer=quantizers.get(operand.name, operand.quantizer))
                for operand in self.operands
            ),
            accumulator=quantizers["sum"].name if "sum" in quantizers else self.accumulator,
        )

    def requantized(self, quantizers: Mapping[OperandName, Quantizer | None]) -> Op:
        """A copy whose named operands take these quantizers; None takes one off."""
        return replace(
            self,
            operands=tuple(
                replace(operand, quantizer=quantizers[operand.name])
                if operand.name in quantizers
                else operand
                for operand in self.operands
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionWork:
    """The unit that a runtime executes as one kernel: a main op and what is fused into it.

    `reads` and `writes` are the tensors that cross the region's border; values that live and die
    inside are not in memory. A group that shares its input (q/k/v, gate/up) is one region with
    several gemms in `ops`.
    """

    name: str
    kind: OpKind
    role: str
    """q/k/v, o, gate/up, down, head, ...: see `dse.graph.patterns.regions`."""
    ops: tuple[Op, ...]
    reads: tuple[Operand, ...]
    writes: tuple[Operand, ...]
    repeats: int = 1
    """Number of its executions in a call: iterations of a loop; 0 for a branch not taken, whose
    weights are stored all the same."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all ops in one call."""
        return self.repeats * sum(op.macs for op in self.ops)

    def quantized(self, quantizers: Mapping[OperandName, Quantizer]) -> RegionWork:
        """A copy whose contracting ops, and the weights and inputs they read, are quantized.

        Where none contracts, tables of look-ups are.
        """
        multiplies = any(op.kind in CONTRACTING for op in self.ops)
        ops = tuple(op.quantized(_of(op, quantizers, multiplies=multiplies)) for op in self.ops)
        chosen = {
            operand.value: operand.quantizer
            for op in ops
            if op.kind in CONTRACTING or op.kind == "embedding"
            for operand in op.operands
            if operand.quantizer is not None
        }
        reads = tuple(
            replace(operand, quantizer=chosen.get(operand.value, operand.quantizer))
            for operand in self.reads
        )
        return replace(self, ops=ops, reads=reads)


def _of(
    op: Op, quantizers: Mapping[OperandName, Quantizer], *, multiplies: bool
) -> Mapping[OperandName, Quantizer]:
    """Those of the quantizers of a region that an op takes."""
    if op.kind == "embedding" and not multiplies:
        return {name: one for name, one in quantizers.items() if name == "weight"}
    return quantizers if op.kind in CONTRACTING else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A whole network at bound sizes, in execution order."""

    name: str
    regions: tuple[RegionWork, ...]
    outputs: tuple[str, ...]
    """Values that stay alive to the end."""
    notes: tuple[str, ...] = ()
    """Remarks that a reader of its price must know: sizes that were assumed, parts not in it."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one call."""
        return sum(region.macs for region in self.regions)

    def with_tables(self, tables: Mapping[str, Quantizer]) -> Work:
        """A copy in which the tables of look-ups, by name of the op, are stored so.

        Scales lie along the rows, (words, depth), that a look-up reads.
        """
        return replace(self, regions=tuple(_with_tables(r, tables) for r in self.regions))


def _with_tables(region: RegionWork, tables: Mapping[str, Quantizer]) -> RegionWork:
    stored = {
        operand.value: tables[op.name]
        for op in region.ops
        if op.kind == "embedding" and op.name in tables
        for operand in op.operands
        if operand.is_weight
    }
    if not stored:
        return region

    def changed(operands: tuple[Operand, ...]) -> tuple[Operand, ...]:
        return tuple(
            replace(operand, quantizer=stored[operand.value], contraction_axes=(1,))
            if operand.value in stored
            else operand
            for operand in operands
        )

    ops = tuple(replace(op, operands=changed(op.operands)) for op in region.ops)
    return replace(region, ops=ops, reads=changed(region.reads))
