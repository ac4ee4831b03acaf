"""A queue of operators while it is measured: what is left of it, and what it has cost."""

from __future__ import annotations

from dataclasses import dataclass

from dse.profile.plan import Operator, Queues
from dse.profile.record import Recorder
from dse.profile.size import work_size

FAILURES = 3
"""Failures in a row after which a queue is given up: torch has no such kernel here."""
LONGEST_S = 0.5
"""A call that is expected to take longer waits until the queue has nothing shorter left."""
FIRST_WORK = 1e10
"""Work (`work_size`) of a queue's first operator at most: nothing is known of its speed yet."""


@dataclass(slots=True, kw_only=True)
class Lane:
    """A queue and what happened in it."""

    key: tuple[str, str, str]
    waiting: list[Operator]
    known: int
    """Operators that the table had before."""
    spent_s: float
    rows: int
    s_per_work: float | None = None
    """The least seconds a unit of work that was seen."""
    failures: int = 0
    reason: str = ""
    """The reason why it was given up."""

    def take(self) -> Operator:
        """The first that is expected to be short enough, else the smallest."""
        rate = self.s_per_work or LONGEST_S / FIRST_WORK
        for index, operator in enumerate(self.waiting):
            if work_size(operator) * rate <= LONGEST_S:
                return self.waiting.pop(index)
        sizes = [work_size(operator) for operator in self.waiting]
        return self.waiting.pop(sizes.index(min(sizes)))

    def succeeded(self, operator: Operator, call_s: float, *, spent_s: float) -> None:
        """Notes a measurement and what it took."""
        rate = call_s / work_size(operator)
        self.s_per_work = min(rate, self.s_per_work or rate)
        self.spent_s += spent_s
        self.rows += 1
        self.failures = 0

    def failed(self, reason: str, *, spent_s: float) -> None:
        """Notes a failure; after `FAILURES` in a row nothing waits any more."""
        self.spent_s += spent_s
        self.failures += 1
        if self.failures >= FAILURES or not (self.rows or self.waiting):
            self.waiting.clear()
            self.reason = reason


def lanes_of(queues: Queues, recorder: Recorder) -> list[Lane]:
    """A lane a queue, without the operators that the table has."""
    lanes = []
    for key, operators in queues.items():
        done = [one for one in operators if one in recorder.spent_s]
        lanes.append(
            Lane(
                key=key,
                waiting=[one for one in operators if one not in recorder.spent_s],
                known=len(done),
                spent_s=sum(recorder.spent_s[one] for one in done),
                rows=len(done),
            )
        )
    return lanes
