"""GPU estimator: analytic skeleton times learned residual, with intervals and energy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hwmodels.adaptation import Sample, adapted
from hwmodels.cost import Bound
from hwmodels.device import Device, Measurement
from hwmodels.energy import energy_j, energy_per_op_j
from hwmodels.errors import WorkError
from hwmodels.estimators.gpu_features import gemm_features
from hwmodels.estimators.gpu_residual import GpuArtefact, load_artefact, regimes
from hwmodels.estimators.gpu_skeleton import (
    DETAIL_EFFICIENCY,
    MOVE_EFFICIENCY,
    Attentions,
    Gemms,
    GpuFigures,
    Moves,
    SkeletonConstants,
    Terms,
    attention_terms,
    gemm_terms,
    move_terms,
)
from hwmodels.kernel import Kernel, KernelCost, KernelKind
from hwmodels.kernel_adaptation import KernelSample, kernel_name, kernel_size, kernels_adapted
from hwmodels.op_kernels import compute_elements, operator_kernels
from hwmodels.runtime import Runtime

Floats = NDArray[np.float64]

QUERY_BLOCK = 128
"""Query rows that one block of a fused attention kernel works on (FlashAttention 2 and 3)."""
# Half-width of the interval of kernels without a learned part, as a factor: on the device that the
# skeleton's constants for them were fitted on, and on others. Source: `studies/gpu_latency`.
FITTED_DEVICES = ("h100-sxm",)
FITTED_SPREAD = 1.45
UNSEEN_SPREAD = 1.9
SAME_KERNELS = {"torch-compile": "torch-eager"}
"""Runtimes that call the GEMM kernels of another."""
MEASURED_AS = {
    "compute_scale": "fp8_dynamic", "token": "fp8_block", "group": "fp8_block",
}  # fmt: skip
"""Which measured quantisation a kernel's fixed cost is taken from, by `Kernel.detail`."""
# Channels that a matrix unit takes at a time: fewer input channels are padded, and a grouped
# convolution with fewer output channels a group has no use for it.
MATRIX_MIN_CHANNELS = 8


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
            timed = self._timed(kind, group, device, gpu, runtime)
            for index, cost in zip(chosen, _costs(group, timed, device), strict=True):
                costs[index] = cost
        return tuple(cost for cost in costs if cost is not None)

    def _timed(
        self,
        kind: KernelKind,
        kernels: Sequence[Kernel],
        device: Device,
        gpu: GpuFigures,
        runtime: Runtime,
    ) -> Timed:  # fmt: skip
        constants = self.artefact.constants
        if kind == "gemm":
            gemms = gemms_of(kernels, device)
            terms = gemm_terms(gemms, gpu, constants)
            return self._learned(gemm_features(gemms, terms, gpu), terms, device, runtime)
        terms = TERMS[kind](kernels, device, gpu, constants)
        extra = self._quantisation_s(kernels, gpu, runtime)
        shift, width = _kernel_shift(device, kernels, runtime)
        latency = np.maximum((terms.latency_s + extra) * np.exp(shift), terms.light_s)
        spread = FITTED_SPREAD if device.name in FITTED_DEVICES else UNSEEN_SPREAD
        reach = spread**width
        return Timed(terms=terms, latency_s=latency, low_s=latency / reach, high_s=latency * reach)

    def _learned(self, features: Floats, terms: Terms, device: Device, runtime: Runtime) -> Timed:
        """The skeleton's GEMM latencies times what was learned, with the regime's interval."""
        artefact = self.artefact
        name = SAME_KERNELS.get(runtime.name, runtime.name)
        correction = artefact.correction(features, name)
        width = np.ones_like(correction)
        if device.measurements:
            posterior = adapted(_samples(artefact, device), features, name)
            correction, width = correction + posterior.mean, posterior.sd_share
        latency = np.maximum(terms.latency_s * np.exp(correction), terms.light_s)
        spread = artefact.seen if device.name in artefact.devices else artefact.unseen
        regime = regimes(features)
        low = np.exp(width * np.array([spread.low[name] for name in regime]))
        high = np.exp(width * np.array([spread.high[name] for name in regime]))
        return Timed(terms=terms, latency_s=latency, low_s=latency * low, high_s=latency * high)

    def _quantisation_s(
        self, kernels: Sequence[Kernel], gpu: GpuFigures, runtime: Runtime
    ) -> Floats:
        """What a runtime's dynamic quantisation was seen to take beside its bytes."""
        cycles = self.artefact.quantize_cycles
        return np.array(
            [
                cycles.get(f"{runtime.name}/{MEASURED_AS.get(kernel.detail, '')}", 0.0)
                / gpu.clock_hz
                for kernel in kernels
            ]
        )


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
        rest = sum(
            float(TERMS[other.kind]([other], device, gpu, artefact.constants).latency_s[0])
            for other in others
        )
        log_ratio = float(np.log(entry.median_us * 1e-6 / (predicted[0] + rest)))
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


