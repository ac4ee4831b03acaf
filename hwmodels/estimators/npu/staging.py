"""Weights that are copied to the arena before they are read, as Vela's scheduler decides it.

A stream of weights is read from a memory in latency + bytes / channel, once for each block of
places. Where the arena gives them no sooner than the store they stay there. Otherwise they are
tried in slices of output channels, in two buffers by turns, where something of the copy is hidden:

    reads of the copy + what the operation before does not hide < reads from the store,
    or more than two blocks of channels, or weights of several reads whose first 16 channels the
    operation before hides, or those of a first operation, whose first 16 are there in 1,000 cycles

The first slice is what the operation before hides (half of the channels at most where the
operation computes longer than it reads weights), the next ones what the first one hides, in whole
blocks. They are copied if the operation then ends no later, of its computing with the waits for
slices, its reading of weights and of inputs; weights of one read only if copying and reading them
one after the other ends no later, either.

The rule and its figures (`START`, `UNSEEN`, the tenth, two blocks) are those of Vela's scheduler
(`ethosu/regor/compiler/scheduler.cpp`, Apache-2.0), in words of our own; schedules that Vela 5.2
prints (`--verbose-schedule`) say how often ours are the same (`studies/npu_vela`). Room in the
arena is taken to be there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from hwmodels.estimators.npu.system import Side, System
from hwmodels.granules import up

SPLIT = 16
"""Output channels of the smallest first slice."""
START = 1000.0
"""Cycles before a first operation in which it may wait for weights; shorter waits of a slice do
not count where computing takes longer than reading."""
UNSEEN = 500.0
"""Cycles that a slice of a first operation is taken to overlap with the next one."""
HALF = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """An operation over some of its output channels, with its weights in the arena."""

    compute_cycles: float
    """Of the pipeline, with the first read and the last write."""
    read_cycles: float
    """Of its first read, which the slice before hides."""
    write_cycles: float
    """Of its last write, which the next slice hides."""
    input_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The weights of one operation, and what it takes with them here and there."""

    stream_bytes: float
    """With their scales, as they are stored."""
    scale_bytes: float
    """Of the scales among them."""
    channels: int
    """Output channels."""
    block: int
    """Output channels of a block."""
    reads: int
    """Times that blocks read all of them."""
    direct_cycles: float
    """Of computing where they are read from the store."""
    sliced: Callable[[int], Slice]
    """The operation over so many of its channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """Weights in the arena."""

    slices: tuple[int, ...]
    """Output channels of each."""
    early_bytes: float
    """Of the first buffer, which is filled while the operation before runs."""
    held_bytes: float
    """Of the buffers."""
    tail_bytes: float
    """Of the buffer of the last slice, while which the next operation's weights are copied."""
    late_cycles: float
    """Of copying what is copied while the operation runs."""
    arena_cycles: float
    """Of the arena, which is written meanwhile, as Vela counts it: without scales."""
    wait_cycles: float
    """Before the first slice is there, in which nothing is computed."""
    last_cycles: float
    """Of computing the last slice."""


def staging_of(weights: Weights, system: System, slack_cycles: float) -> Staging | None:
    """The staging of an operation's weights; None: they are read from the store.

    Args:
        weights: What there is to copy.
        system: The memories.
        slack_cycles: Cycles of the operation before, in which they can be copied; 0: it is the
            first one.
    """
    stored = weights.reads * _read_cycles(weights.stream_bytes, system.store, system)
    again = weights.reads * _read_cycles(weights.stream_bytes, system.arena, system)
    if again >= stored:
        return None
    copied = _copy_cycles(weights.stream_bytes, system)
    least = copied * min(SPLIT / weights.channels, 1.0)
    first = slack_cycles == 0
    forced = first and weights.reads > 1 and least <= max(stored / 10, START)
    hides = not first and weights.reads > 1 and least < slack_cycles
    late = max(copied - slack_cycles, 0.0)
    blocks = weights.channels // weights.block
    if not (forced or hides or again + late < stored or blocks > 2):
        return None
    computing = weights.direct_cycles > stored
    slices = _slices(weights, min(slack_cycles / copied, 1.0), copied, system, computing=computing)
    runs = [weights.sliced(count) for count in slices]
    cycles = _in_a_row(runs)
    waits = _waits(weights, slices, cycles, system, START if forced else slack_cycles)
    read = _slice_read_cycles(weights, slices, system)
    before = max(weights.direct_cycles, stored)
    inputs = _read_cycles(sum(run.input_bytes for run in runs), system.arena, system, inputs=True)
    seen = waits
    if computing:
        seen = 0.0 if waits // len(slices) < START else waits
        if len(slices) > 1 and forced and not waits:
            seen -= UNSEEN * len(slices)
    longest = max(sum(cycles) + waits, read, inputs)
    after = longest - waits + seen
    if max(before, inputs) < after or (weights.reads == 1 and copied + read > max(before, inputs)):
        return None
    return _staged(weights, slices, cycles[-1], system, slack_cycles)


