"""Kinship of GPUs: how much of what is known of one device's kernels holds for another's.

What measured times of a device deviate from the skeleton is taken for a Gaussian process over
devices, with the correlation

    k(i, j) = o exp(-|x_i - x_j|^2 / (2 l^2)),   1 for a device and itself

x the binary logarithms of six figures of the device file, l and o those of `LAW`, o only where
the product families differ. The deviation that is to be expected of a device is then the sum
of w_i times that of the devices i that were measured, K w = k; of its variance 1 - w k stays
unknown (simple kriging). A device that was measured has weight 1 and no such doubt, its siblings
have nearly the same, and one that resembles nothing has neither.

l and o are chosen by leaving devices out, nested (`studies/gpu_latency/kinship.py`).

Source: Cressie 1993, "Statistics for Spatial Data", section 3.2 (simple kriging).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwmodels.devices.device import Device
from hwmodels.estimators.gpu.skeleton import GpuFigures

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """The correlation's two constants."""

    reach: float = 2.5
    """l: distance in powers of two, all six figures together, at which it is 0.61."""
    other: float = 0.9
    """o: what another product family leaves of it, and another runtime on one device."""


LAW = Law()
DENSE_ELEMENTS = ("bf16", "fp16", "fp32", "int8")
"""Elements whose rate stands for the unit, the first that the device has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kin:
    """A device as its kernels are compared with those of others."""

    kind: str
    """`gpu`, or `cpu` for a processor that is priced as one."""
    family: str
    instructions: str
    """Family of instruction sets, such as `sm`."""
    figures: tuple[float, ...]
    """Binary logarithms of operations a byte of main memory, bytes of cache a core, clock, cores,
    bandwidth of the cache over that of main memory, operations a cycle of a core."""

    @classmethod
    def of(cls, device: Device) -> Kin:
        """The figures of a device file."""
        gpu = GpuFigures.of(device)
        rates = (device.rate(one, one) for one in DENSE_ELEMENTS)
        peak = next((rate.ops_per_s.value for rate in rates if rate), gpu.vector_ops_per_s)
        figures = (
            peak / gpu.dram_bytes_per_s,
            max(gpu.cache_bytes, 1.0) / gpu.cores,
            gpu.clock_hz,
            gpu.cores,
            gpu.cache_bytes_per_s / gpu.dram_bytes_per_s,
            peak / gpu.cores / gpu.clock_hz,
        )
        return cls(
            kind=device.kind,
            family=device.family,
            instructions=device.architecture.family,
            figures=tuple(float(np.log2(figure)) for figure in figures),
        )


def distance(first: Kin, second: Kin) -> float:
    """Distance of two devices' figures, in powers of two."""
    return float(np.linalg.norm(np.subtract(first.figures, second.figures)))


def likeness(first: Kin, second: Kin, law: Law = LAW) -> float:
    """Correlation of what the kernels of two devices deviate from the skeleton, in [0, 1].

    Processors have nothing in common with GPUs.
    """
    if first.kind != second.kind:
        return 0.0
    family = 1.0 if first.family == second.family else law.other
    return family * float(np.exp(-0.5 * (distance(first, second) / law.reach) ** 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Shares of measured devices in what another one deviates."""

    weights: Floats
    """Of each device's deviation, shape (devices,); may be below 0 for one behind another."""
    doubt: float
    """Share of the variance that they don't tell, in [0, 1]."""


def shares(
    device: Kin, known: Sequence[Kin], runtimes: Sequence[bool], law: Law = LAW
) -> Shares:  # fmt: skip
    """The shares of `known` devices in a kernel's deviation on a device.

    `runtimes` says which of them were measured with the kernel's runtime; others count as if they
    were less related. Devices of an instruction set that nobody measured are in doubt whatever
    their figures.
    """
    if not known:
        return Shares(weights=np.zeros(0), doubt=1.0)
    with_runtime = np.where(runtimes, 1.0, law.other)
    between = np.array([[likeness(a, b, law) for b in known] for a in known])
    between *= np.outer(with_runtime, with_runtime)
    np.fill_diagonal(between, 1.0)
    across = np.array([likeness(device, one, law) for one in known]) * with_runtime
    weights = np.linalg.solve(between, across)
    foreign = all(device.instructions != one.instructions for one in known)
    doubt = 1.0 if foreign else float(np.clip(1 - weights @ across, 0.0, 1.0))
    return Shares(weights=weights, doubt=doubt)
