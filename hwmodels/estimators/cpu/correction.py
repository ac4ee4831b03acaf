"""Operators that were timed on the device correct kernels of their kind: a Gaussian process.

`dse fit` brings the processor's figures to the measurements first (`Cpu.fitted`); what is left is
a smooth function of the size for every kind of kernel and every family of it, as on GPUs
(`hwmodels.estimators.gpu.kernel_correction`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hwmodels.devices.device import Device
from hwmodels.estimators.cpu.family import element_of, family_of
from hwmodels.estimators.cpu.processor import Processor
from hwmodels.estimators.gpu.gemm_correction import calibration
from hwmodels.estimators.gpu.kernel_correction import (
    KernelSample,
    kernel_correction,
    kernel_size,
)
from hwmodels.work.kernel import Kernel

LEAST_WIDTH = 0.8
"""Share of the interval that samples leave: kernels of one family differ by as much, whatever
their size (`studies/cpu_latency`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """Factors on a kernel's time, and on the corrected time for the interval's ends."""

    factor: float
    low: float
    high: float


def corrections(
    samples: Sequence[KernelSample], kernels: Sequence[Kernel], processor: Processor
) -> list[Correction]:
    """The corrections of kernels, given what was timed."""
    constants = processor.constants
    found = [Correction(factor=1.0, low=1 / constants.low, high=constants.high)] * len(kernels)
    scale = _calibration(tuple(samples)) if samples else 1.0
    for kind in dict.fromkeys(kernel.kind for kernel in kernels):
        alike = [one for one in samples if one.kind == kind]
        if not alike:
            continue
        places = [index for index, kernel in enumerate(kernels) if kernel.kind == kind]
        chosen = [kernels[index] for index in places]
        names = [sample_name(kernel, processor.runtime) for kernel in chosen]
        posterior = kernel_correction(alike, chosen, processor.runtime, names=names)
        for place, mean, width in zip(places, posterior.mean, posterior.width, strict=True):
            found[place] = Correction(
                factor=float(np.exp(mean)),
                low=float(constants.low ** -max(width * scale, LEAST_WIDTH)),
                high=float(constants.high ** max(width * scale, LEAST_WIDTH)),
            )
    return found


def sample_of(
    kernel: Kernel, measured_s: float, predicted_s: float, processor: Processor
) -> KernelSample:
    """A timed kernel, as the process learns from it."""
    return KernelSample(
        kind=kernel.kind,
        name=sample_name(kernel, processor.runtime),
        size=kernel_size(kernel),
        log_ratio=float(np.log(measured_s / predicted_s)),
        reach=float(np.log(processor.constants.high)),
    )


def sample_name(kernel: Kernel, runtime: str) -> str:
    """The same for one kernel at all sizes: family, element, runtime."""
    return f"{family_of(kernel)}/{element_of(kernel)}/{runtime}"


@lru_cache(maxsize=64)
def _calibration(samples: tuple[KernelSample, ...]) -> float:
    """The factor that intervals need, from samples of all kinds: one kind has too few."""
    by_kind: dict[str, list[KernelSample]] = {}
    for one in samples:
        by_kind.setdefault(one.kind, []).append(one)
    left_out = [kernel_correction(found, (), "").scores for found in by_kind.values()]
    return calibration(np.concatenate(left_out))


@lru_cache(maxsize=256)
def processor_of(device: Device, runtime: str) -> Processor:
    """A device's figures under a runtime."""
    return Processor.of(device, runtime)
