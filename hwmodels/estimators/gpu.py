"""GPU estimator: analytic skeleton times learned residual, with intervals and energy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from hwmodels.adaptation import Sample, adapted
from hwmodels.cost import Bound
from hwmodels.device import Device, Measurement
from hwmodels.energy import energy_j, energy_per_op_j
from hwmodels.estimators.gpu_features import gemm_features
from hwmodels.estimators.gpu_kernels import TERMS, array, gemms_of, sizes
from hwmodels.estimators.gpu_overhead import conversion_basis, overhead_s, widening_basis
from hwmodels.estimators.gpu_residual import GpuArtefact, cells, load_artefact
from hwmodels.estimators.gpu_skeleton import Floats, GpuFigures, Terms, gemm_terms
from hwmodels.kernel import Kernel, KernelCost, KernelKind
from hwmodels.kernel_adaptation import KernelSample, kernel_name, kernel_size, kernels_adapted
from hwmodels.op_kernels import compute_elements, operator_kernels
from hwmodels.runtime import Runtime

# Half-width of the interval of kernels without a learned part, as a factor: on the device that the
# skeleton's constants for them were fitted on, and on others. Source: `studies/gpu_latency`.
FITTED_DEVICES = ("h100-sxm",)
FITTED_SPREAD = 1.45
UNSEEN_SPREAD = 1.9
SAME_KERNELS = {"torch-compile": "torch-eager"}
"""Runtimes that call the GEMM kernels of another."""
NARROW_BYTES = 0.8
"""Bytes of a quantised element below which it is a 4-bit one."""


class GpuEstimator:
    """Latency and energy of kernels on GPUs."""

    def __init__(self, artefact: GpuArtefact | None = None) -> None:
        self._artefact = artefact

    @property
    def artefact(self) -> GpuArtefact:
        """What was fitted; the shipped one unless another was given."""
        return self._artefact or load_artefact()

    def claims(self, device: Device) -> bool:
        """GPUs, and processors as GPUs with few cores."""
        return device.kind in ("gpu", "cpu")

    def estimate(
        self, kernels: Sequence[Kernel], device: Device, runtime: Runtime
    ) -> tuple[KernelCost, ...]:
        """Costs in the order given; kernels of one kind are computed together.

        Raises:
            WorkError: Operands that no unit of the device multiplies, even widened.
        """
        gpu = GpuFigures.of(device)
        costs: list[KernelCost | None] = [None] * len(kernels)
        for kind in dict.fromkeys(kernel.kind for kernel in kernels):
            chosen = [index for index, kernel in enumerate(kernels) if kernel.kind == kind]
            group = [kernels[index] for index in chosen]
            timed = (
                self._learned(group, device, gpu, runtime)
                if kind == "gemm"
                else self._analytic(kind, group, device, gpu, runtime)
            )
            for index, cost in zip(chosen, _costs(group, timed, device), strict=True):
                costs[index] = cost
        return tuple(cost for cost in costs if cost is not None)

    def _analytic(
        self,
        kind: KernelKind,
        kernels: Sequence[Kernel],
        device: Device,
        gpu: GpuFigures,
        runtime: Runtime,
    ) -> Timed:
        """Kernels without a learned part; conversions as the runtime's tables show them."""
        terms = TERMS[kind](kernels, device, gpu, self.artefact.constants)
        shift, width = _kernel_shift(device, kernels, runtime)
        seconds = _conversions_s(self.artefact, kernels, terms, gpu, runtime.name)
        latency = np.maximum(seconds * np.exp(shift), terms.light_s)
        spread = FITTED_SPREAD if device.name in FITTED_DEVICES else UNSEEN_SPREAD
        reach = spread**width
        return Timed(terms=terms, latency_s=latency, low_s=latency / reach, high_s=latency * reach)

    def _learned(
        self, kernels: Sequence[Kernel], device: Device, gpu: GpuFigures, runtime: Runtime
    ) -> Timed:
        """The skeleton's GEMM latencies times what was learned, with the cell's interval."""
        artefact = self.artefact
        gemms = gemms_of(kernels, device)
        terms = gemm_terms(gemms, gpu, artefact.constants)
        features = gemm_features(gemms, terms, gpu)
        name = SAME_KERNELS.get(runtime.name, runtime.name)
        correction = artefact.correction(features, name)
        extra = _widening_s(kernels, artefact, gpu, runtime.name)
        width = np.ones_like(correction)
        if device.measurements:
            posterior = adapted(_samples(artefact, device), features, name)
            correction, width = correction + posterior.mean, posterior.sd_share
        latency = np.maximum(terms.latency_s * np.exp(correction) + extra, terms.light_s)
        spread = artefact.seen if device.name in artefact.devices else artefact.unseen
        cell = cells(features)
        low = np.exp(width * np.array([spread.low[name] for name in cell]))
        high = np.exp(width * np.array([spread.high[name] for name in cell]))
        return Timed(terms=terms, latency_s=latency, low_s=latency * low, high_s=latency * high)


