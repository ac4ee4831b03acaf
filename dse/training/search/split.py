"""Halves of what a workload holds out: one for the search, one for the report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, cast

from dse.errors import MethodError
from dse.training.workloads.workload import Batch, Workload

SplitName = Literal["search", "report"]
REPORT_FROM = 1000
"""First seed of the report; those of the search are below it."""


def seeds_of(split: SplitName, count: int) -> tuple[int, ...]:
    """Seeds of a split: those of search and report share none."""
    first = REPORT_FROM if split == "report" else 0
    return tuple(range(first, first + count))


@dataclass(frozen=True, slots=True)
class _Half:
    """A workload that holds out the first or second half of its samples, in their order."""

    whole: Workload
    split: SplitName

    def __getattr__(self, name: str) -> object:
        """Whatever else the workload has."""
        if name in self.__slots__:  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.whole, name)

    def held_out(self) -> list[Batch]:
        """The half: of text other modules, of images others."""
        batches = self.whole.held_out()
        total = sum(len(batch.labels) for batch in batches)
        if total < 2:
            raise MethodError(
                f"workload {self.whole.name} holds out {total} samples; a search needs one half "
                "of them for itself and one for the report"
            )
        middle = total // 2
        first, last = (0, middle) if self.split == "search" else (middle, total)
        return list(_between(batches, first, last))


def half(whole: Workload, split: SplitName) -> Workload:
    """The workload with its held-out samples of one split alone.

    Raises:
        MethodError: when it is asked for samples, where there are fewer than two.
    """
    return cast("Workload", _Half(whole, split))


def _between(batches: list[Batch], first: int, last: int) -> Iterator[Batch]:
    """Samples of these numbers, in their batches."""
    start = 0
    for batch in batches:
        size = len(batch.labels)
        own = slice(max(first - start, 0), max(last - start, 0))
        if own.start < min(own.stop, size):
            yield replace(batch, inputs=batch.inputs[own], labels=batch.labels[own])
        start += size
