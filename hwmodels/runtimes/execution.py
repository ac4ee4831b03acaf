"""Execution of one contracting op: the kernel mode that takes it, or what happens instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from hwmodels.devices.device import Device
from hwmodels.errors import WorkError
from hwmodels.formats.element import is_plain, is_wide, operand_element
from hwmodels.formats.quantizer import Quantizer
from hwmodels.runtimes.legality import MissingKernel, default_element, find_mode
from hwmodels.runtimes.runtime import KernelMode, Runtime
from hwmodels.work.cost import Note, Status
from hwmodels.work.work import Op, Operand, OperandName

# Operands that a contraction multiplies; the others (bias, output) are not part of its mode.
MULTIPLIED: tuple[OperandName, ...] = ("input", "weight", "q", "k", "v", "probabilities")

NO_BF16 = (
    "{device} has no unit for bf16: runs in fp16, which ends at 65504, and is not what an "
    "emulation in bf16 measures"
)
NO_WIDE = (
    "What is asked for in {asked} runs in {float}, which is not what an emulation in {asked} "
    "measures"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One contracting op as it runs: quantizers in effect, and elements that are multiplied."""

    op: Op
    mode: KernelMode | None
    compute: tuple[str, str]
    status: Status
    note: Note
    emulated: tuple[Operand, ...] = ()
    """Activations whose rounding takes kernels of its own and saves nothing."""


def execution(op: Op, device: Device, runtime: Runtime) -> Execution:
    """Execution of an op with the quantizers that its operands carry.

    Raises:
        WorkError: The op asks for an accumulator that its kernel does not have.
    """
    run = _execution(op, device, runtime)
    if op.accumulator:
        _check_sum(run, device, runtime)
    return run


def _execution(op: Op, device: Device, runtime: Runtime) -> Execution:
    asked = _quantizers(op)
    if runtime.every_combination:
        return _free_execution(op, asked, device)
    verdict = find_mode(op.kind, asked, op.sizes, device, runtime)
    default = default_element(device)
    if verdict.mode and device.rate(*_compute(verdict.mode, default)) is not None:
        mode, compute = verdict.mode, _compute(verdict.mode, default)
        remarks = [] if mode.status == "native" else [f"{mode.name} computes in {compute[0]}"]
        if default == "fp16" and "bf16" in _asked_elements(asked):
            remarks.append(NO_BF16.format(device=device.name))
        return Execution(
            op=op, mode=mode, compute=compute, status=mode.status, note="; ".join(remarks)
        )
    reason = verdict.reason or _no_unit(verdict.mode, device, default)
    return _fallback(op, asked, reason, device, runtime)


def _check_sum(run: Execution, device: Device, runtime: Runtime) -> None:
    """Refuses accumulators that nothing there has: no other is what was asked for."""
    asked = run.op.accumulator
    if runtime.every_combination:
        if device.rate(*run.compute, asked) is not None:
            return
        second, first = run.compute
        rates = (rate for unit in device.units for rate in unit.rates)
        own = [rate.accumulator for rate in rates if rate.accepts(second, first)]
        known = ", ".join(dict.fromkeys(own)) or "nothing"
        raise WorkError(
            f"accumulator {asked}: {device.name} sums {second} x {first} into {known} only; ask "
            f"for one of these, or give the device's file a rate into {asked} (units: rates: "
            "accumulator)"
        )
    if run.mode is None or run.mode.accumulator != asked:
        fixed = f"{run.mode.name} of {runtime.name}" if run.mode else runtime.name
        into = run.mode.accumulator if run.mode else "what its kernels have"
        raise WorkError(
            f"accumulator {asked}: on {device.name} {fixed} sums into {into}, which is fixed; "
            f"leave @{asked} out for this target, or take a chip whose file has a rate into it, "
            "under the runtime free (dse init --device array)"
        )


