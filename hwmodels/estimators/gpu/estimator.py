"""GPU estimator: analytic skeleton times learned residual, with intervals and energy."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from hwmodels.devices.device import Device, DeviceKind
from hwmodels.errors import WorkError
from hwmodels.estimators.gpu.coldness import holding_share
from hwmodels.estimators.gpu.conversions import conversions_s, widening_s
from hwmodels.estimators.gpu.energy import energy_j
from hwmodels.estimators.gpu.experts import forecast_experts, has_experts, load_experts
from hwmodels.estimators.gpu.features import gemm_features
from hwmodels.estimators.gpu.gemm_correction import gemm_correction
from hwmodels.estimators.gpu.kernels import TERMS, gemms_of, sustained_shares
from hwmodels.estimators.gpu.learned_attention import forecast, is_paged, load_attention
from hwmodels.estimators.gpu.learned_tuned import is_tuned, load_tuned, tuned_forecast
from hwmodels.estimators.gpu.residual import GpuArtefact, load_artefact
from hwmodels.estimators.gpu.samples import SAME_KERNELS, gemm_samples, kernel_reach, kernel_shift
from hwmodels.estimators.gpu.skeleton import Floats, GpuFigures, Terms, gemm_terms
from hwmodels.runtimes.runtime import Runtime
from hwmodels.work.cost import Bound
from hwmodels.work.kernel import MULTIPLYING, Kernel, KernelCost, KernelKind

Family = KernelKind | Literal["paged_attention", "tuned_gemm", "experts"]


class GpuEstimator:
    """Latency and energy of kernels on GPUs."""

    def __init__(self, artefact: GpuArtefact | None = None) -> None:
        self._artefact = artefact

    @property
    def artefact(self) -> GpuArtefact:
        """The fitted part; the shipped one unless another was given."""
        return self._artefact or load_artefact()

    @property
    def kinds(self) -> frozenset[DeviceKind]:
        """GPUs."""
        return frozenset({"gpu"})

    def estimate(
        self, kernels: Sequence[Kernel], device: Device, runtime: Runtime
    ) -> tuple[KernelCost, ...]:
        """Costs in the order given; kernels of one kind are computed together.

        Raises:
            WorkError: Operands that no unit of the device multiplies, even widened.
        """
        costs = [NOTHING if _is_empty(kernel) else None for kernel in kernels]
        waiting = [index for index, cost in enumerate(costs) if cost is None]
        families = [_family(kernel, device, runtime) for kernel in kernels]
        for family in dict.fromkeys(families[index] for index in waiting):
            chosen = [index for index in waiting if families[index] == family]
            group = [kernels[index] for index in chosen]
            timed = self._timed(family, group, device, runtime)
            if device.varied_from is not None:
                with suppress(WorkError):  # only the varied device has such a unit
                    known = self._timed(family, group, device.varied_from, runtime)
                    timed = _deviating_alike(timed, known, device)
            for index, cost in zip(chosen, _costs(group, timed, device), strict=True):
                costs[index] = cost
        return tuple(cost for cost in costs if cost is not None)

    def _timed(
        self, family: Family, kernels: Sequence[Kernel], device: Device, runtime: Runtime
    ) -> Timed:
        gpu = GpuFigures.of(device)
        match family:
            case "gemm":
                return self._learned(kernels, device, gpu, runtime)
            case "paged_attention" | "tuned_gemm":
                return self._forecast(family, kernels, device, runtime)
            case "experts":
                return self._experts(kernels, device, runtime)
            case kind:
                return self._analytic(kind, kernels, device, gpu, runtime)

    def _analytic(
        self,
        kind: KernelKind,
        kernels: Sequence[Kernel],
        device: Device,
        gpu: GpuFigures,
        runtime: Runtime,
    ) -> Timed:
        """Kernels without a learned part; conversions as the runtime's tables show them."""
        artefact = self.artefact
        terms = TERMS[kind](kernels, device, gpu, artefact.constants)
        shift, width = kernel_shift(artefact, device, kernels, runtime.name)
        seconds = conversions_s(artefact, kernels, terms, gpu, runtime.name)
        latency = _at_least(seconds * np.exp(shift), terms, gpu)
        reach = np.exp(kernel_reach(device) * width)
        return Timed(
            terms=terms,
            skeleton_s=seconds,
            latency_s=latency,
            low_s=latency / reach,
            high_s=latency * reach,
        )

    def _forecast(
        self, family: Family, kernels: Sequence[Kernel], device: Device, runtime: Runtime
    ) -> Timed:
        """Kernels with an artefact of their own."""
        artefact = self.artefact
        if family == "tuned_gemm":
            found = tuned_forecast(load_tuned(), kernels, device)
        else:
            found = forecast(load_attention(), kernels, device, runtime, artefact.constants)
        shift, width = kernel_shift(artefact, device, kernels, runtime.name)
        latency = _at_least(found.latency_s * np.exp(shift), found.terms, GpuFigures.of(device))
        return Timed(
            terms=found.terms,
            skeleton_s=found.terms.latency_s,
            latency_s=latency,
            low_s=latency * np.exp(width * found.low),
            high_s=latency * np.exp(width * found.high),
        )

    def _experts(self, kernels: Sequence[Kernel], device: Device, runtime: Runtime) -> Timed:
        """Experts of a mixture; measured GEMMs of the device count for them as for GEMMs."""
        artefact, gpu = self.artefact, GpuFigures.of(device)
        found = forecast_experts(load_experts(), kernels, device, runtime, artefact.constants)
        seconds, nothing = found.latency_s, np.zeros(len(kernels))
        if device.measurements:
            name = SAME_KERNELS.get(runtime.name, runtime.name)
            doubt = artefact.doubt(found.features, name, device, nothing)
            samples = gemm_samples(artefact, device)
            seconds = seconds * np.exp(gemm_correction(samples, found.features, name, doubt).mean)
        latency = _at_least(seconds, found.terms, gpu)
        return Timed(
            terms=found.terms,
            skeleton_s=found.terms.latency_s,
            latency_s=latency,
            low_s=latency * np.exp(found.low),
            high_s=latency * np.exp(found.high),
        )

    def _learned(
        self, kernels: Sequence[Kernel], device: Device, gpu: GpuFigures, runtime: Runtime
    ) -> Timed:
        """The skeleton's GEMM latencies times what was learned, with their interval."""
        artefact = self.artefact
        gemms = gemms_of(kernels, device)
        terms = gemm_terms(gemms, gpu, artefact.constants)
        features = gemm_features(gemms, terms, gpu)
        name = SAME_KERNELS.get(runtime.name, runtime.name)
        held = holding_share(kernels, name, gpu, artefact.constants)
        correction = held * artefact.correction(features, name, device)
        extra = widening_s(kernels, artefact, gpu, runtime.name)
        seconds = terms.latency_s * np.exp(correction) + extra
        doubt = artefact.doubt(features, name, device, extra / seconds)
        width = np.ones_like(correction)
        if device.measurements:
            samples = gemm_samples(artefact, device)
            posterior = gemm_correction(samples, features, name, doubt)
            seconds = seconds * np.exp(posterior.mean)
            width = posterior.width
        latency = _at_least(seconds, terms, gpu)
        return Timed(
            terms=terms,
            skeleton_s=terms.latency_s + extra,
            latency_s=latency,
            low_s=latency * np.exp(width * doubt.low),
            high_s=latency * np.exp(width * doubt.high),
        )