def quantised_as(kernel: Kernel) -> str:
    """The measured number type whose quantisation a kernel is; empty for other kernels.

    A static cast of a whole tensor is a cast and nothing else.
    """
    if kernel.detail == "compute_scale":
        return "fp8_dynamic"
    if kernel.kind != "quantize" or kernel.detail in ("tensor", "requantize", "cast_fp8"):
        return ""
    elements = kernel.sizes.get("rows", 0) * kernel.sizes.get("cols", 0)
    if kernel.write_bytes < NARROW_BYTES * elements:
        return "nvfp4"
    return "fp8_block" if kernel.detail in ("group", "block") else "fp8_dynamic"


def _conversions_s(
    artefact: GpuArtefact, kernels: Sequence[Kernel], terms: Terms, gpu: GpuFigures, runtime: str
) -> Floats:
    """The skeleton's seconds, but those of measured quantisation kernels.

    A scale over the whole tensor and its cast were measured together: the first kernel takes what
    the cast leaves.
    """
    names = [quantised_as(kernel) for kernel in kernels]
    if not any(names) or not artefact.quantises(runtime):
        return terms.latency_s
    moved = array(kernels, lambda kernel: kernel.bytes)
    rows, cols = sizes(kernels, "rows"), sizes(kernels, "cols")
    basis = conversion_basis(rows, cols, moved, gpu, artefact.constants)
    seconds = terms.latency_s.copy()
    for index, (kernel, name) in enumerate(zip(kernels, names, strict=True)):
        if name:
            row = basis[index : index + 1]
            whole = float(overhead_s(artefact.overheads, runtime, name, row)[0])
            scale = kernel.detail == "compute_scale"
            seconds[index] = max(whole - seconds[index], gpu.launch_s) if scale else whole
    return seconds


def _widening_s(
    kernels: Sequence[Kernel], artefact: GpuArtefact, gpu: GpuFigures, runtime: str
) -> Floats:
    """What weight-only and integer kernels were seen to take beside their GEMM."""
    rows, outputs, depth = (sizes(kernels, name) for name in ("M", "N", "K"))
    basis = widening_basis(rows, outputs, depth, gpu)
    seconds = np.zeros(len(kernels))
    for index, kernel in enumerate(kernels):
        name = f"{runtime}/{_widened_as(kernel)}"
        if name in artefact.overheads:
            seconds[index] = artefact.overheads[name].seconds(basis[index : index + 1])[0]
    return seconds


def _widened_as(kernel: Kernel) -> str:
    s = kernel.sizes
    per_weight = kernel.weight_bytes / max(s["B"] * s["N"] * s["K"], 1)
    per_input = kernel.input_bytes / max(s["B"] * s["M"] * s["K"], 1)
    if kernel.input_element == "int8" and kernel.weight_element == "int8":
        return "w8a8_int8_dynamic"
    if per_weight >= 0.9 * per_input:
        return ""
    return "w4a16" if per_weight < NARROW_BYTES else "w8a16"


