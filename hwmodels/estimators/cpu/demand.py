"""Demands of a kernel on a processor: work of one core, bytes, and pieces to share.

    t(c) = t_call + [c > 1] t_fork + |(w i(c)/c, m(c))|_p + s(c)      t = min(t(1), t(all cores))

w is the time of one core without waiting, i(c)/c the share of it that the busiest core has, m
that of the operands' bytes (`memory`), s that of what is packed, unfolded or converted first.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwmodels.estimators.cpu.memory import memory_s
from hwmodels.estimators.cpu.processor import Processor


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A kernel, as one core would execute it."""

    core_s: float
    """Of computing, on one core."""
    pieces: int = 1
    """Parts that cores can share."""
    whole_share: float = 0.0
    """Share of `core_s` of a part that is no tail; 0 where all are alike."""
    cold: float = 0.0
    """Bytes that come from main memory."""
    warm: float = 0.0
    """Bytes of the working set that was just written, read or will be written."""
    again: float = 0.0
    """Bytes of the second operand that further blocks of rows read."""
    staged: float = 0.0
    """Bytes that are written and read in between: packed, unfolded, converted."""
    prepared_s: float = 0.0
    """Of making them, on one core."""
    packed_s: float = 0.0
    """Of bringing weights into a kernel's layout, on one core."""
    light_s: float = 0.0
    """The least that the instructions take, on all cores."""

    def share(self, threads: int) -> float:
        """Share of `core_s` that the busiest of so many cores has."""
        pieces = max(self.pieces, 1)
        busiest = -(-pieces // threads) * (self.whole_share or 1 / pieces)
        return max(min(busiest, 1.0), 1 / threads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds of a kernel by cause."""

    latency_s: float
    compute_s: float
    memory_s: float
    fixed_s: float


def timing_of(demand: Demand, processor: Processor, call_factor: float = 1.0) -> Timing:
    """The faster of one core and all cores."""
    alone = _on(1, demand, processor, call_factor)
    if processor.cores == 1:
        return alone
    together = _on(processor.cores, demand, processor, call_factor)
    return min(alone, together, key=lambda one: one.latency_s)


def _on(threads: int, demand: Demand, processor: Processor, call_factor: float) -> Timing:
    computing = demand.core_s * demand.share(threads)
    moving = memory_s(demand.cold, demand.warm, processor, threads)
    moving += memory_s(0.0, demand.again, processor, threads)
    staging = (demand.prepared_s + demand.packed_s) / threads
    staging += memory_s(0.0, demand.staged, processor, threads)
    fixed = processor.call_s * call_factor + (processor.fork_s if threads > 1 else 0.0)
    joined = norm(computing, moving, processor.constants.overlap)
    return Timing(
        latency_s=fixed + joined + staging,
        compute_s=computing + staging,
        memory_s=moving,
        fixed_s=fixed,
    )


def norm(first: float, second: float, exponent: float) -> float:
    """(first ** p + second ** p) ** (1/p)."""
    largest = max(first, second)
    if largest <= 0:
        return 0.0
    powers = (first / largest) ** exponent + (second / largest) ** exponent
    return float(largest * powers ** (1 / exponent))
