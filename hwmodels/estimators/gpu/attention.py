"""Fused attention: blocks of queries spread over the cores, keys and values streamed once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwmodels.estimators.gpu.constants import SkeletonConstants
from hwmodels.estimators.gpu.skeleton import Floats, GpuFigures, Terms, dram_traffic

QUERY_BLOCK = 128
"""Query rows that one block of a fused attention kernel works on (FlashAttention 2 and 3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attentions:
    """Attention kernels as arrays of shape (kernels,)."""

    batch: Floats
    heads: Floats
    kv_heads: Floats
    queries: Floats
    keys: Floats
    depth: Floats
    ops: Floats
    cold_bytes: Floats
    warm_bytes: Floats
    kv_bytes: Floats
    """Bytes of keys and values."""
    ops_per_s: Floats
    peak_ops_per_s: Floats
    fp32: Floats
    """1 where the operands are 32 bit, else 0."""

    @property
    def decodes(self) -> Floats:
        """1 where there is one query: all query heads of a key head are one block."""
        return np.asarray(self.queries == 1, dtype=float)


def attention_terms(
    attentions: Attentions, gpu: GpuFigures, constants: SkeletonConstants
) -> Terms:
    """Latency terms of fused attention.

    t = t_launch + n_0 / f + max(ops / (e_a R), longest block on one core, D / (e_d W_dram)).
    Decoding splits along the keys. In fp32 nothing does, there are no tensor cores, and keys and
    values are repeated in memory where several query heads share them (PyTorch's kernels).
    """
    figures = constants.attention
    fp32 = attentions.fp32
    efficiency = np.where(fp32, figures.fp32_efficiency, figures.efficiency)
    rate = attentions.ops_per_s * efficiency
    compute_s = np.maximum(
        attentions.ops / rate, _longest_block_ops(attentions) * gpu.cores / rate
    )
    compute_s = np.maximum(
        compute_s, fp32 * attentions.keys * figures.fp32_step_cycles / gpu.clock_hz
    )
    dram_bytes = dram_traffic(attentions.cold_bytes, attentions.warm_bytes, gpu, constants)
    group = attentions.heads / np.maximum(attentions.kv_heads, 1)
    repeated = fp32 * (group > 1) * figures.fp32_expansions * group * attentions.kv_bytes
    dram_s = (dram_bytes + repeated) / (gpu.dram_bytes_per_s * figures.dram_efficiency)
    cache_s = (attentions.cold_bytes + attentions.warm_bytes) / gpu.cache_bytes_per_s
    fixed = gpu.launch_s + figures.ramp_cycles / gpu.clock_hz + np.zeros_like(rate)
    light = np.maximum(
        attentions.ops / attentions.peak_ops_per_s, dram_bytes / gpu.dram_bytes_per_s
    )
    latency = fixed + np.maximum(np.maximum(compute_s, dram_s), cache_s)
    slots = _blocks(attentions) / gpu.cores
    waves = np.ceil(slots)
    splits = (attentions.decodes > 0) & (fp32 == 0)
    return Terms(
        latency_s=np.maximum(latency, light),
        compute_s=compute_s,
        cache_s=cache_s,
        dram_s=dram_s,
        fixed_s=fixed,
        light_s=light,
        dram_bytes=dram_bytes,
        waves=waves,
        fill=np.where(splits, 1.0, slots / waves),
    )


def _blocks(attentions: Attentions) -> Floats:
    group = np.maximum(attentions.heads / np.maximum(attentions.kv_heads, 1), 1)
    rows = np.where(attentions.decodes, group, attentions.queries)
    heads = np.where(attentions.decodes, attentions.kv_heads, attentions.heads)
    return np.asarray(attentions.batch * heads * np.ceil(rows / QUERY_BLOCK))


def _longest_block_ops(attentions: Attentions) -> Floats:
    rows = np.minimum(attentions.queries, QUERY_BLOCK)
    whole = 4 * rows * attentions.keys * attentions.depth
    return np.asarray(np.where(attentions.decodes, 0.0, whole))
