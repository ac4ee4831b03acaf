"""The analytic skeleton of GPU latency: tiles, waves, caches, launch; vectorised over kernels.

A GEMM is cut into tiles of tm x tn outputs and s slices of K. With c cores at clock f and peak
rate R (op/s):

    tiles = B ceil(M/tm) ceil(N/tn) s,  waves = ceil(tiles/c)
    t_compute = waves * 2 max(tm, i) tn ceil(K/s) / (e_c R / c)
    t_tiles   = waves * (tm b_in + tn b_w) ceil(K/s) / (e_t W_cache / c)
    t_memory  = D / min(e_d W_dram, a) + H / min(max(e_h W_cache, e_d W_dram), a),
                a = min(tiles, c) w f
    t_split   = [s > 1] (n_r / f + 8 s M N B / W_cache)
    t = max(t_launch, n_0 / f) + min over tm, tn, s of
            |(t_compute, t_tiles, t_memory)|_p + t_split + n_k ceil(K/s) / f

a library's heuristic is taken to find the best configuration; i rows are the least that an
instruction of the unit computes; the p-norm is between perfect overlap and none. D is what main
memory moves: cold operands (weights, caches) once, and of the warm ones what the last-level cache
has lost since their last use (`kept_share`); H is the rest. All times in seconds, sizes in bytes
or elements. Latencies count in cycles, which is what carries over from one GPU to the next. Valid
for GPUs with matrix units and a shared last-level cache; constants: `constants`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwmodels.devices.device import Architecture, Device
from hwmodels.estimators.gpu.constants import CONSTANTS, SkeletonConstants

Floats = NDArray[np.float64]

TILES = (
    (16, 32), (16, 64), (16, 128), (32, 64), (32, 128), (64, 32), (64, 64), (64, 128), (64, 256),
    (128, 64), (128, 128), (128, 256), (256, 64), (256, 128),
)  # fmt: skip
SPLITS = (1, 2, 4, 8, 16)
LEAST_SLICE = 64
"""Elements of K below which no library splits further."""
# Rows of one tensor-core instruction: wgmma m64 from Hopper on, mma m16 before (PTX ISA, "Matrix
# multiply-accumulate operation"); smaller tiles waste the rest.
WARPGROUP_ARCHITECTURE = 9.0
WARPGROUP_ROWS = 64
WARP_ROWS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFigures:
    """The figures of a device that the skeleton needs."""

    cores: float
    clock_hz: float
    dram_bytes_per_s: float
    cache_bytes_per_s: float
    cache_bytes: float
    launch_s: float
    vector_ops_per_s: float
    instruction_rows: int

    @classmethod
    def of(cls, device: Device) -> GpuFigures:
        """The figures of a device; without a last-level cache main memory stands in for it."""
        main = device.main_memory
        last = device.memory("l3") or device.memory("l2")
        nearest = device.memory("l2") or main
        return cls(
            cores=device.unit("matrix").count.value,
            clock_hz=device.unit("matrix").clock_hz.value,
            dram_bytes_per_s=main.bandwidth_bytes_per_s.value,
            cache_bytes_per_s=nearest.bandwidth_bytes_per_s.value,
            cache_bytes=last.capacity_bytes.value if last else 0.0,
            launch_s=device.launch_s.value,
            vector_ops_per_s=max(r.ops_per_s.value for r in device.unit("vector").rates),
            instruction_rows=_instruction_rows(device.architecture),
        )


def _instruction_rows(architecture: Architecture) -> int:
    wide = architecture.family == "sm" and architecture.version >= WARPGROUP_ARCHITECTURE
    return WARPGROUP_ROWS if wide else WARP_ROWS


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Seconds by cause, each of shape (kernels,)."""

    latency_s: Floats
    compute_s: Floats
    cache_s: Floats
    dram_s: Floats
    fixed_s: Floats
    """Launch, ramp and pipeline latency."""
    light_s: Floats
    """Speed of light: the larger of operations over the peak rate and the bytes that must come
    from main memory over its bandwidth. Nothing is faster."""
    dram_bytes: Floats
    waves: Floats
    fill: Floats
    """Share of the waves' slots that hold a tile, in (0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemms:
    """GEMMs as arrays of shape (kernels,)."""

    batch: Floats
    m: Floats
    n: Floats
    k: Floats
    input_bytes: Floats
    """Bytes of one element of the first operand, as the tile reads it."""
    weight_bytes: Floats
    cold_bytes: Floats
    warm_bytes: Floats
    copied_bytes: Floats
    """The part of `warm_bytes` that has copies: weights in a measurement that cycles through
    several, so that all of them pass between two uses of one."""
    copies: Floats
    ops_per_s: Floats
    """The unit's peak rate times the mode's efficiency."""
    peak_ops_per_s: Floats
    integer: Floats
    """1 where the unit multiplies integers, else 0."""


def kept_share(needed: Floats, gpu: GpuFigures, constants: SkeletonConstants) -> Floats:
    """Share of an operand that the last-level cache still has after `needed` other bytes."""
    filled = needed / max(gpu.cache_bytes, 1.0)
    span = max(constants.evicted_share - constants.resident_share, 1e-3)
    kept: Floats = np.clip((constants.evicted_share - filled) / span, 0.0, 1.0)
    return kept


def dram_traffic(
    cold: Floats, warm: Floats, gpu: GpuFigures, constants: SkeletonConstants
) -> Floats:
    """Bytes of main memory: cold ones once, warm ones as far as the cache has lost them."""
    return cold + warm * (1 - kept_share(warm, gpu, constants))


def gemm_traffic(gemms: Gemms, gpu: GpuFigures, constants: SkeletonConstants) -> Floats:
    """Bytes of main memory of GEMMs, where warm weights may have several copies."""
    once = gemms.warm_bytes - gemms.copied_bytes
    cycled = kept_share(once + gemms.copied_bytes * gemms.copies, gpu, constants)
    kept = kept_share(gemms.warm_bytes, gpu, constants)
    return gemms.cold_bytes + gemms.copied_bytes * (1 - cycled) + once * (1 - kept)


def gemm_terms(gemms: Gemms, gpu: GpuFigures, constants: SkeletonConstants = CONSTANTS) -> Terms:
    """Latency terms of GEMMs under the best configuration each."""
    dram_bytes = gemm_traffic(gemms, gpu, constants)
    cached_bytes = gemms.cold_bytes + gemms.warm_bytes - dram_bytes
    best = np.full(gemms.m.shape, np.inf)
    parts = np.zeros((6, *gemms.m.shape))
    for tile in TILES:
        for split in SPLITS:
            configuration = _Configuration(tile=tile, split=split, gpu=gpu, constants=constants)
            total, found = configuration.seconds(gemms, dram_bytes, cached_bytes)
            better = total < best
            best = np.where(better, total, best)
            parts = np.where(better, found, parts)
    fixed = max(gpu.launch_s, constants.ramp_cycles / gpu.clock_hz)
    light = np.maximum(
        2 * gemms.batch * gemms.m * gemms.n * gemms.k / gemms.peak_ops_per_s,
        dram_bytes / gpu.dram_bytes_per_s,
    )
    return Terms(
        latency_s=np.maximum(best + fixed, light),
        compute_s=parts[0],
        cache_s=parts[1],
        dram_s=parts[2],
        fixed_s=fixed + parts[3],
        light_s=light,
        dram_bytes=dram_bytes,
        waves=parts[4],
        fill=parts[5],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Configuration:
    """One way to cut GEMMs."""

    tile: tuple[int, int]
    split: int
    gpu: GpuFigures
    constants: SkeletonConstants

    def seconds(
        self, gemms: Gemms, dram_bytes: Floats, cached_bytes: Floats
    ) -> tuple[Floats, Floats]:
        """Seconds without launch, shape (kernels,), and their parts, shape (6, kernels).

        Parts: compute, tiles, memory, pipeline, the number of waves, how full they are.
        """
        gpu, constants = self.gpu, self.constants
        rows, cols = self.tile
        depth = np.ceil(gemms.k / self.split)
        tiles = gemms.batch * np.ceil(gemms.m / rows) * np.ceil(gemms.n / cols) * self.split
        waves = np.ceil(tiles / gpu.cores)
        rate = constants.compute_efficiency * gemms.ops_per_s / gpu.cores
        compute_s = waves * 2 * max(rows, gpu.instruction_rows) * cols * depth / rate
        tile_bytes = (rows * gemms.input_bytes + cols * gemms.weight_bytes) * depth
        cache = gpu.cache_bytes_per_s
        tiles_s = waves * tile_bytes * gpu.cores / (constants.tile_efficiency * cache)
        memory_s = self._memory_s(tiles, dram_bytes, cached_bytes)
        pipeline_s = depth * constants.step_cycles / gpu.clock_hz
        if self.split > 1:
            outputs = gemms.batch * gemms.m * gemms.n
            pipeline_s = pipeline_s + constants.split_cycles / gpu.clock_hz
            pipeline_s = pipeline_s + 8 * self.split * outputs / cache
            pipeline_s = np.where(depth < LEAST_SLICE, np.inf, pipeline_s)
        total = joined((compute_s, tiles_s, memory_s), constants.overlap) + pipeline_s
        fill = tiles / (waves * gpu.cores)
        return total, np.stack([compute_s, tiles_s, memory_s, pipeline_s, waves, fill])

    def _memory_s(self, tiles: Floats, dram_bytes: Floats, cached_bytes: Floats) -> Floats:
        gpu, constants = self.gpu, self.constants
        drawn = np.minimum(tiles, gpu.cores) * constants.core_bytes_per_cycle * gpu.clock_hz
        dram = gpu.dram_bytes_per_s * constants.dram_efficiency
        # What is in the cache is never slower to get than what is not.
        cache = max(gpu.cache_bytes_per_s * constants.cache_efficiency, dram)
        seconds: Floats = dram_bytes / np.minimum(dram, drawn)
        return seconds + cached_bytes / np.minimum(cache, drawn)


def joined(parts: tuple[Floats, ...], exponent: float) -> Floats:
    """Seconds of parts that overlap: (sum of parts ** exponent) ** (1 / exponent)."""
    largest = np.maximum.reduce(parts)  # against overflow
    powers = sum((part / largest) ** exponent for part in parts)
    return np.asarray(largest * powers ** (1 / exponent))
