"""Products that are looked up: rates of shuffles, and of tables that no register holds.

    MACs a cycle = bytes a shuffle looks up / bytes of an entry x products x issue / instructions

as long as a table has the 16 entries of a register. A larger one lies in the nearest cache that
holds it, where each load is one look-up; further out loads are as much slower as bandwidths are.
"""

from __future__ import annotations

from hwmodels.estimators.cpu.processor import Processor
from hwmodels.work.kernel import Kernel
from hwmodels.work.lookup import Lookup
from hwmodels.work.loops import ConvolutionLoops, ProductLoops

REGISTER_ENTRIES = 16
"""Entries that a shuffle of bytes indexes (pshufb, tbl of one register)."""


def lookup_macs_per_s(table: Lookup, processor: Processor) -> float:
    """Multiply-accumulates a second and core that look-ups stand for."""
    cpu = processor.cpu
    if table.entries <= REGISTER_ENTRIES:
        a_cycle = cpu.lookup_bytes / table.entry_bytes * cpu.vector_issue / table.instructions
        return a_cycle * table.products * processor.clock_hz
    nearest = processor.levels[0]
    level = next((one for one in processor.levels if one.capacity_bytes / 2 >= table.table_bytes),
                 processor.main)  # fmt: skip
    slower = min(level.rate(1) / nearest.rate(1), 1.0)
    return processor.constants.table_loads * slower * table.products * processor.clock_hz


def tables_s(kernel: Kernel, processor: Processor) -> float:
    """Seconds of one core for tables of the activations at hand: an addition an entry."""
    table = kernel.lookup
    if table is None or not table.of_activations:
        return 0.0
    loops = kernel.loops
    assert isinstance(loops, ProductLoops | ConvolutionLoops), "products are looked up"
    product = loops.product
    entries = product.batch * product.m * product.k / table.products * table.entries
    return entries * table.entry_bytes / (processor.cpu.vector_bytes * processor.clock_hz)
