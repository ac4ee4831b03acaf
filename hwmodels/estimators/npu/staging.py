"""Weights that are copied to the arena before they are read, and the waiting for them.

A compiler copies them while the operation before computes, where copying and reading the copy take
no longer than the operation with its weights read from the store, in which blocks wait for scales:

    copy + again <= direct
    copy   = latency of the store + bytes / channel
    again  = latency of the arena + reads bytes / channel

Where the operation before is too short, output channels are copied in slices to two buffers: the
first as large as it hides, a half at most, the next ones whole blocks. Weights that are read once
stay in the store where little of them is there before (`_in_time`). The operation waits for its
first slice, and takes at least as long as copying the others:

    cycles >= max(0, copy of the first - slack) + compute, bytes of the others / channel

Seen in the schedules that Vela 5.2 prints for chains of fully connected layers on a U65, and for
networks of `studies/npu_vela`, which says how often they are met.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from hwmodels.estimators.npu.system import System

BLOCKS = 3
"""Whole blocks from which on weights that are read once are staged, whatever hides the first."""
HALF = 0.5
"""Share of the weights that is copied before at most, and that is enough where it is."""
OF_TWO = 0.39
"""Share that is enough where two slices are all, or a first one of more than a third: 0.387 was
not, 0.397 was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The weights of one operation, and what it takes with them here and there."""

    stream_bytes: float
    """With their scales, as they are stored."""
    channels: int
    """Output channels."""
    block: int
    """Output channels of a block."""
    reads: int
    """Times that blocks read all of them."""
    direct_cycles: float
    """Of the operation where they are read from the store."""
    reading: bool
    """It waits for the store then, more than it computes."""
    staged_cycles: float
    """Of its computing where all of them are in the arena."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """Weights in the arena."""

    slices: tuple[int, ...]
    """Output channels of each."""
    hidden: bool
    """All of them are there before the operation begins."""
    held_bytes: float
    """Of the buffers."""
    late_cycles: float
    """Of copying what is copied while the operation runs."""
    arena_cycles: float
    """Of the arena, which is written meanwhile."""
    wait_cycles: float
    """Before the first slice is there, in which nothing is computed."""


def staging_of(weights: Weights, system: System, slack_cycles: float) -> Staging | None:
    """The staging of an operation's weights; None: they are read from the store.

    Args:
        weights: What there is to copy.
        system: The memories.
        slack_cycles: Cycles of the operation before, in which they can be copied.
    """
    size, rate = weights.stream_bytes, system.store.channel(system.npu.channels.copy)
    latency = system.store.port.read_latency
    copied = latency + size / rate
    if copied + _again_cycles(weights, system) > weights.direct_cycles:
        return None
    share = slack_cycles / copied
    slices: tuple[int, ...] = (weights.channels,)
    if share < 1:
        slices = _slices(weights, share, copied, system.npu.blocks.depth)
        if weights.reads == 1 and not _in_time(weights, slices, share):
            return None
    first = size * slices[0] / weights.channels
    wait = max(latency + first / rate - slack_cycles, 0.0)
    if weights.reading and wait + weights.staged_cycles > weights.direct_cycles:
        return None
    both = max(slices[::2]) + max(slices[1::2], default=0)
    return Staging(
        slices=slices,
        hidden=share >= 1,
        held_bytes=size * both / weights.channels,
        late_cycles=(size - first) / rate,
        arena_cycles=(size - first) / system.arena.bytes_per_cycle,
        wait_cycles=wait,
    )


def _slices(weights: Weights, share: float, copied_cycles: float, granule: int) -> tuple[int, ...]:
    """Output channels of each slice, where a share of all can be copied before."""
    channels = weights.channels
    if share >= HALF:
        first = -(-channels // (2 * granule)) * granule
    else:
        first = max(int(channels * share / granule), 1) * granule
    block = max(weights.block, granule)
    hides = weights.staged_cycles * first / copied_cycles
    then = max(-int(-hides // block), 1) * block
    starts = [0, *range(first, channels, then), channels]
    return tuple(end - start for start, end in pairwise(starts) if end > start)


def _in_time(weights: Weights, slices: tuple[int, ...], share: float) -> bool:
    """Whether enough is there before: any of many blocks, half of all, or most of one of two."""
    if share >= HALF or weights.channels >= BLOCKS * weights.block:
        return True
    if share == 0 or len(slices) != 2:
        return False
    return share >= OF_TWO or slices[1] < 2 * slices[0]


def _again_cycles(weights: Weights, system: System) -> float:
    arena = system.arena
    streamed = weights.reads * weights.stream_bytes
    return arena.port.read_latency + streamed / arena.channel(system.npu.channels.weight)