@cache
def _samples(artefact: GpuArtefact, device: Device) -> tuple[Sample, ...]:
    """How far the model is off on the GEMMs that were measured on the device."""
    gpu = GpuFigures.of(device)
    found = []
    for entry in device.measurements:
        *others, kernel = measured_kernels(entry, device)
        if kernel.kind != "gemm":
            continue
        gemms = gemms_of([kernel], device)
        terms = gemm_terms(gemms, gpu, artefact.constants)
        features = gemm_features(gemms, terms, gpu)
        name = SAME_KERNELS.get(entry.runtime, entry.runtime)
        predicted = terms.latency_s * np.exp(artefact.correction(features, name))
        predicted += _widening_s([kernel], artefact, gpu, entry.runtime)
        for other in others:
            found_terms = TERMS[other.kind]([other], device, gpu, artefact.constants)
            predicted += _conversions_s(artefact, [other], found_terms, gpu, entry.runtime)
        log_ratio = float(np.log(entry.median_us * 1e-6 / predicted[0]))
        found.append(
            Sample(runtime=name, features=tuple(map(float, features[0])), log_ratio=log_ratio)
        )
    return tuple(found)


def _kernel_shift(
    device: Device, kernels: Sequence[Kernel], runtime: Runtime
) -> tuple[Floats, Floats]:
    """log(measured / skeleton) as measurements of the kind say, and how much doubt they leave."""
    samples = [one for one in _kernel_samples(device) if one.kind == kernels[0].kind]
    if not samples:
        return np.zeros(len(kernels)), np.ones(len(kernels))
    posterior = kernels_adapted(samples, kernels, runtime.name)
    return posterior.mean, posterior.sd_share


@cache
def _kernel_samples(device: Device) -> tuple[KernelSample, ...]:
    """How far the skeleton is off on measured operators that are one kernel without trees."""
    gpu = GpuFigures.of(device)
    constants = load_artefact().constants
    found = []
    for entry in device.measurements:
        kernel, *others = measured_kernels(entry, device)
        if others or kernel.kind == "gemm":
            continue
        seconds = TERMS[kernel.kind]([kernel], device, gpu, constants).latency_s[0]
        found.append(
            KernelSample(
                kind=kernel.kind,
                name=kernel_name(kernel, entry.runtime),
                size=kernel_size(kernel),
                log_ratio=float(np.log(entry.median_us * 1e-6 / seconds)),
            )
        )
    return tuple(found)


def measured_kernels(entry: Measurement, device: Device) -> tuple[Kernel, ...]:
    """Kernels of a measured operator."""
    compute = compute_elements(entry.dtype, device)
    return operator_kernels(entry.op, dict(entry.sizes), entry.dtype, entry.runtime, compute)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Latencies of kernels with their intervals, each of shape (kernels,)."""

    terms: Terms
    latency_s: Floats
    low_s: Floats
    high_s: Floats


def _costs(kernels: Sequence[Kernel], timed: Timed, device: Device) -> list[KernelCost]:
    terms = timed.terms
    energy = energy_j(
        device,
        latency_s=timed.latency_s,
        ops=array(kernels, lambda kernel: 2 * kernel.macs),
        per_op_j=array(kernels, lambda kernel: energy_per_op_j(device, kernel.input_element)),
        dram_bytes=terms.dram_bytes,
    )
    low = np.minimum(np.maximum(timed.low_s, terms.light_s), timed.latency_s)
    high = np.maximum(timed.high_s, timed.latency_s)
    bounds = _bounds(kernels, terms)
    return [
        KernelCost(
            latency_s=float(timed.latency_s[index]),
            low_s=float(low[index]),
            high_s=float(high[index]),
            energy_j=float(energy[index]),
            traffic_bytes=float(terms.dram_bytes[index]),
            bound=bounds[index],
        )
        for index in range(len(kernels))
    ]


def _bounds(kernels: Sequence[Kernel], terms: Terms) -> list[Bound]:
    """The largest term. Tiles that wait for the cache are the unit's time, not the memory's."""
    computing = np.maximum(terms.compute_s, terms.cache_s * (terms.compute_s > terms.dram_s))
    stacked = np.stack(
        np.broadcast_arrays(computing, terms.dram_s, np.asarray(terms.fixed_s, dtype=float))
    )
    names: tuple[Bound, ...] = ("compute", "memory", "launch")
    ruling = np.argmax(stacked, axis=0)
    return [
        "conversion" if kernel.kind == "quantize" or kernel.detail == "compute_scale"
        else names[index]
        for kernel, index in zip(kernels, ruling, strict=True)
    ]  # fmt: skip


__all__ = ["GpuEstimator", "gemms_of", "measured_kernels", "quantised_as"]
