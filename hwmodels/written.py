"""Recognised patterns, or the nodes that they were written as: what a runtime really launches."""

from __future__ import annotations

from dataclasses import replace

from hwmodels.element import is_plain
from hwmodels.runtime import Runtime
from hwmodels.work import Op, RegionWork


def as_run(region: RegionWork, runtime: Runtime) -> RegionWork:
    """The region with patterns taken apart where the runtime runs a graph as it is written.

    A pattern with a quantized operand stays whole: a format on an operand of attention asks for
    the fused kernel that takes it.
    """
    if not runtime.runs_as_written or not any(op.written for op in region.ops):
        return region
    return replace(region, ops=tuple(part for op in region.ops for part in _parts(op)))


def _parts(op: Op) -> tuple[Op, ...]:
    quantized = any(not is_plain(operand.quantizer) for operand in op.operands)
    return (op,) if quantized or not op.written else op.written
