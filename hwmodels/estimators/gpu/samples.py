"""Measurements of a device as samples of what its predictions miss."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from hwmodels.devices.device import Device, Measurement
from hwmodels.estimators.gpu.conversions import conversions_s, widening_s
from hwmodels.estimators.gpu.features import gemm_features
from hwmodels.estimators.gpu.gemm_correction import GemmSample, calibration
from hwmodels.estimators.gpu.kernel_correction import (
    KernelSample,
    kernel_correction,
    kernel_name,
    kernel_size,
)
from hwmodels.estimators.gpu.kernels import TERMS, gemms_of
from hwmodels.estimators.gpu.learned_attention import forecast, is_paged, load_attention
from hwmodels.estimators.gpu.learned_tuned import is_tuned, load_tuned, tuned_forecast
from hwmodels.estimators.gpu.residual import GpuArtefact
from hwmodels.estimators.gpu.skeleton import Floats, GpuFigures, gemm_terms
from hwmodels.operators.lower import compute_elements, operator_kernels
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.kernel import Kernel

# Half-width of the interval of kernels without a learned part, as a factor: on the device that the
# skeleton's constants for them were fitted on, and on others. Source: `studies/gpu_latency`.
FITTED_DEVICES = ("h100-sxm",)
FITTED_SPREAD = 1.45
UNSEEN_SPREAD = 1.9
LEAST_GEMM = 0.3
"""Least share of a GEMM's predicted time that a measured operator leaves for it, beside kernels
that quantise."""
SAME_KERNELS = {"torch-compile": "torch-eager"}
"""Runtimes that call the GEMM kernels of another."""


def measured_kernels(entry: Measurement, device: Device) -> tuple[Kernel, ...]:
    """Kernels of a measured operator."""
    compute = compute_elements(entry.dtype, device)
    runtime = load_runtime(entry.runtime)
    return operator_kernels(entry.op, dict(entry.sizes), entry.dtype, runtime, compute)


def kernel_reach(device: Device) -> float:
    """Log of the factor that kernels without a learned part may be off by, without samples."""
    return float(np.log(FITTED_SPREAD if device.name in FITTED_DEVICES else UNSEEN_SPREAD))


@cache
def gemm_samples(artefact: GpuArtefact, device: Device) -> tuple[GemmSample, ...]:
    """Errors of the model on the GEMMs that were measured on the device."""
    measured = [(entry, measured_kernels(entry, device)) for entry in device.measurements]
    gemms = [
        (entry, kernels)
        for entry, kernels in measured
        if kernels[-1].kind == "gemm" and not is_tuned(kernels[-1], load_runtime(entry.runtime))
    ]
    return tuple(_gemm_sample(artefact, entry, kernels, device) for entry, kernels in gemms)


def _gemm_sample(
    artefact: GpuArtefact, entry: Measurement, kernels: Sequence[Kernel], device: Device
) -> GemmSample:
    gpu = GpuFigures.of(device)
    *others, kernel = kernels
    gemms = gemms_of([kernel], device)
    terms = gemm_terms(gemms, gpu, artefact.constants)
    features = gemm_features(gemms, terms, gpu)
    name = SAME_KERNELS.get(entry.runtime, entry.runtime)
    gemm = terms.latency_s * np.exp(artefact.correction(features, name, device))
    gemm = gemm + widening_s([kernel], artefact, gpu, entry.runtime)
    extra = np.zeros(1)
    for other in others:
        found = TERMS[other.kind]([other], device, gpu, artefact.constants)
        extra = extra + conversions_s(artefact, [other], found, gpu, entry.runtime)
    whole = artefact.doubt(features, name, device, extra / (gemm + extra))
    doubt = whole.of_part(gemm / (gemm + extra))
    left = np.maximum(entry.median_us * 1e-6 - extra, LEAST_GEMM * gemm)
    return GemmSample(
        runtime=name,
        features=tuple(map(float, features[0])),
        log_ratio=float(np.log(left[0] / gemm[0])),
        low=float(doubt.low[0]),
        high=float(doubt.high[0]),
        device_sd=float(doubt.device_sd[0]),
        noise_sd=float(doubt.noise_sd[0]),
    )


def kernel_shift(
    artefact: GpuArtefact, device: Device, kernels: Sequence[Kernel], runtime: str
) -> tuple[Floats, Floats]:
    """log(measured / skeleton) as measurements of the kind say, and how much doubt they leave."""
    samples = [one for one in _samples(artefact, device) if one.kind == kernels[0].kind]
    if not samples:
        return np.zeros(len(kernels)), np.ones(len(kernels))
    posterior = kernel_correction(samples, kernels, runtime)
    return posterior.mean, posterior.width * _calibration(artefact, device)


@cache
def _calibration(artefact: GpuArtefact, device: Device) -> float:
    """The factor that intervals need, from samples of all kinds: one kind has too few."""
    by_kind: dict[str, list[KernelSample]] = {}
    for one in _samples(artefact, device):
        by_kind.setdefault(one.kind, []).append(one)
    left_out = [kernel_correction(samples, (), "").scores for samples in by_kind.values()]
    return calibration(np.concatenate(left_out))


@cache
def _samples(artefact: GpuArtefact, device: Device) -> tuple[KernelSample, ...]:
    """Errors of the model on measured operators that are one kernel and no library's GEMM."""
    gpu = GpuFigures.of(device)
    found = []
    for entry in device.measurements:
        kernel, *others = measured_kernels(entry, device)
        learned = kernel.kind == "gemm" and not is_tuned(kernel, load_runtime(entry.runtime))
        if others or learned:
            continue
        predicted, reach = _without_samples(artefact, kernel, device, gpu, entry.runtime)
        found.append(
            KernelSample(
                kind=kernel.kind,
                name=kernel_name(kernel, entry.runtime),
                size=kernel_size(kernel),
                log_ratio=float(np.log(entry.median_us * 1e-6 / predicted)),
                reach=reach,
            )
        )
    return tuple(found)


def _without_samples(
    artefact: GpuArtefact, kernel: Kernel, device: Device, gpu: GpuFigures, runtime: str
) -> tuple[float, float]:
    """Seconds of a kernel, and how far they may be off in log units."""
    software = load_runtime(runtime)
    if is_tuned(kernel, software):
        found = tuned_forecast(load_tuned(), [kernel], device)
        return float(found.latency_s[0]), float((found.high - found.low)[0] / 2)
    if is_paged(kernel, device, software):
        found = forecast(load_attention(), [kernel], device, software, artefact.constants)
        return float(found.latency_s[0]), float((found.high - found.low)[0] / 2)
    terms = TERMS[kernel.kind]([kernel], device, gpu, artefact.constants)
    return float(terms.latency_s[0]), kernel_reach(device)
