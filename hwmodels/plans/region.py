"""Plans of regions: the kernels and conversions that a runtime launches, and their status.

The first kernel mode that takes the region's quantizers runs. Where there is none, the plan is
what would happen instead: the runtime's weight-only kernel with 16-bit activations, or, failing
that, 16-bit kernels with rounding kernels before them, which gain nothing and are marked
`emulated`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from hwmodels.devices.device import Device, Rate
from hwmodels.formats.element import is_plain
from hwmodels.formats.quantizer import Format, Quantizer
from hwmodels.plans.conversion import Conversion, fake_quantize_kernels, quantize_kernels
from hwmodels.plans.launches import launches
from hwmodels.plans.operation import contraction_kernel, in_mode, plain_kernel, reads_of
from hwmodels.plans.quantisation import PRODUCT_BITS, rescaling
from hwmodels.plans.unfused import as_run
from hwmodels.runtimes.execution import Execution, execution
from hwmodels.runtimes.runtime import Runtime
from hwmodels.work.cost import STATUS_ORDER, Note, Status
from hwmodels.work.kernel import Kernel
from hwmodels.work.work import (
    CONTRACTING,
    Op,
    Operand,
    OperandName,
    RegionWork,
    plain_format,
)

PRODUCT = "int32"
"""Output of a kernel that leaves the scales of an integer product to others."""

PAIR = ("quantizelinear", "dequantizelinear")
"""Ops that state a format; a dynamic quantization computes one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """A weight or a cache as a region stores it."""

    value: str
    target: str
    """The quantizer's name; empty for the default format, which 16-bit floats stand for too."""
    bytes: int
    is_cache: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionPlan:
    """Kernels of one region under one assignment, in order."""

    region: str
    kernels: tuple[Kernel, ...]
    conversions: tuple[Conversion, ...]
    """Activations that must be quantised before; shared with other regions that want the same."""
    status: Status
    notes: tuple[Note, ...]
    modes: tuple[str, ...]
    constants: tuple[Constant, ...]
    """Weights and caches as they are stored."""

    def renamed(self, values: Sequence[str]) -> RegionPlan:
        """A copy of the plan of a canonical region, with the real names of its values."""
        return replace(
            self,
            conversions=tuple(
                replace(entry, value=values[int(entry.value)]) for entry in self.conversions
            ),
            constants=tuple(
                replace(entry, value=values[int(entry.value)]) for entry in self.constants
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Decisions of a region's neighbours."""

    producers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Tags of the region that writes each value (`producer_tags`)."""
    output: Quantizer | None = None
    """Tensor-side Q/DQ: the format in which the output is stored."""


def plan_region(
    region: RegionWork, device: Device, runtime: Runtime, context: Context | None = None
) -> RegionPlan:
    """The plan of a region whose operands carry their quantizers.

    Raises:
        WorkError: An op without the sizes or operands that its kind needs.
    """
    around = context or Context()
    written = as_run(region, runtime)
    # A cache is kept whatever reads it: nodes that attention is taken apart into know of none.
    apart = [op for op in region.ops if op not in written.ops]
    region = _in_one_format(written, runtime)
    runs = [
        execution(op, device, runtime) if op.kind in CONTRACTING else None for op in region.ops
    ]
    steps = [
        _Step(op=run.op if run else _stored(op, around, runtime), run=run)
        for op, run in zip(region.ops, runs, strict=True)
    ]
    executed = [run for run in runs if run is not None]
    statuses: list[Status] = [run.status for run in executed]
    worst = STATUS_ORDER[max((STATUS_ORDER.index(status) for status in statuses), default=0)]
    return RegionPlan(
        region=region.name,
        kernels=(
            *(
                k
                for operand in _rounded(executed)
                for k in fake_quantize_kernels(operand, runtime)
            ),
            *_launched(steps, region, around, device, runtime),
        ),
        conversions=tuple(_conversions(executed, runtime, around)),
        status=worst,
        notes=tuple(dict.fromkeys(run.note for run in executed if run.note)),
        modes=tuple(dict.fromkeys(run.mode.name for run in executed if run.mode)),
        constants=tuple(_constants([*(step.op for step in steps), *apart])),
    )


def _launched(
    steps: Sequence[_Step], region: RegionWork, context: Context, device: Device, runtime: Runtime
) -> list[Kernel]:
    """Kernels of a region's steps, without conversions and rounding."""
    groups = _groups(steps, runtime)
    readers = _readers(groups)
    written = {operand.value for operand in region.writes}
    kernels: list[Kernel] = []
    for place, group in enumerate(groups):
        ops = [step.op for step in group]
        made = {o.value for op in ops for o in op.operands if o.name == "output"}
        read = {value for value in made if readers.get(value, set()) - {place}}
        border = _border(ops, read | (written & made))
        kernel = _kernel(group, border, context, device)
        kernels += launches(kernel, ops, border[0], runtime)
        kernels += _rescaled(group, runtime)
    return kernels


def _rescaled(group: Sequence[_Step], runtime: Runtime) -> list[Kernel]:
    """Kernels that bring a group's int32 products to 16 bit, unless the graph does it itself."""
    return [
        kernel
        for step in group
        if step.run is not None and _is_integer(step.run) and _product(step.op).bits < PRODUCT_BITS
        for kernel in rescaling(
            _product(step.op), runtime.quantisation_of(_activation(step.run.op))
        )
    ]


def _product(op: Op) -> Operand:
    """The tensor that a product writes, be it read in parts (q, k and v of a fused one)."""
    parts = [operand for operand in op.operands if operand.name == "output"]
    rows = math.prod(parts[0].shape[:-1])
    return replace(parts[0], shape=(rows, sum(part.elements for part in parts) // rows))


def _is_integer(run: Execution) -> bool:
    """Whether the kernel writes its products as integers, as they are."""
    return run.mode is not None and run.mode.output == PRODUCT


def _activation(op: Op) -> Quantizer:
    operand = op.operand("input")
    assert operand is not None, "products have an input"
    assert operand.quantizer is not None, "integer kernels take quantized activations"
    return operand.quantizer


def _readers(groups: Sequence[Sequence[_Step]]) -> dict[str, set[int]]:
    """Value -> places of the groups that read it."""
    found: dict[str, set[int]] = {}
    for place, group in enumerate(groups):
        for step in group:
            for operand in reads_of(step.op):
                found.setdefault(operand.value, set()).add(place)
    return found


def _in_one_format(region: RegionWork, runtime: Runtime) -> RegionWork:
    """The region without Q/DQ where a kernel writes its result in the format that is stored."""
    if not runtime.stores_tensors and not runtime.every_combination:
        return region
    made_of: dict[str, str] = {}
    kept = []
    for op in region.ops:
        operands = tuple(replace(o, value=made_of.get(o.value, o.value)) for o in op.operands)
        if op.detail in PAIR:
            read, *_, written = operands
            made_of[written.value] = read.value
        else:
            kept.append(replace(op, operands=operands))
    if not made_of:
        return region
    writes = tuple(replace(o, value=made_of.get(o.value, o.value)) for o in region.writes)
    return replace(region, ops=tuple(kept), writes=writes)


def producer_tags(region: RegionWork) -> frozenset[str]:
    """Names that a quantisation can be fused into: kinds and details of the region's last op."""
    last = region.ops[-1]
    details = {op.detail for op in region.ops}
    tags = {last.kind, last.detail, region.kind}
    if {"silu", "mul"} <= details or "silu_mul" in details or "swiglu" in details:
        tags.add("silu_mul")
    return frozenset(str(tag) for tag in tags if tag)


def _stored(op: Op, context: Context, runtime: Runtime) -> Op:
    """A non-contracting op; with tensor-side Q/DQ it runs in the format of what it writes."""
    if not runtime.stores_tensors or context.output is None:
        return op
    return op.requantized(
        {operand.name: context.output for operand in op.operands if not operand.is_weight}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """An op of a region, and how it runs if it contracts."""

    op: Op
    run: Execution | None


def _groups(steps: Sequence[_Step], runtime: Runtime) -> list[list[_Step]]:
    """Steps that run as one kernel each, in order."""
    groups: list[list[_Step]] = []
    for step in steps:
        if groups and _joins(groups[-1], step, runtime):
            groups[-1].append(step)
        else:
            groups.append([step])
    return groups


def _joins(group: list[_Step], step: _Step, runtime: Runtime) -> bool:
    last, run = group[-1], step.run
    if run is not None:
        return (
            last.run is not None
            and runtime.fuses_shared_input
            and step.op.kind == last.op.kind
            and step.op.kind in ("gemm", "grouped_gemm")
            and _value(step.op, "input") == _value(last.op, "input")
            and run.compute == last.run.compute
            and step.op.accumulator == last.op.accumulator
            and _format(step.op, "weight") == _format(last.op, "weight")
        )
    if any(before.run is not None for before in group):
        return step.op.detail in runtime.epilogue
    return runtime.fuses_pointwise


def _value(op: Op, name: OperandName) -> str:
    operand = op.operand(name)
    return operand.value if operand else ""


def _format(op: Op, name: OperandName) -> Format | None:
    operand = op.operand(name)
    return operand.format if operand else None


def _kernel(
    group: list[_Step],
    border: tuple[list[Operand], list[Operand]],
    context: Context,
    device: Device,
) -> Kernel:
    reads, writes = border
    written = sum(_written_bytes(operand, context) for operand in writes)
    output = _written_format(writes, context)
    runs = [step.run for step in group if step.run is not None]
    if not runs:
        return plain_kernel([step.op for step in group], reads, written, output)
    if _is_integer(runs[0]):
        output = plain_format(PRODUCT_BITS)
        written = sum(operand.elements * PRODUCT_BITS // 8 for operand in writes)
    multiplied = [step.op for step in group if step.run is not None]
    rate = _rate(runs[0], device)
    kernel = contraction_kernel(
        multiplied,
        reads,
        written,
        compute=runs[0].compute,
        accumulator=rate.accumulator if rate else "fp32",
        output=output,
    )
    return in_mode(kernel, runs[0].mode) if runs[0].mode else kernel


def _rate(run: Execution, device: Device) -> Rate | None:
    """The rate of a product: into the accumulator that is asked for, or that its kernel has."""
    if run.op.accumulator or run.mode is None:
        return device.rate_into(*run.compute, run.op.accumulator)
    return device.rate(*run.compute, run.mode.accumulator) or device.rate(*run.compute)


def _written_format(writes: Sequence[Operand], context: Context) -> Format | None:
    if context.output is not None:
        return context.output.format
    return writes[0].format if writes else None


def _written_bytes(operand: Operand, context: Context) -> int:
    if context.output is None:
        return operand.bytes
    return context.output.format.storage_bytes(operand.shape, (-1,))


def _border(ops: Sequence[Op], needed: set[str]) -> tuple[list[Operand], list[Operand]]:
    """Operands that a kernel of `ops` reads and writes, each value once.

    A value that is not `needed` outside of the kernel stays in registers.
    """
    written = {o.value: o for op in ops for o in op.operands if o.name == "output"}
    reads = {o.value: o for op in ops for o in reads_of(op) if o.value not in written}
    kept = {value: o for value, o in written.items() if value in needed}
    return list(reads.values()), list((kept or written).values())


def _conversions(
    executions: Sequence[Execution], runtime: Runtime, context: Context
) -> list[Conversion]:
    if runtime.stores_tensors:
        return []
    found: list[Conversion] = []
    for run in executions:
        for operand in reads_of(run.op):
            if operand.is_weight or operand.is_cache or operand.is_stored:
                continue
            quantizer = operand.quantizer
            if operand.name not in ("input", "q") or quantizer is None or is_plain(quantizer):
                continue
            fused = bool(context.producers.get(operand.value, frozenset()) & _sinks(runtime))
            rule = runtime.quantisation_of(quantizer)
            conversion = quantize_kernels(operand, rule, fused=fused)
            again = conversion.key in [one.key for one in found]
            if not runtime.shares_quantisation:
                # Copies of one value follow each other in one place.
                copied = 0 if again else conversion.copy_bytes
                found.append(replace(conversion, is_shared=False, copy_bytes=copied))
            elif not again:
                found.append(conversion)
    return found


def _rounded(executions: Sequence[Execution]) -> list[Operand]:
    """Activations that kernels of their own round, each value once."""
    return list({o.value: o for run in executions for o in run.emulated}.values())


def _sinks(runtime: Runtime) -> frozenset[str]:
    return frozenset(runtime.quantize_into)


def _stored_as(operand: Operand) -> str:
    """The name of a constant's format, equal for readers that can share one copy.

    A table that an embedding reads as it is and a head as bf16 is stored once. Scales that lie
    along another axis (a matrix and its transpose, multiplied by channels) make another copy.
    """
    quantizer = operand.quantizer
    if quantizer is None or (
        is_plain(quantizer) and quantizer.format.element.bits == operand.bits
    ):
        return ""
    if quantizer.format.scale is None or quantizer.format.granularity == "tensor":
        return quantizer.name
    lengths = [operand.shape[axis] for axis in operand.contraction_axes]
    return f"{quantizer.name}@{','.join(map(str, lengths))}"


def _constants(ops: Sequence[Op]) -> list[Constant]:
    found = {
        operand.value: Constant(
            value=operand.value,
            target=_stored_as(operand),
            bytes=operand.bytes,
            is_cache=operand.is_cache,
        )
        for op in ops
        for operand in reads_of(op)
        if operand.is_weight or operand.is_cache
    }
    return list(found.values())