def _staged(
    weights: Weights, slices: tuple[int, ...], last_cycles: float, system: System, slack: float
) -> Staging:
    a_channel = weights.stream_bytes / weights.channels
    first = a_channel * slices[0]
    sizes = (max(slices[::2]), max(slices[1::2], default=0))
    rest = weights.stream_bytes - first
    return Staging(
        slices=slices,
        early_bytes=a_channel * sizes[0] if slack else 0.0,
        held_bytes=a_channel * sum(sizes),
        tail_bytes=a_channel * sizes[(len(slices) - 1) % 2],
        late_cycles=rest / system.store.channel(system.npu.channels.copy),
        arena_cycles=max(rest - weights.scale_bytes, 0.0) / system.arena.bytes_per_cycle,
        wait_cycles=max(_copy_cycles(first, system) - slack, 0.0),
        last_cycles=last_cycles,
    )


def _slices(
    weights: Weights, share: float, copied: float, system: System, *, computing: bool
) -> tuple[int, ...]:
    """Output channels of each slice, where a share of all can be copied before."""
    channels, granule = weights.channels, system.npu.blocks.depth
    least = min(SPLIT / channels, 1.0)
    if 1 - math.floor(share / least) * least < least / 2:
        share = 1.0
    if computing and HALF < share < 1:
        share = min(max(up(channels // 2, SPLIT) / channels, HALF), 1.0)
    share = max(share, least)
    if share >= 1:
        return (channels,)
    first = max(int(channels * share) // granule * granule, SPLIT)
    if first >= channels:
        return (channels,)
    run = weights.sliced(first)
    hidden = int(channels * (run.compute_cycles - run.write_cycles) / copied)
    then = up(max(hidden, SPLIT), weights.block)
    starts = [0, *range(first, channels, then), channels]
    return tuple(end - start for start, end in pairwise(starts))


def _in_a_row(runs: list[Slice]) -> list[float]:
    """Cycles of slices one after another, whose reads and writes between are hidden."""
    last = len(runs) - 1
    return [
        run.compute_cycles
        - (run.read_cycles if place else 0.0)
        - (run.write_cycles if place < last else 0.0)
        for place, run in enumerate(runs)
    ]


def _waits(
    weights: Weights, slices: tuple[int, ...], cycles: list[float], system: System, slack: float
) -> float:
    """Cycles of copying that neither the operation before nor the slice before hides."""
    waits = 0.0
    for count, own in zip(slices, cycles, strict=True):
        share = weights.stream_bytes * count / weights.channels
        waits += max(_copy_cycles(share, system) - slack, 0.0)
        slack = own
    return waits


def _slice_read_cycles(weights: Weights, slices: tuple[int, ...], system: System) -> float:
    """Cycles of reading weights from the arena, with the latency of each slice."""
    arena = system.arena
    streamed = weights.stream_bytes / arena.channel(system.npu.channels.weight)
    return weights.reads * (len(slices) * arena.port.read_latency + streamed)


def _copy_cycles(count: float, system: System) -> float:
    rate = system.store.channel(system.npu.channels.copy)
    return system.store.port.read_latency + count / rate


def _read_cycles(count: float, side: Side, system: System, *, inputs: bool = False) -> float:
    """Cycles of a stream from a memory, at the most that its channel has under way."""
    channels = system.npu.channels
    rate = side.channel(channels.input if inputs else channels.weight)
    return side.port.read_latency + count / rate
