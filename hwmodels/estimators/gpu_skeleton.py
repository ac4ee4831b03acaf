"""The analytic skeleton of GPU latency: tiles, waves, caches, launch; vectorised over kernels.

A GEMM is cut into tiles of tm x tn outputs and s slices of K. With c cores at clock f and peak
rate R (op/s):

    tiles = B ceil(M/tm) ceil(N/tn) s,  waves = ceil(tiles/c)
    t_compute = waves * 2 max(tm, 64) tn ceil(K/s) / (e_c R / c)
    t_cache   = waves * (tm b_in + tn b_w) ceil(K/s) / (e_t W_cache / c)
    t_memory  = D / min(e_d W_dram, a) + H / min(e_h W_cache, a),  a = min(tiles, c) w f
    t_split   = [s > 1] (n_r / f + 8 s M N B / W_cache)
    t = t_launch + n_0 / f + min over tm, tn, s of
            max(t_compute, t_cache, t_memory) + t_split + n_k ceil(K/s) / f

a library's heuristic is taken to find the best configuration. D is what main memory moves: cold
operands (weights, caches) once, and of the warm ones (activations) what the last-level cache
cannot hold; H is the rest. All times in seconds, sizes in bytes or elements. Latencies count in
cycles, which is what carries over from one GPU to the next. Valid for GPUs with matrix units and a
shared last-level cache; constants are fitted by `python -m hwmodels.fit` (`studies/gpu_latency`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwmodels.device import Device

Floats = NDArray[np.float64]

TILES = (
    (16, 32), (16, 64), (16, 128), (32, 64), (32, 128), (64, 32), (64, 64), (64, 128), (64, 256),
    (128, 64), (128, 128), (128, 256), (256, 64), (256, 128),
)  # fmt: skip
SPLITS = (1, 2, 4, 8, 16)
LEAST_SLICE = 64
"""Elements of K below which no library splits further."""
# Rows that a tensor-core instruction computes at least (wgmma: m64); smaller tiles waste the rest.
INSTRUCTION_ROWS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SkeletonConstants:
    """Efficiencies and latencies that no datasheet has.

    The GEMM constants were fitted by `python -m hwmodels.fit` to the 16-bit GEMM tables of four
    GPUs (least mean |log ratio|, devices weighted equally); attention, convolutions and moves to
    one H100 (`studies/gpu_latency`).
    """

    compute_efficiency: float = 0.70
    tile_efficiency: float = 7.0
    """Above 1: clusters and multicast let tiles share what they read."""
    dram_efficiency: float = 0.80
    cache_efficiency: float = 0.60
    core_bytes_per_cycle: float = 70.0
    """What one core draws at most, by its bytes in flight."""
    split_cycles: float = 4300.0
    """The reduction of a split along K."""
    step_cycles: float = 0.8
    """Pipeline latency per element of K that a tile walks along."""
    ramp_cycles: float = 2700.0
    """Fill and drain of a GEMM kernel, beside the launch."""
    resident_share: float = 0.08
    """Share of the last-level cache that is found warm."""
    attention_efficiency: float = 0.48
    attention_ramp_s: float = 4.5e-6
    conv_efficiency: float = 0.53
    conv_ramp_s: float = 3.7e-6
    depthwise_efficiency: float = 0.07
    """Share of the vector unit's fp32 rate that a depthwise convolution reaches."""
    row_step_s: float = 3e-10
    """Per element of a row that one block reduces alone."""
    rows_per_core: int = 8
    """Rows (blocks) that one core works on at a time."""


CONSTANTS = SkeletonConstants()

# Share of main-memory bandwidth and launches' ramp of kernels that only move data, by kind:
# least squares over the pointwise and row-wise rows of `data/h100_torch`.
MOVE_EFFICIENCY = {
    "pointwise": 0.92, "rowwise": 0.70, "reduce": 0.72, "embedding": 0.9, "quantize": 0.86,
}  # fmt: skip
DETAIL_EFFICIENCY = {"softmax": 0.42}
"""Kernels that read their rows more than once."""
MOVE_RAMP_S = {
    "pointwise": 0.15e-6, "rowwise": 1.2e-6, "reduce": 1.2e-6, "embedding": 0.6e-6,
    "quantize": 0.35e-6,
}  # fmt: skip


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
        )


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
    ops_per_s: Floats
    """The unit's peak rate times the mode's efficiency."""
    peak_ops_per_s: Floats
    integer: Floats
    """1 where the unit multiplies integers, else 0."""


def dram_traffic(
    cold: Floats, warm: Floats, gpu: GpuFigures, constants: SkeletonConstants
) -> Floats:
    """Bytes of main memory: cold ones once, warm ones as far as the cache overflows."""
    room = gpu.cache_bytes * constants.resident_share
    spilled = warm * np.clip(1 - room / np.maximum(warm, 1.0), 0.0, 1.0)
    return cold + spilled


