"""Recognised patterns, or the nodes that they were written as: what a runtime really launches."""

from __future__ import annotations

from dataclasses import replace

from hwmodels.formats.element import is_plain
from hwmodels.plans.math_attention import EXPANDED_MASK
from hwmodels.runtimes.runtime import Runtime
from hwmodels.work.work import Op, RegionWork


def as_run(region: RegionWork, runtime: Runtime) -> RegionWork:
    """The region with patterns taken apart where the runtime runs a graph as it is written.

    A call that falls back (`math_attention`) is not what its export spells out. A pattern with a
    quantized operand stays whole: a format on an operand of attention asks for
    the fused kernel that takes it.
    """
    if not runtime.runs_as_written or not any(op.decomposition for op in region.ops):
        return region
    return replace(region, ops=tuple(part for op in region.ops for part in _parts(op, runtime)))


def _parts(op: Op, runtime: Runtime) -> tuple[Op, ...]:
    quantized = any(not is_plain(operand.quantizer) for operand in op.operands)
    falls_back = op.detail == EXPANDED_MASK and not runtime.takes_expanded_masks
    return (op,) if quantized or falls_back or not op.decomposition else op.decomposition
