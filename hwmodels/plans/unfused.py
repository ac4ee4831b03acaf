"""Recognised patterns, or the nodes that they were written as: what a runtime really launches."""

from __future__ import annotations

from dataclasses import replace

from hwmodels.formats.element import is_plain, is_wide
from hwmodels.formats.quantizer import Quantizer
from hwmodels.plans.math_attention import EXPANDED_MASK
from hwmodels.runtimes.runtime import Runtime
from hwmodels.work.work import Op, RegionWork

HALF = 16
"""Bits of a float as it is deployed."""


def as_run(region: RegionWork, runtime: Runtime) -> RegionWork:
    """The region with patterns taken apart where the runtime runs a graph as it is written.

    A call that falls back (`math_attention`) is not what its export spells out. A pattern with a
    quantized operand or an accumulator stays whole: a format on an operand of attention asks for
    the fused kernel that takes it. Floats of more than 16 bits are those of every node.
    """
    if not runtime.runs_as_written or not any(op.decomposition for op in region.ops):
        return region
    return replace(region, ops=tuple(part for op in region.ops for part in _parts(op, runtime)))


def _parts(op: Op, runtime: Runtime) -> tuple[Op, ...]:
    quantized = bool(op.accumulator) or any(not is_plain(one.quantizer) for one in op.operands)
    falls_back = op.detail == EXPANDED_MASK and not runtime.takes_expanded_masks
    if quantized or falls_back or not op.decomposition:
        return (op,)
    wide = next((one.quantizer for one in op.operands if is_wide(one.quantizer)), None)
    return tuple(_in_float(part, wide) if wide else part for part in op.decomposition)


def _in_float(op: Op, wide: Quantizer) -> Op:
    """A node whose 16-bit operands have a wider float."""
    return op.requantized({one.name: wide for one in op.operands if one.bits == HALF})
