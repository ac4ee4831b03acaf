"""Convolutions as implicit GEMMs; depthwise ones as streams over the vector unit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hwmodels.estimators.gpu.constants import SkeletonConstants
from hwmodels.estimators.gpu.skeleton import Floats, Gemms, GpuFigures, Terms, gemm_terms

MATRIX_CHANNELS = 8
"""Channels that a matrix unit takes at a time (16 bytes of 16-bit ones, cuDNN's alignment for
tensor cores); a group with fewer output channels has no use for the unit."""

TILE_CHANNELS = 128
"""Output channels of a tile of the implicit-GEMM kernels; fewer leave a part of it idle (64 of
them reach 0.6 of the rate of 128: `data/h100_torch`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolutions:
    """Convolutions as arrays of shape (kernels,)."""

    gemms: Gemms
    """B groups, M output pixels, N output channels of a group, K channels x taps."""
    taps: Floats
    fp32: Floats
    """1 where the operands are 32 bit, which need no alignment, else 0."""


def convolution_terms(
    convolutions: Convolutions, gpu: GpuFigures, constants: SkeletonConstants
) -> Terms:
    """Implicit GEMMs at their own efficiency and ramp; one tap is a plain GEMM's ramp.

    In fp32 (without TF32) nothing splits K: a block's walk along it is the least time.
    """
    gemms, taps = convolutions.gemms, np.maximum(convolutions.taps, 1)
    figures = constants.convolution
    channels = gemms.k / taps
    shallow = gemms.n < MATRIX_CHANNELS
    narrow = convolutions.fp32 == 0
    unaligned = narrow & (np.mod(channels, MATRIX_CHANNELS) != 0)
    filled = np.where(narrow, np.minimum(gemms.n / TILE_CHANNELS, 1.0), 1.0)
    share = np.where(unaligned, figures.unaligned_efficiency, figures.efficiency * filled)
    share = np.where(narrow, share, figures.fp32_efficiency)
    ramp = np.where(taps > 1, figures.ramp_cycles, constants.ramp_cycles)
    ramp = np.where(unaligned, figures.unaligned_ramp_cycles, ramp)
    ramp = np.where(narrow, ramp, figures.fp32_ramp_cycles) / gpu.clock_hz
    deep = gemm_terms(
        replace(gemms, ops_per_s=gemms.ops_per_s * share),
        gpu,
        replace(constants, compute_efficiency=1.0, ramp_cycles=0.0),
    )
    serial_s = np.where(narrow, 0.0, gemms.k * figures.fp32_step_cycles / gpu.clock_hz)
    deep_s = np.maximum(deep.latency_s - max(gpu.launch_s, 0.0), serial_s) + ramp
    ops = 2 * gemms.batch * gemms.m * gemms.n * gemms.k
    vector_s = ops / (gpu.vector_ops_per_s * figures.depthwise_efficiency)
    dram_s = deep.dram_bytes / (gpu.dram_bytes_per_s * figures.dram_efficiency)
    fixed = gpu.launch_s + figures.depthwise_ramp_cycles / gpu.clock_hz
    shallow_s = np.maximum(vector_s, dram_s) + fixed
    light = np.where(shallow, deep.dram_bytes / gpu.dram_bytes_per_s, deep.light_s)
    return replace(
        deep,
        latency_s=np.maximum(np.where(shallow, shallow_s, deep_s), light),
        compute_s=np.where(shallow, vector_s, deep.compute_s),
        fixed_s=np.where(shallow, fixed, deep.fixed_s - gpu.launch_s + ramp),
        light_s=light,
    )
