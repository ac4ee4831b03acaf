"""The kernel of a runtime that executes given quantizers on a device, or why none does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from hwmodels.devices.device import Device
from hwmodels.devices.load import device_names, load_device
from hwmodels.errors import some
from hwmodels.formats.element import is_plain, is_wide
from hwmodels.formats.quantizer import Quantizer
from hwmodels.runtimes.load import load_runtime, runtime_names
from hwmodels.runtimes.runtime import KernelMode, Runtime
from hwmodels.work.work import OperandName, OpKind

Sizes = Mapping[str, int]
HALVES = ("bf16", "fp16")
NAMES_SHOWN = 5
"""Devices that a reason names before it only counts them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The kernel that runs, or the reason why none does."""

    mode: KernelMode | None
    reason: str = ""


def default_element(device: Device) -> str:
    """The 16-bit element that a deployed network has here: bf16 where a unit has it, else fp16.

    A device without 16-bit floats (an integer NPU) still reports bf16: what is not quantized
    there runs on its host.
    """
    has_fp16_only = device.rate("bf16", "bf16") is None and device.rate("fp16", "fp16") is not None
    return "fp16" if has_fp16_only else "bf16"


def is_integer(device: Device, runtime: Runtime) -> bool:
    """Whether networks run there in integers alone: no tensor is kept in 16-bit floats beside.

    Schemes leave heads in 16 bits, which such a device has no array for.
    """
    arrays = [unit for unit in device.units if unit.role == "matrix"]
    return runtime.stores_tensors and not any(
        rate.accepts(half, half) for unit in arrays for rate in unit.rates for half in HALVES
    )


def find_mode(
    kind: OpKind,
    quantizers: Mapping[OperandName, Quantizer],
    sizes: Sizes,
    device: Device,
    runtime: Runtime,
) -> Verdict:
    """The first mode of the runtime that takes these quantizers, sizes and device.

    `quantizers` has no entry for an operand in the default 16-bit format.
    """
    if not runtime.exists_for(device.architecture):
        return Verdict(
            mode=None,
            reason=f"{runtime.name} runs on {', '.join(runtime.families)}; "
            f"{device.name} is {device.architecture}",
        )
    default = default_element(device)
    fitting = [mode for mode in runtime.modes if mode.accepts(kind, quantizers, default)]
    if not fitting:
        return Verdict(
            mode=None, reason=f"{runtime.name} has no {kind} kernel for {_words(quantizers)}"
        )
    built = [mode for mode in fitting if mode.runs_on(device.architecture)]
    if not built:
        ranges = " or ".join(
            dict.fromkeys(str(range_) for mode in fitting for range_ in mode.architectures)
        )
        return Verdict(
            mode=None,
            reason=f"{fitting[0].name} of {runtime.name} needs {ranges}; "
            f"{device.name} is {device.architecture}",
        )
    problems = [_misaligned(mode, sizes) for mode in built]
    for mode, problem in zip(built, problems, strict=True):
        if not problem:
            return Verdict(mode=mode)
    return Verdict(mode=None, reason=problems[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingKernel:
    """Note on an op that no kernel runs as asked; worded when it is shown.

    Who has the kernel takes a look through all devices and runtimes, whose files would else be
    opened for every price.
    """

    reason: str
    instead: str
    """Remark on the kernel that runs."""
    kind: OpKind
    quantizers: tuple[tuple[OperandName, Quantizer], ...]
    sizes: tuple[tuple[str, int], ...]
    device: Device
    runtime: str

    def __str__(self) -> str:
        owners = who_has_it(self.kind, self.quantizers, self.sizes, self.device, self.runtime)
        return f"{self.reason}; {owners}. {self.instead}"


@cache
def who_has_it(
    kind: OpKind,
    quantizers: tuple[tuple[OperandName, Quantizer], ...],
    sizes: tuple[tuple[str, int], ...],
    device: Device,
    runtime: str,
) -> str:
    """Owners of a native kernel: `vllm runs it natively on b200-sxm, gb200`.

    Looks for other runtimes on the device, then for other devices of the runtime, through all
    that are shipped or that packages bring.
    """
    asked, loops = dict(quantizers), dict(sizes)
    runtimes = [name for name in runtime_names() if not load_runtime(name).every_combination]
    here = [name for name in runtimes if _native(kind, asked, loops, device, name)]
    if here:
        return f"{device.name} runs it natively with {', '.join(here)}"
    if runtime not in runtimes:
        return "no shipped runtime runs it natively"
    there = [
        name for name in device_names() if _native(kind, asked, loops, load_device(name), runtime)
    ]
    if there:
        return f"{runtime} runs it natively on {some(there, NAMES_SHOWN)}"
    return "no shipped runtime runs it natively"


def _native(
    kind: OpKind,
    quantizers: Mapping[OperandName, Quantizer],
    sizes: Sizes,
    device: Device,
    runtime_name: str,
) -> bool:
    mode = find_mode(kind, quantizers, sizes, device, load_runtime(runtime_name)).mode
    return mode is not None and mode.status == "native" and device.rate(*mode.compute) is not None


def _misaligned(mode: KernelMode, sizes: Sizes) -> str:
    wrong = [
        f"{name}={sizes[name]} is no multiple of {multiple}"
        for name, multiple in mode.align.items()
        if name in sizes and sizes[name] % multiple
    ]
    return f"{mode.name}: {', '.join(wrong)}" if wrong else ""


def _words(quantizers: Mapping[OperandName, Quantizer]) -> str:
    quantized = {
        name: quantizer
        for name, quantizer in quantizers.items()
        if is_wide(quantizer) or not is_plain(quantizer)
    }
    if not quantized:
        return "16-bit operands"
    return " with ".join(f"{name} {quantizer.name}" for name, quantizer in quantized.items())
