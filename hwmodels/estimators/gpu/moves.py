"""Kernels that only move data: pointwise, row-wise, reductions, look-ups, casts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwmodels.estimators.gpu.constants import MoveConstants, SkeletonConstants
from hwmodels.estimators.gpu.skeleton import Floats, GpuFigures, Terms, dram_traffic

NARROW_BYTES = 2
"""Of the elements that the shares of kernels by element were drawn with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """Kernels as arrays of shape (kernels,)."""

    constants: Sequence[MoveConstants]
    rows: Floats
    """Zero where unknown: no serial reduction is charged."""
    cols: Floats
    widths: Floats
    """Bytes of an element, of those that are read or else written; 0 where there is none."""
    cold_bytes: Floats
    warm_bytes: Floats


def move_terms(moves: Moves, gpu: GpuFigures, constants: SkeletonConstants) -> Terms:
    """Latency terms of kernels that only move data.

    t = t_launch + n_0 / f + max(D / (e W_dram), bytes / (e_c W_cache), waves cols n_s / f),
    waves = ceil(rows / (8 c)): the rows that one core reduces one after the other.
    """
    efficiency, ramp, step, cache = (
        np.array([getattr(one, name) for one in moves.constants])
        for name in ("efficiency", "ramp_cycles", "step_cycles", "cache_efficiency")
    )
    wider = np.where(
        [one.by_element for one in moves.constants], np.maximum(moves.widths / NARROW_BYTES, 1), 1
    )
    dense = constants.moves["pointwise"]
    efficiency = np.maximum(efficiency, np.minimum(efficiency * wider, dense.efficiency))
    cache = np.maximum(cache, np.minimum(cache * wider, dense.cache_efficiency))
    cold, warm = moves.cold_bytes, moves.warm_bytes
    dram_bytes = dram_traffic(cold, warm, gpu, constants)
    dram_s = dram_bytes / (gpu.dram_bytes_per_s * efficiency)
    cache_s = (cold + warm) / (gpu.cache_bytes_per_s * cache)
    waves = np.ceil(moves.rows / (gpu.cores * constants.rows_per_core))
    serial_s = waves * moves.cols * step / gpu.clock_hz
    fixed = gpu.launch_s + ramp / gpu.clock_hz
    light = dram_bytes / gpu.dram_bytes_per_s
    latency = fixed + np.maximum(np.maximum(dram_s, cache_s), serial_s)
    return Terms(
        latency_s=np.maximum(latency, light),
        compute_s=serial_s,
        cache_s=cache_s,
        dram_s=dram_s,
        fixed_s=fixed,
        light_s=light,
        dram_bytes=dram_bytes,
        waves=waves,
        fill=np.ones_like(waves),
    )
