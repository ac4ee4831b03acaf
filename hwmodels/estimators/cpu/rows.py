"""Elementwise and row-wise kernels: instructions of an element beside the bytes that move."""

from __future__ import annotations

import math

from hwmodels.estimators.cpu.constants import ANY_INSTRUCTIONS, CONVERT, MAP_INSTRUCTIONS
from hwmodels.estimators.cpu.demand import Demand
from hwmodels.estimators.cpu.family import element_of, family_of
from hwmodels.estimators.cpu.processor import Processor
from hwmodels.estimators.cpu.product import temperatures, vector_rate
from hwmodels.formats.quantizer import Format
from hwmodels.work.kernel import Kernel
from hwmodels.work.loops import MapLoops, RowLoops

PIECE = 1024
"""Elements of the smallest part that a core is given."""
FLOAT_BITS = 32


def rows_demand(kernel: Kernel, processor: Processor) -> Demand:
    """The demand of a kernel that multiplies nothing."""
    elements = elements_of(kernel)
    instructions = _instructions(kernel, processor)
    factor = processor.factor("compute", family_of(kernel), element_of(kernel))
    cold, warm = temperatures(kernel)
    loops = kernel.loops
    rows = loops.rows if isinstance(loops, RowLoops) and kernel.kind == "rowwise" else 0
    return Demand(
        core_s=elements * instructions / vector_rate(processor) * factor,
        pieces=rows or math.ceil(elements / PIECE),
        whole_share=0.0 if rows else min(PIECE / max(elements, 1.0), 1.0),
        cold=cold,
        warm=warm,
    )


def elements_of(kernel: Kernel) -> float:
    """Elements that a kernel reads or writes, whichever are more; those of windows each."""
    loops = kernel.loops
    if isinstance(loops, MapLoops):
        places = loops.images * loops.channels * math.prod(loops.out_size)
        return float(places * math.prod(loops.window))
    read = _count(kernel.input_bytes + kernel.other_bytes, kernel.input_format)
    return max(read, _count(kernel.write_bytes, kernel.output_format))


def _count(bytes_: int, stored: Format | None) -> float:
    bits = FLOAT_BITS if stored is None else stored.element.bits
    return bytes_ * 8 / bits


def _instructions(kernel: Kernel, processor: Processor) -> float:
    known = processor.constants.instructions
    found = known.get(kernel.detail) or known.get(kernel.kind)
    if found is None:
        found = MAP_INSTRUCTIONS if isinstance(kernel.loops, MapLoops) else ANY_INSTRUCTIONS
    for stored in (kernel.input_format, kernel.output_format):
        if stored is not None and stored.element.bits < FLOAT_BITS:
            found += CONVERT  # computed in float32, whatever is stored
    return found