def gemms_of(kernels: Sequence[Kernel], device: Device) -> Gemms:
    """GEMM and convolution kernels as arrays."""
    m, n, k, batch = (_sizes(kernels, name) for name in ("M", "N", "K", "B"))
    inputs = _array(kernels, lambda kernel: kernel.input_bytes)
    weights = _array(kernels, lambda kernel: kernel.weight_bytes)
    cold, warm = _temperatures(kernels)
    return Gemms(
        batch=batch,
        m=m,
        n=n,
        k=k,
        input_bytes=inputs / np.maximum(batch * m * k, 1),
        weight_bytes=weights / np.maximum(batch * n * k, 1),
        cold_bytes=cold,
        warm_bytes=warm,
        ops_per_s=_rates(kernels, device) * _efficiencies(kernels),
        peak_ops_per_s=_rates(kernels, device),
        integer=_array(kernels, lambda kernel: kernel.input_element.startswith("int")),
    )


def _conv2d(
    kernels: Sequence[Kernel], device: Device, gpu: GpuFigures, constants: SkeletonConstants
) -> Terms:
    """Implicit GEMMs; with few channels a group, streams over the vector unit."""
    gemms = gemms_of(kernels, device)
    taps = np.maximum(_sizes(kernels, "taps"), 1)
    channels = gemms.k / taps
    padded = np.ceil(channels / MATRIX_MIN_CHANNELS) * MATRIX_MIN_CHANNELS * taps
    terms = gemm_terms(replace(gemms, k=padded), gpu, constants)
    light = 2 * gemms.batch * gemms.m * gemms.n * gemms.k / gemms.peak_ops_per_s
    terms = replace(terms, light_s=np.maximum(light, terms.dram_bytes / gpu.dram_bytes_per_s))
    shallow = _sizes(kernels, "N") < MATRIX_MIN_CHANNELS
    ops = _array(kernels, lambda kernel: 2 * kernel.macs)
    vector_s = ops / (gpu.vector_ops_per_s * constants.depthwise_efficiency)
    fixed = gpu.launch_s + constants.conv_ramp_s
    deep_s = (
        np.maximum(
            np.maximum(terms.compute_s * constants.compute_efficiency, terms.cache_s)
            / constants.conv_efficiency,
            terms.dram_s,
        )
        + terms.fixed_s
        - gpu.launch_s
        - constants.ramp_cycles / gpu.clock_hz
        + fixed
    )
    shallow_s = np.maximum(vector_s, terms.dram_s) + fixed
    latency = np.where(shallow, shallow_s, deep_s)
    return replace(
        terms,
        latency_s=np.maximum(latency, np.where(shallow, terms.dram_s, terms.light_s)),
        compute_s=np.where(shallow, vector_s, terms.compute_s),
    )


