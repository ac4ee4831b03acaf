"""A double buffer behind the demands of a systolic array, a line a cycle.

What SCALE-Sim's memory means to be: while the array works from one half of a buffer, the other one
is filled with the words that are demanded next, each once; a half is filled after the one before,
as soon as it is free, and the array waits for the words of the half that it comes to. Outputs fill
a half while the other one drains.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Demand = NDArray[np.int64]
"""Addresses by line (cycle) and port; -1 where nothing is demanded."""


@dataclass(frozen=True)
class Found:
    cycles: int
    """From the first word that is fetched to the last one that is written."""
    words: tuple[int, int]
    """Fetched of the two operands."""


def halves(demand: Demand, size: int) -> list[tuple[int, int]]:
    """(First line, words) of what is in a half at a time: the next `size` different words."""
    found = []
    held: set[int] = set()
    first = 0
    for line, row in enumerate(demand):
        for word in row[row != -1]:
            if word not in held and len(held) == size:
                found.append((first, size))
                held, first = set(), line
            held.add(word)
    return [*found, (first, len(held))]


def cycles(demands: list[Demand], size: int, words: tuple[int, int, int]) -> Found:
    """Cycles of the demands of two operands and a result.

    Args:
        demands: of input, weight and output, with as many lines.
        size: words of a half of each buffer.
        words: a cycle, of each.
    """
    parts = [halves(demand, size) for demand in demands[:2]]
    loads = [
        [math.ceil(held / rate) for _, held in part]
        for part, rate in zip(parts, words, strict=False)
    ]
    switches: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for operand, part in enumerate(parts):
        for index, (line, _) in enumerate(part[1:], start=1):
            switches[line].append((operand, index))
    begin = max(load[0] for load in loads)
    loaded = [begin + (load[1] if len(load) > 1 else 0) for load in loads]
    written = (demands[2] != -1).sum(axis=1)
    now, filled, drained = begin, 0, 0
    for line in range(len(demands[2])):
        for operand, index in switches[line]:
            now = max(now, loaded[operand])
            if index + 1 < len(parts[operand]):
                loaded[operand] = now + loads[operand][index + 1]
        filled += int(written[line])
        if filled > size:
            now = max(now, drained)
            filled -= size
            drained = now + math.ceil(size / words[2])
        now += 1
    end = max(now, drained) + math.ceil(filled / words[2])
    return Found(cycles=end, words=tuple(sum(held for _, held in part) for part in parts))  # type: ignore[arg-type]
