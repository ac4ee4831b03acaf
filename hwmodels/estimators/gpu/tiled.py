"""Products by kernels of one small tile, which read their operands again and again.

A block computes tm x tn outputs along all of K. Nobody shares what it reads, so that every tn
columns read the activation again, and every tm rows the weights:

    t = t_launch + (n_0 + n_k K) / f
        + max(D / (e_d W_dram), (ceil(N/tn) X + ceil(M/tm) V) / (e_c W_cache), 2 M N K / (e R))

X and V the bytes of activation and weights, D what comes from main memory. With 16 x 8 outputs
(torch's `_weight_int4pack_mm`) the activation's way through the cache is what rules from M = 4 on.

Source: aten/src/ATen/native/cuda/int4mm.cu (`tinygemm_m16n8k16_chunk_kernel`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwmodels.estimators.gpu.constants import SkeletonConstants
from hwmodels.estimators.gpu.skeleton import Floats, GpuFigures, Terms, dram_traffic

RAMP_CYCLES = 1930
STEP_CYCLES = 1.39
"""Per element of K that a block walks along."""
CACHE_EFFICIENCY = 0.48
"""Share of the last-level cache's bandwidth. All three: least mean |log ratio| over the 159 rows
of w4a16 products in `data/h100_torch/ops.csv.gz` (0.08)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TiledGemms:
    """Products as arrays of shape (kernels,)."""

    m: Floats
    n: Floats
    k: Floats
    rows: Floats
    """Outputs of a tile, with `cols`."""
    cols: Floats
    input_bytes: Floats
    """Bytes of the whole operand, as `weight_bytes`."""
    weight_bytes: Floats
    cold_bytes: Floats
    warm_bytes: Floats
    ops: Floats
    ops_per_s: Floats
    """The unit's peak rate times the mode's efficiency."""
    peak_ops_per_s: Floats


def tiled_terms(gemms: TiledGemms, gpu: GpuFigures, constants: SkeletonConstants) -> Terms:
    """Latency terms of products by one small tile."""
    across, along = np.ceil(gemms.n / gemms.cols), np.ceil(gemms.m / gemms.rows)
    read = across * gemms.input_bytes + along * gemms.weight_bytes
    cache_s = read / (CACHE_EFFICIENCY * gpu.cache_bytes_per_s)
    dram_bytes = dram_traffic(gemms.cold_bytes, gemms.warm_bytes, gpu, constants)
    dram_s = dram_bytes / (constants.dram_efficiency * gpu.dram_bytes_per_s)
    compute_s = gemms.ops / (constants.compute_efficiency * gemms.ops_per_s)
    fixed = gpu.launch_s + (RAMP_CYCLES + STEP_CYCLES * gemms.k) / gpu.clock_hz
    light = np.maximum(
        gemms.ops / gemms.peak_ops_per_s, dram_bytes / gpu.dram_bytes_per_s
    )  # fmt: skip
    latency = fixed + np.maximum(np.maximum(compute_s, cache_s), dram_s)
    waves = np.ceil(across * along / gpu.cores)
    return Terms(
        latency_s=np.maximum(latency, light),
        compute_s=compute_s,
        cache_s=cache_s,
        dram_s=dram_s,
        fixed_s=fixed,
        light_s=light,
        dram_bytes=dram_bytes,
        waves=waves,
        fill=across * along / (waves * gpu.cores),
    )
