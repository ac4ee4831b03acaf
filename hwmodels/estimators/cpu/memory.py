"""Time that a kernel's bytes take, by the level that they lie in.

A working set of w bytes is found in a cache of C up to the share clip((1.2 - w/C)/0.6, 0, 1), as a
last-level cache of a GPU keeps it: hashed sets fill unevenly. What no cache has comes from main
memory, and so does everything cold. More bytes never take less time, more cores never more.
"""

from __future__ import annotations

from hwmodels.estimators.cpu.processor import Processor

RESIDENT, EVICTED = 0.6, 1.2
"""Working set over capacity up to which it is found whole, and from which on it is gone."""


def memory_s(cold: float, warm: float, processor: Processor, threads: int) -> float:
    """Seconds of bytes from main memory, and of bytes that were just used.

    Args:
        cold: Bytes that no cache has.
        warm: Bytes of the working set that was just written or read.
        processor: The processor.
        threads: Cores that draw.
    """
    return sum(level_seconds(cold, warm, processor, threads))


def level_seconds(
    cold: float, warm: float, processor: Processor, threads: int
) -> tuple[float, ...]:
    """The same by level, from the nearest to main memory."""
    left, found = 1.0, []
    for level in processor.levels[:-1]:
        kept = max(found_share(warm, level.holds(threads)) - (1 - left), 0.0)
        found.append(warm * kept * level.factor / level.rate(threads))
        left -= kept
    main = processor.main
    return (*found, (cold + warm * left) * main.factor / main.rate(threads))


def found_share(working_set: float, capacity: float) -> float:
    """Share of a working set that a cache holds."""
    filled = working_set / max(capacity, 1.0)
    return min(max((EVICTED - filled) / (EVICTED - RESIDENT), 0.0), 1.0)


def main_bytes(cold: float, warm: float, processor: Processor) -> float:
    """Bytes of main memory."""
    last = max((level.holds(processor.cores) for level in processor.levels[:-1]), default=0.0)
    return cold + warm * (1 - found_share(warm, last))