def gemm_terms(gemms: Gemms, gpu: GpuFigures, constants: SkeletonConstants = CONSTANTS) -> Terms:
    """Latency terms of GEMMs under the best configuration each."""
    dram_bytes = dram_traffic(gemms.cold_bytes, gemms.warm_bytes, gpu, constants)
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
    fixed = gpu.launch_s + constants.ramp_cycles / gpu.clock_hz
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

        Parts: compute, cache, memory, pipeline, the number of waves, how full they are.
        """
        gpu, constants = self.gpu, self.constants
        rows, cols = self.tile
        depth = np.ceil(gemms.k / self.split)
        tiles = gemms.batch * np.ceil(gemms.m / rows) * np.ceil(gemms.n / cols) * self.split
        waves = np.ceil(tiles / gpu.cores)
        rate = constants.compute_efficiency * gemms.ops_per_s / gpu.cores
        compute_s = waves * 2 * max(rows, INSTRUCTION_ROWS) * cols * depth / rate
        tile_bytes = (rows * gemms.input_bytes + cols * gemms.weight_bytes) * depth
        cache = gpu.cache_bytes_per_s
        cache_s = waves * tile_bytes * gpu.cores / (constants.tile_efficiency * cache)
        drawn = np.minimum(tiles, gpu.cores) * constants.core_bytes_per_cycle * gpu.clock_hz
        dram_s = dram_bytes / np.minimum(gpu.dram_bytes_per_s * constants.dram_efficiency, drawn)
        dram_s = dram_s + cached_bytes / np.minimum(cache * constants.cache_efficiency, drawn)
        pipeline_s = depth * constants.step_cycles / gpu.clock_hz
        if self.split > 1:
            outputs = gemms.batch * gemms.m * gemms.n
            pipeline_s = pipeline_s + constants.split_cycles / gpu.clock_hz
            pipeline_s = pipeline_s + 8 * self.split * outputs / cache
            pipeline_s = np.where(depth < LEAST_SLICE, np.inf, pipeline_s)
        total = np.maximum(np.maximum(compute_s, cache_s), dram_s) + pipeline_s
        fill = tiles / (waves * gpu.cores)
        return total, np.stack([compute_s, cache_s, dram_s, pipeline_s, waves, fill])


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """Kernels of one kind that only move data, as arrays of shape (kernels,)."""

    kind: str
    efficiency: Floats
    """Share of main-memory bandwidth: `MOVE_EFFICIENCY` of the kind, or `DETAIL_EFFICIENCY`."""
    rows: Floats
    """Zero where unknown: no serial reduction is charged."""
    cols: Floats
    cold_bytes: Floats
    warm_bytes: Floats


def move_terms(moves: Moves, gpu: GpuFigures, constants: SkeletonConstants = CONSTANTS) -> Terms:
    """Latency terms of kernels that only move data: pointwise, row-wise, reductions, casts."""
    cold, warm = moves.cold_bytes, moves.warm_bytes
    dram_bytes = dram_traffic(cold, warm, gpu, constants)
    dram_s = dram_bytes / (gpu.dram_bytes_per_s * moves.efficiency)
    cache_s = (cold + warm) / gpu.cache_bytes_per_s
    waves = np.ceil(moves.rows / (gpu.cores * constants.rows_per_core))
    reduces = moves.kind in ("rowwise", "reduce")
    serial_s = waves * moves.cols * constants.row_step_s if reduces else np.zeros_like(waves)
    fixed = gpu.launch_s + MOVE_RAMP_S[moves.kind] + np.zeros_like(waves)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Attentions:
    """Attention kernels as arrays of shape (kernels,)."""

    blocks: Floats
    """Independent blocks of 128 query rows."""
    ops: Floats
    longest_block_ops: Floats
    cold_bytes: Floats
    warm_bytes: Floats
    ops_per_s: Floats
    peak_ops_per_s: Floats


def attention_terms(
    attentions: Attentions, gpu: GpuFigures, constants: SkeletonConstants = CONSTANTS
) -> Terms:
    """Latency terms of fused attention.

    Blocks of query rows spread over the cores, keys and values are streamed once; decoding splits
    along the keys, which costs the ramp of a second pass.
    """
    rate = attentions.ops_per_s * constants.attention_efficiency
    per_core = rate / gpu.cores
    compute_s = np.maximum(attentions.ops / rate, attentions.longest_block_ops / per_core)
    dram_bytes = dram_traffic(attentions.cold_bytes, attentions.warm_bytes, gpu, constants)
    dram_s = dram_bytes / (gpu.dram_bytes_per_s * constants.dram_efficiency)
    cache_s = (attentions.cold_bytes + attentions.warm_bytes) / gpu.cache_bytes_per_s
    fixed = gpu.launch_s + constants.attention_ramp_s + np.zeros_like(rate)
    light = np.maximum(
        attentions.ops / attentions.peak_ops_per_s, dram_bytes / gpu.dram_bytes_per_s
    )
    latency = fixed + np.maximum(np.maximum(compute_s, dram_s), cache_s)
    return Terms(
        latency_s=np.maximum(latency, light),
        compute_s=compute_s,
        cache_s=cache_s,
        dram_s=dram_s,
        fixed_s=fixed,
        light_s=light,
        dram_bytes=dram_bytes,
        waves=np.ceil(attentions.blocks / gpu.cores),
        fill=np.ones_like(rate),
    )