def _attention(
    kernels: Sequence[Kernel], device: Device, gpu: GpuFigures, constants: SkeletonConstants
) -> Terms:
    batch, heads, kv_heads = (_sizes(kernels, name) for name in ("B", "H", "HK"))
    queries, keys, depth = (_sizes(kernels, name) for name in ("S", "L", "D"))
    group = np.maximum(heads / np.maximum(kv_heads, 1), 1)
    rows = np.where(queries == 1, group, queries)
    heads_of_blocks = np.where(queries == 1, kv_heads, heads)
    blocks = batch * heads_of_blocks * np.ceil(rows / QUERY_BLOCK)
    ops = _array(kernels, lambda kernel: 2 * kernel.macs)
    longest = np.where(queries == 1, 0.0, 4 * np.minimum(queries, QUERY_BLOCK) * keys * depth)
    cold, warm = _temperatures(kernels)
    attentions = Attentions(
        blocks=blocks,
        ops=ops,
        longest_block_ops=longest,
        cold_bytes=cold,
        warm_bytes=warm,
        ops_per_s=_rates(kernels, device) * _efficiencies(kernels),
        peak_ops_per_s=_rates(kernels, device),
    )
    return attention_terms(attentions, gpu, constants)


def _move(
    kernels: Sequence[Kernel], _device: Device, gpu: GpuFigures, constants: SkeletonConstants
) -> Terms:
    cold, warm = _temperatures(kernels)
    moves = Moves(
        kind=kernels[0].kind,
        efficiency=_array(
            kernels,
            lambda kernel: DETAIL_EFFICIENCY.get(kernel.detail, MOVE_EFFICIENCY[kernel.kind]),
        ),
        rows=_sizes(kernels, "rows"),
        cols=_sizes(kernels, "cols"),
        cold_bytes=cold,
        warm_bytes=warm,
    )
    return move_terms(moves, gpu, constants)


_TermsOf = Callable[[Sequence[Kernel], Device, GpuFigures, SkeletonConstants], Terms]
TERMS: dict[KernelKind, _TermsOf] = {
    "conv2d": _conv2d,
    "attention": _attention,
    "pointwise": _move,
    "rowwise": _move,
    "reduce": _move,
    "embedding": _move,
    "quantize": _move,
}


def _costs(kernels: Sequence[Kernel], timed: Timed, device: Device) -> list[KernelCost]:
    terms = timed.terms
    energy = energy_j(
        device,
        latency_s=timed.latency_s,
        ops=_array(kernels, lambda kernel: 2 * kernel.macs),
        per_op_j=_array(kernels, lambda kernel: energy_per_op_j(device, kernel.input_element)),
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
    memory = np.maximum(terms.dram_s, terms.cache_s)
    stacked = np.stack(
        np.broadcast_arrays(terms.compute_s, memory, np.asarray(terms.fixed_s, dtype=float))
    )
    names: tuple[Bound, ...] = ("compute", "memory", "launch")
    ruling = np.argmax(stacked, axis=0)
    return [
        "conversion" if kernel.kind == "quantize" or kernel.detail == "compute_scale"
        else names[index]
        for kernel, index in zip(kernels, ruling, strict=True)
    ]  # fmt: skip


def _rates(kernels: Sequence[Kernel], device: Device) -> Floats:
    return _array(kernels, lambda kernel: _rate(kernel, device))


def _rate(kernel: Kernel, device: Device) -> float:
    rate = device.rate(kernel.weight_element, kernel.input_element, kernel.accumulator)
    rate = rate or device.rate(kernel.weight_element, kernel.input_element)
    if rate is None:
        raise WorkError(
            f"{device.name} has no unit that multiplies {kernel.weight_element} with "
            f"{kernel.input_element}; it has {', '.join(sorted(device.elements))}"
        )
    return rate.ops_per_s.value


def _efficiencies(kernels: Sequence[Kernel]) -> Floats:
    return _array(kernels, lambda kernel: kernel.efficiency)


def _sizes(kernels: Sequence[Kernel], name: str) -> Floats:
    return np.array([kernel.sizes.get(name, 0) for kernel in kernels], dtype=float)


def _array(kernels: Sequence[Kernel], figure: Callable[[Kernel], float]) -> Floats:
    return np.array([figure(kernel) for kernel in kernels], dtype=float)


def _temperatures(kernels: Sequence[Kernel]) -> tuple[Floats, Floats]:
    """Bytes that must come from main memory, and bytes that may be in the cache."""
    cold = _array(
        kernels,
        lambda kernel: (
            kernel.bytes if kernel.inputs_are_cold else kernel.weight_bytes * kernel.weight_is_cold
        ),
    )
    total = _array(kernels, lambda kernel: kernel.bytes)
    return cold, total - cold
