"""Several runs of one graph that wait for each other at large constants.

Every run goes on to the next step that reads one, then the others catch up: a weight is read from
its file and quantised once for all of them, and only the largest needs to be in memory. In between
a run holds what is alive there, and the next run starts where this one has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from dse.execute.operators.operator import Value
from dse.execute.operators.step import Step
from dse.execute.program.block import Block, is_large
from dse.execute.program.hooks import Hooks
from dse.execute.program.run import Record, run_steps


@dataclass(slots=True, kw_only=True)
class Passing:
    """A run on its way."""

    steps: Sequence[Step]
    frees: Sequence[tuple[int, ...]]
    values: list[Value]
    """By slot, as far as it has come."""
    hooks: Hooks | None = None
    record: Record | None = None
    stops: tuple[int, ...] = ()
    """Positions of the steps that it waits at."""
    macs: int = 0
    _at: int = -1
    """The next step; -1 before the start."""
    _passed: int = 0
    """Of the stops."""

    @property
    def is_done(self) -> bool:
        """Whether no step is left."""
        return self._at >= len(self.steps)

    @property
    def left(self) -> int:
        """Parts of the way that are still ahead."""
        before = self._at < 0 and self.stops[:1] != (0,)
        return len(self.stops) - self._passed + before

    def go(self) -> None:
        """On to the next stop, or to the end."""
        self._at = max(self._at, 0)
        while self._passed < len(self.stops) and self.stops[self._passed] <= self._at:
            self._passed += 1
        end = self.stops[self._passed] if self._passed < len(self.stops) else len(self.steps)
        self.macs += run_steps(
            self.steps[self._at : end], self.frees[self._at : end], self.values,
            hooks=self.hooks, record=self.record,
        )  # fmt: skip
        self._at = end


def stops(steps: Iterable[Step], block: Block, computed: frozenset[int]) -> tuple[int, ...]:
    """Positions of the steps that read a large constant."""
    return tuple(
        position
        for position, step in enumerate(steps)
        if any(is_large(block.constants.get(s)) for s in step.inputs if s not in computed)
    )


def in_step(passings: Sequence[Passing]) -> Iterator[int]:
    """Advances all runs; the number of each as soon as it has ended.

    Runs of one graph have the same stops ahead, whatever they start from: the one that has most
    of them left goes first.
    """
    waiting = [(-one.left, number) for number, one in enumerate(passings)]
    heapify(waiting)
    while waiting:
        _, number = heappop(waiting)
        one = passings[number]
        one.go()
        if one.is_done:
            yield number
        else:
            heappush(waiting, (-one.left, number))