SCALES = ("compute_scale", "whole_reduction", "split_reduction")
"""Details of reductions that find a scale."""
NOTHING = KernelCost(
    latency_s=0.0, low_s=0.0, high_s=0.0, energy_j=0.0, traffic_bytes=0.0, bound="launch"
)
"""The cost of a product without rows, as of an empty cache: runtimes launch no kernel for it."""


def _at_least(seconds: Floats, terms: Terms, gpu: GpuFigures) -> Floats:
    """Corrected times, none below the speed of light or a launch."""
    return np.asarray(np.maximum(seconds, np.maximum(terms.light_s, gpu.launch_s)))


def _family(kernel: Kernel, device: Device, runtime: Runtime) -> Family:
    """The model of a kernel; kernels of one are computed together."""
    if device.kind == "gpu" and has_experts(kernel, runtime):
        return "experts"
    if is_tuned(kernel, runtime):
        return "tuned_gemm"
    return "paged_attention" if is_paged(kernel, device, runtime) else kernel.kind


def _is_empty(kernel: Kernel) -> bool:
    return kernel.kind in MULTIPLYING and kernel.macs == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Latencies of kernels with their intervals, each of shape (kernels,)."""

    terms: Terms
    skeleton_s: Floats
    """The part that follows from figures of the device alone."""
    latency_s: Floats
    low_s: Floats
    high_s: Floats


def _deviating_alike(timed: Timed, known: Timed, device: Device) -> Timed:
    """Times of a varied device whose silicon deviates from the skeleton as the file's does.

    Learned parts know devices by a few figures, and between those of real ones they say nothing
    of a single figure: with them alone more bandwidth could be slower. Their doubt, which grows
    with the distance to what was measured, stays.

    Args:
        timed: kernels on the varied device, by its own figures.
        known: the same on the device of the file.
        device: the varied one.
    """
    seconds = known.latency_s * timed.skeleton_s / known.skeleton_s
    latency = _at_least(seconds, timed.terms, GpuFigures.of(device))
    return replace(
        timed,
        latency_s=latency,
        low_s=latency * timed.low_s / timed.latency_s,
        high_s=latency * timed.high_s / timed.latency_s,
    )


def _costs(kernels: Sequence[Kernel], timed: Timed, device: Device) -> list[KernelCost]:
    terms = timed.terms
    energy = energy_j(kernels, terms, timed.latency_s, device)
    # A call after a pause computes at the full clock, as far as it computes.
    computing = np.minimum(terms.compute_s / timed.latency_s, 1.0)
    rested_s = timed.low_s * (1 - computing * (1 - sustained_shares(kernels, device)))
    low = np.minimum(np.maximum(rested_s, terms.light_s), timed.latency_s)
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
        "conversion" if kernel.kind == "quantize" or kernel.detail in SCALES
        else names[index]
        for kernel, index in zip(kernels, ruling, strict=True)
    ]  # fmt: skip
