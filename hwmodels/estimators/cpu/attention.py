"""Fused attention: two products a block of queries, and the softmax between them."""

from __future__ import annotations

import math

from hwmodels.estimators.cpu.demand import Demand
from hwmodels.estimators.cpu.family import element_of, family_of
from hwmodels.estimators.cpu.processor import Processor
from hwmodels.estimators.cpu.product import temperatures, vector_rate
from hwmodels.work.kernel import Kernel
from hwmodels.work.loops import AttentionLoops

BLOCK = 64
"""Queries of a block, which one core computes: all keys that the last of them sees."""


def attention_demand(kernel: Kernel, processor: Processor) -> Demand:
    """The demand of one call.

    Raises:
        WorkError: Elements that nothing multiplies.
    """
    loops = kernel.loops
    assert isinstance(loops, AttentionLoops), "kernels check their loops"
    macs = kernel.macs * (min(1 + BLOCK / loops.reach, 2.0) if loops.causal else 1.0)
    rate = processor.macs_per_s(processor.instructions(kernel)) * kernel.efficiency
    scores = macs / (2 * loops.depth)
    softmax = scores * processor.constants.instructions["softmax"] / vector_rate(processor)
    cold, warm = temperatures(kernel)
    factor = processor.factor("compute", family_of(kernel), element_of(kernel))
    return Demand(
        core_s=(macs / rate + softmax) * factor,
        pieces=loops.batch * loops.heads * math.ceil(loops.queries / BLOCK),
        cold=cold,
        warm=warm,
        light_s=kernel.macs / rate / processor.cores,
    )
