"""Dimensionless features of a GEMM: nothing in them names a device."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwmodels.estimators.gpu.skeleton import Gemms, GpuFigures, Terms

Floats = NDArray[np.float64]

FEATURES = (
    "compute_share", "memory_share", "fixed_share", "wave_fill", "waves", "cache_footprint",
    "balance", "compute_light", "memory_light", "log2_m", "log2_n", "log2_k", "m_remainder",
    "input_bytes", "weight_bytes", "integer", "cold",
)  # fmt: skip
"""Shares are logarithms of a term over the skeleton's latency; `balance` is the logarithm of
compute over memory at the speed of light; sizes are counts; bytes are those of an element."""
FLOOR = 1e-2
"""Added to shares, so that a term that does not matter is just small."""


def gemm_features(gemms: Gemms, terms: Terms, gpu: GpuFigures) -> Floats:
    """Shape (kernels, features)."""
    moved = gemms.cold_bytes + gemms.warm_bytes
    compute_light = 2 * gemms.batch * gemms.m * gemms.n * gemms.k / gemms.peak_ops_per_s
    memory_light = moved / gpu.dram_bytes_per_s
    latency = terms.latency_s
    return np.stack(
        [
            np.log(terms.compute_s / latency + FLOOR),
            np.log(terms.dram_s / latency + FLOOR),
            np.log(terms.fixed_s / latency + FLOOR),
            terms.fill,
            np.log(terms.waves),
            np.log(np.maximum(moved, 1) / max(gpu.cache_bytes, 1.0)),
            np.log(compute_light / np.maximum(memory_light, 1e-12)),
            np.log(compute_light / latency),
            np.log(memory_light / latency),
            np.log2(gemms.m * gemms.batch),
            np.log2(gemms.n),
            np.log2(gemms.k),
            np.mod(gemms.m, 64) / 64,
            gemms.input_bytes,
            gemms.weight_bytes,
            gemms.integer,
            gemms.cold_bytes / np.maximum(moved, 1),
        ],
        axis=1,
    )
