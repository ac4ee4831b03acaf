"""Attention of serving runtimes: keys and values in a paged cache, one call with its update.

Rows are queries of one key head: all query heads that share it, where the kernel packs them. A
block is at most `ROWS` of them; it walks along `KEYS` keys a step. With c cores, clock f, rate R:

    blocks = B H_kv ceil(rows / ROWS),  steps = ceil(keys seen / KEYS)
    s = splits along the keys, where blocks leave cores idle and there is one query
    t_step = max(4 i KEYS d / (e R / c), i KEYS / (16 e_x f)),   i the rows that the unit computes
    t_compute = max(blocks steps' t_step / c, ceil(steps / s) max(t_step, n_k / f))
    t_memory = D / min(e_d W_dram, a) + H / min(max(e_h W_cache, e_d W_dram), a)
    t = max(t_launch, n_0 / f) + n_b max(blocks s / c, 1) / f + [s > 1] n_s / f
        + |(t_compute, t_memory)|_p

steps' leaves out what a mask hides. Exponentials are as slow as products where heads are shallow
(Shah et al. 2024, "FlashAttention-3", section 3): 16 a core and cycle (CUDA C++ Programming
Guide, "Throughput of Native Arithmetic Instructions"). n_k is what a step waits for keys that a
block alone cannot hide, n_b what a block begins and ends with. All times in seconds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hwmodels.estimators.gpu.constants import SkeletonConstants
from hwmodels.estimators.gpu.skeleton import Floats, GpuFigures, Terms, dram_traffic, joined

ROWS = 128
KEYS = 128
MOST_SPLITS = 64
EXPONENTIALS = 16
"""Of one core in a cycle."""
FLOOR = 1e-2
FEATURES = (
    "compute_share", "memory_share", "fixed_share", "blocks_share", "light_share", "exponentials",
    "waves", "fill", "splits", "queries", "reach", "depth", "batch", "kv_heads", "group",
    "cache_width", "footprint", "causal", "windowed",
)  # fmt: skip
"""Shares are logarithms of a term over the skeleton's latency; counts are logarithms, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PagedConstants:
    """Efficiencies and latencies of one phase."""

    efficiency: float = 0.75
    """Share of the matrix unit's rate."""
    exponential_efficiency: float = 1.0
    ramp_cycles: float = 9000.0
    """Of a call: launch, update of the cache, fill and drain."""
    block_cycles: float = 3000.0
    step_cycles: float = 4500.0
    split_cycles: float = 4000.0
    """Joining the parts of split keys."""
    dram_efficiency: float = 0.85
    cache_efficiency: float = 0.5
    core_bytes_per_cycle: float = 64.0
    overlap: float = 2.0

    def to_json(self) -> dict[str, Any]:
        """Plain numbers by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PagedAttentions:
    """Calls of one phase as arrays of shape (calls,)."""

    batch: Floats
    heads: Floats
    kv_heads: Floats
    queries: Floats
    keys: Floats
    reach: Floats
    """Keys of the query that sees most."""
    depth: Floats
    macs: Floats
    """Unmasked ones."""
    cache_width: Floats
    """Bytes of an element of the cache, its share of scales included."""
    cold_bytes: Floats
    warm_bytes: Floats
    causal: Floats
    packs: Floats
    """1 where query heads of a key head are one block's rows and keys may be split, else 0."""
    ops_per_s: Floats
    peak_ops_per_s: Floats

    @property
    def windowed(self) -> Floats:
        """1 where queries see only the last keys, else 0."""
        return np.asarray(self.reach < self.keys, dtype=float)

    @property
    def group(self) -> Floats:
        """Query heads of a key head."""
        return self.heads / np.maximum(self.kv_heads, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Blocks:
    """The cut of calls into blocks of rows and steps along keys."""

    count: Floats
    rows: Floats
    """Rows that the unit computes for one block."""
    steps: Floats
    splits: Floats
    seen: Floats
    """Steps of a block on average, without what is masked."""

    @classmethod
    def of(cls, calls: PagedAttentions, gpu: GpuFigures) -> _Blocks:
        """Blocks of calls on a GPU."""
        packs = calls.packs > 0
        rows = np.where(packs, calls.queries * calls.group, calls.queries)
        heads = np.where(packs, calls.kv_heads, calls.heads)
        count = calls.batch * heads * np.ceil(rows / ROWS)
        unit = gpu.instruction_rows
        steps = np.ceil(np.maximum(calls.reach, 1) / KEYS)
        one = calls.queries == 1
        idle = np.clip(np.floor(gpu.cores / count), 1, np.minimum(steps, MOST_SPLITS))
        pairs = calls.macs / (2 * calls.batch * calls.heads * calls.depth * calls.queries)
        share = np.clip(pairs / (steps * KEYS), 0.0, 1.0)
        # The last step of a block is computed whole, masked or not.
        seen = np.where(one, np.maximum(steps * share, 1), np.minimum(steps * share + 0.5, steps))
        return cls(
            count=count,
            rows=np.minimum(np.ceil(np.minimum(rows, ROWS) / unit) * unit, ROWS),
            steps=steps,
            splits=np.where(packs & one, idle, 1.0),
            seen=seen,
        )


def paged_terms(
    calls: PagedAttentions,
    gpu: GpuFigures,
    constants: PagedConstants,
    skeleton: SkeletonConstants,
) -> tuple[Terms, Floats]:
    """Latency terms of calls, and their features, shape (calls, features)."""
    blocks = _Blocks.of(calls, gpu)
    rate = constants.efficiency * calls.ops_per_s / gpu.cores
    product_s = 4 * blocks.rows * KEYS * calls.depth / rate
    vector = EXPONENTIALS * constants.exponential_efficiency * gpu.clock_hz
    exponential_s = blocks.rows * KEYS / vector
    step_s = np.maximum(product_s, exponential_s)
    longest = np.ceil(blocks.steps / blocks.splits)
    alone_s = longest * np.maximum(step_s, constants.step_cycles / gpu.clock_hz)
    compute_s = np.maximum(blocks.count * blocks.seen * step_s / gpu.cores, alone_s)
    at_once = blocks.count * blocks.splits
    dram_bytes = dram_traffic(calls.cold_bytes, calls.warm_bytes, gpu, skeleton)
    cached = calls.cold_bytes + calls.warm_bytes - dram_bytes
    drawn = np.minimum(at_once, gpu.cores) * constants.core_bytes_per_cycle * gpu.clock_hz
    dram = gpu.dram_bytes_per_s * constants.dram_efficiency
    cache = max(gpu.cache_bytes_per_s * constants.cache_efficiency, dram)
    memory_s = dram_bytes / np.minimum(dram, drawn) + cached / np.minimum(cache, drawn)
    slots = at_once / gpu.cores
    blocks_s = np.maximum(slots, 1) * constants.block_cycles / gpu.clock_hz
    ramp_s = max(gpu.launch_s, constants.ramp_cycles / gpu.clock_hz)
    fixed_s = ramp_s + (blocks.splits > 1) * constants.split_cycles / gpu.clock_hz
    light_s = np.maximum(2 * calls.macs / calls.peak_ops_per_s, dram_bytes / gpu.dram_bytes_per_s)
    busy_s = joined((compute_s, memory_s), constants.overlap)
    latency_s = np.maximum(fixed_s + blocks_s + busy_s, light_s)
    waves = np.ceil(slots)
    terms = Terms(
        latency_s=latency_s,
        compute_s=compute_s,
        cache_s=cached / np.minimum(cache, drawn),
        dram_s=dram_bytes / np.minimum(dram, drawn),
        fixed_s=fixed_s + blocks_s,
        light_s=light_s,
        dram_bytes=dram_bytes,
        waves=waves,
        fill=slots / waves,
    )
    shares = [np.log(part / latency_s + FLOOR)
              for part in (compute_s, memory_s, fixed_s, blocks_s, light_s)]  # fmt: skip
    footprint = (calls.cold_bytes + calls.warm_bytes) / max(gpu.cache_bytes, 1.0)
    counts = (
        calls.queries, calls.reach, calls.depth, calls.batch, calls.kv_heads, calls.group,
    )  # fmt: skip
    features = np.stack(
        [
            *shares, exponential_s / step_s, np.log(waves), terms.fill, np.log(blocks.splits),
            *(np.log2(count) for count in counts), calls.cache_width,
            np.log(np.maximum(footprint, 1e-9)), calls.causal, calls.windowed,
        ],
        axis=1,
    )  # fmt: skip
    return terms, features
