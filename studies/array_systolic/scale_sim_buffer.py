"""SCALE-Sim's own buffers (3.0.0), its faults included.

A variant for comparison alone: no chip works so. Buffers of operands hold a window over the words
in the order of the operand's matrix, in sets of a hundredth of the buffer; a word outside of it
moves the window on by half a buffer, round and round, until the word is in. Each move takes as
long as a full half and a cycle, one after another, whatever is missing. A stall counts twice where
the array waits, and once as a gain where the half is early (`Faults.stalls_twice`). Results drain
half a buffer at a time; the rest of a line that is cut off is a line of its own.

Source: `read_buffer.py`, `write_buffer.py`, `double_buffered_scratchpad_mem.py` of scalesim 3.0.0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.int64]
SETS = 100
"""Sets of a buffer."""
LATENCY = 1
"""Cycles until a word that is there is served, and of a request to main memory."""


@dataclass(frozen=True)
class Faults:
    """What of SCALE-Sim's buffer is no double buffer's."""

    operand_order: bool = True
    """It fetches in the order of the operand's matrix; else of the demands."""
    stalls_twice: bool = True
    """A wait counts twice, and a half that is early shortens the cycle; else a wait counts."""


@dataclass
class OperandBuffer:
    """One operand's two halves, a window over sets of words."""

    sets: list[set[int]]
    active: int
    """Sets of the window."""
    step: int
    """Sets that a move brings."""
    turn: int
    """Cycles of a move."""
    begin: int
    """Cycle of the first request, before the first demand."""
    twice: bool
    start: int = 0
    filled: int = -1
    """Cycle at which the last move is done."""

    @classmethod
    def of(cls, order: Words, cells: int, size: int, rate: int, *, twice: bool) -> OperandBuffer:
        """The buffer of `size` words for words in that order.

        Args:
            order: words as they are fetched.
            cells: of the matrix that is fetched, empty ones included.
            size: words of both halves.
            rate: words a cycle.
            twice: as `Faults.stalls_twice`.
        """
        each, half = math.ceil(size / SETS), math.ceil(size / 2)
        whole = len(order) - len(order) % each
        sets = [set(order[at : at + each].tolist()) for at in range(0, whole, each)]
        sets.append(set(order[whole:].tolist()))
        most = math.ceil(half / each)
        active = min(most, len(sets))
        lines = math.ceil(half / rate)
        return cls(
            sets=sets,
            active=active,
            step=min(math.ceil((size - half) / each), len(sets) - active),
            turn=math.ceil((size - half) / rate) + LATENCY,
            begin=-min(lines, math.ceil(cells / rate)),
            twice=twice,
        )

    def wait(self, line: Iterable[int], cycle: int) -> int:
        """Cycles that a line of demands waits."""
        offset = LATENCY
        for word in line:
            while not self._holds(word):
                self.start = (self.start + self.step) % len(self.sets)
                self.filled += self.turn
                late = self.filled - (cycle + offset)
                offset += max(late, 0)
                if self.twice:
                    offset += late
        return offset - LATENCY

    def _holds(self, word: int) -> bool:
        count = len(self.sets)
        end = (self.start + self.active) % count
        if self.start < end:
            return any(word in self.sets[index] for index in range(self.start, end))
        held = (*range(self.start, count), *range(end))
        return any(word in self.sets[index] for index in held)


@dataclass
class ResultBuffer:
    """Results on their way out: half of them drains while the other half fills."""

    size: int
    rate: int
    free: int = 0
    lines: list[int] = field(default_factory=list)
    """Words of each line that was not drained yet."""
    partial: int = 0
    drained: int = 0
    """Cycle at which the last drain is done."""

    def __post_init__(self) -> None:
        self.free = self.size

    def wait(self, words: int, cycle: int) -> int:
        """Cycles that so many results of a line wait."""
        now, half = cycle, self.size - math.ceil(self.size / 2)
        for _ in range(words):
            self.partial += 1
            self.free -= 1
            if self.partial == self.rate:
                self._close()
            if now < self.drained:
                if self.free <= 0:
                    now = self.drained
            elif self.free < self.size - half:
                self._close()
                self._drain(now, half)
        return now - cycle

    def _close(self) -> None:
        if self.partial:
            self.lines.append(self.partial)
            self.partial = 0

    def _drain(self, now: int, half: int) -> None:
        gone = self.lines[: math.ceil(half / self.rate)]
        del self.lines[: len(gone)]
        # Lines before the last one count as full, though they may be cut off.
        self.free += (len(gone) - 1) * self.rate + gone[-1]
        self.drained = now + len(gone) - 1

    def empty(self, now: int) -> int:
        """The cycle at which everything is out, what is left drained from `now` on."""
        self._close()
        half = self.size - math.ceil(self.size / 2)
        ends = [self.drained]  # a drain that is under way does not hold up the next one
        while self.lines:
            self._drain(now, half)
            ends.append(self.drained)
            now = self.drained + 1
        return max(ends)


def cycles(
    demands: list[Words],
    operands: list[Words],
    size: int,
    words: tuple[int, int, int],
    faults: Faults | None = None,
) -> int:
    """Cycles of demands behind SCALE-Sim's buffers, as its report counts them with the prefetch.

    Args:
        demands: of input, weight and output, (lines, ports), -1 where nothing is demanded.
        operands: of input and weight, the matrices that they are fetched by, -1 where empty.
        size: words of each buffer, both halves.
        words: a cycle, of each.
        faults: none for all.
    """
    faults = faults or Faults()
    inside = [demand != -1 for demand in demands]
    buffers = []
    for operand, demand, rate in zip(operands, demands, words, strict=False):
        given = operand.ravel()
        order = given if faults.operand_order else first_demands(demand, math.ceil(size / 2))
        words_in_order = order[order != -1].astype(np.int64)
        one = OperandBuffer.of(words_in_order, len(order), size, rate, twice=faults.stalls_twice)
        buffers.append(one)
    results = ResultBuffer(size, words[2])
    stalls, last = 0, 0
    for line in range(len(demands[2])):
        cycle = line + stalls
        waits = [
            buffer.wait(demand[line][there[line]].tolist(), cycle)
            for buffer, demand, there in zip(buffers, demands, inside, strict=False)
        ]
        out = results.wait(int(inside[2][line].sum()), cycle)
        last = cycle + out
        stalls += max(*waits, out)
    return results.empty(last) - min(buffer.begin for buffer in buffers) + 1


def first_demands(demand: Words, half: int) -> Words:
    """Words in the order of their demands, each once a half."""
    order: list[int] = []
    held: set[int] = set()
    for word in demand[demand != -1].tolist():
        if word in held:
            continue
        if len(held) == half:
            held = set()
        held.add(word)
        order.append(word)
    return np.array(order, dtype=np.int64)