def _fallback(
    op: Op,
    asked: Mapping[OperandName, Quantizer],
    reason: str,
    device: Device,
    runtime: Runtime,
) -> Execution:
    default = default_element(device)
    missing = partial(
        _missing, reason=reason, op=op, asked=asked, device=device, runtime=runtime.name
    )
    weights: dict[OperandName, Quantizer] = {
        name: asked[name] for name in asked if name in ("weight", "k", "v")
    }
    if weights and len(weights) < len(asked):
        mode = find_mode(op.kind, weights, op.sizes, device, runtime).mode
        if mode is not None and device.rate(*_compute(mode, default)) is not None:
            return Execution(
                op=_stripped(op, keep=tuple(weights)),
                mode=mode,
                compute=_compute(mode, default),
                status="substituted",
                note=missing(
                    f"Runs as {mode.name} with activations in 16 bit, which is not what an "
                    "emulation of the formats measures"
                ),
            )
    compute = device.widened(default, default) or ("fp32", "fp32")
    activations = tuple(
        operand
        for operand in op.operands
        if operand.name in asked and not operand.is_weight and not is_plain(operand.quantizer)
    )
    on = "" if compute[0] == default else f" in {compute[0]}"
    wide = [quantizer.format.element.name for quantizer in asked.values() if is_wide(quantizer)]
    instead = [f"Runs unquantized{on} after rounding kernels"] if activations else []
    if wide:
        instead.append(NO_WIDE.format(asked=", ".join(dict.fromkeys(wide)), float=default))
    return Execution(
        op=_stripped(op, keep=()),
        mode=find_mode(op.kind, {}, op.sizes, device, runtime).mode,
        compute=compute,
        status="emulated",
        note=missing("; ".join(instead) or f"Runs unquantized{on}"),
        emulated=activations,
    )


def _missing(
    instead: str,
    *,
    reason: str,
    op: Op,
    asked: Mapping[OperandName, Quantizer],
    device: Device,
    runtime: str,
) -> MissingKernel:
    return MissingKernel(
        reason=reason,
        instead=instead,
        kind=op.kind,
        quantizers=tuple(asked.items()),
        sizes=tuple(op.sizes.items()),
        device=device,
        runtime=runtime,
    )


def _free_execution(op: Op, asked: Mapping[OperandName, Quantizer], device: Device) -> Execution:
    default = default_element(device)
    second = operand_element(asked.get("weight") or asked.get("k"), default)
    first = operand_element(asked.get("input") or asked.get("q"), default)
    pair = device.widened(second, first) or ("fp32", "fp32")
    if pair == (second, first):
        return Execution(op=op, mode=None, compute=pair, status="native", note="")
    words = f"{device.name} multiplies no {second} with {first}; computes in {pair[0]}"
    if pair[1] != pair[0]:
        words += f" and {pair[1]}"
    weight_only = first == default and second != default
    status: Status = "weight_only" if weight_only else "upcast"
    return Execution(op=op, mode=None, compute=pair, status=status, note=words)


def _compute(mode: KernelMode, default: str) -> tuple[str, str]:
    """The mode's elements, with the device's own 16-bit element for the 16-bit ones."""
    second, first = (
        default if element in ("bf16", "fp16") else element for element in mode.compute
    )
    return second, first


def _no_unit(mode: KernelMode | None, device: Device, default: str) -> str:
    second, first = _compute(mode, default) if mode else (default, default)
    return f"{device.name} has no unit that multiplies {second} with {first}"


def _quantizers(op: Op) -> dict[OperandName, Quantizer]:
    return {
        operand.name: operand.quantizer
        for operand in op.operands
        if operand.quantizer is not None and operand.name in MULTIPLIED
    }


def _asked_elements(asked: Mapping[OperandName, Quantizer]) -> frozenset[str]:
    return frozenset(quantizer.format.element.name for quantizer in asked.values())


def _stripped(op: Op, *, keep: tuple[OperandName, ...]) -> Op:
    """The op with the quantizers of its multiplied operands taken off, apart from `keep`."""
    return op.requantized(
        {
            operand.name: operand.quantizer if operand.name in keep else None
            for operand in op.operands
            if operand.name in MULTIPLIED
        }
    )
