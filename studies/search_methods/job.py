"""What a compared method gets: a table, its objectives, a budget, and somebody who keeps count."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from dse.explore.solve.surrogate import Surrogate
from dse.space.problem import Choice, Point, Problem, Variable
from studies.search_benchmark.benchmark import Benchmark

REFERENCE = 1.0
"""Forward-equivalents of the full-precision run that every method needs."""
GRADIENT = 3.0
"""Of one forward and one backward pass over the search split."""


@dataclass(kw_only=True)
class Job:
    """One table with its objectives, and what a run has measured so far."""

    table: Benchmark
    columns: tuple[str, ...]
    budget: float
    """Forward-equivalents, sensitivities included."""
    seed: int
    deadline: float = float("inf")
    """Seconds since the epoch after which nothing more is measured."""
    spent: float = REFERENCE
    measured: dict[int, float] = field(default_factory=dict)
    """Number of an assignment -> effort when it was known, in order."""

    def __post_init__(self) -> None:
        self.values = self.table.values(*self.columns)

    @property
    def trials(self) -> int:
        """Assignments that can still be measured."""
        return 0 if self.late else max(0, int(self.budget - self.spent))

    @property
    def late(self) -> bool:
        """Whether the deadline ended this before its budget did."""
        return time.time() > self.deadline

    def measure(self, points: Iterable[Point | np.ndarray]) -> None:
        """Measure in order until the budget is spent; what is known costs nothing."""
        for point in points:
            number = int(self.table.number(np.array(point)))
            if number in self.measured:
                continue
            if self.trials < 1:
                return
            self.spent += 1
            self.measured[number] = self.spent

    def direct(self) -> Surrogate:
        """The surrogate of direct single-choice scores, which is paid for."""
        self.spent += float(self.table.forward_share.sum())
        return Surrogate(losses=tuple(self.table.alone))

    def gradient(self) -> Surrogate:
        """The surrogate of gradient scores, which is paid for."""
        self.spent += GRADIENT
        return Surrogate(losses=tuple(self.table.gradient))

    @property
    def additive(self) -> list[list[np.ndarray]]:
        """Of each cost, what choices add."""
        return [list(self.table.additive(column)) for column in self.columns]

    def costs(self, points: np.ndarray) -> np.ndarray:
        """Exact costs."""
        return self.values[self.table.number(points), 1:]


def problem_of(table: Benchmark) -> Problem:
    """The decision variables of a table; there are no sites behind them."""
    return Problem(
        variables=tuple(
            Variable(
                name=name, kind="gemm", role="fc", block=None, relative_depth=0.0,
                regions=(name,), sites=(),
                choices=tuple(Choice(name=choice, quantizers={}) for choice in choices),
            )
            for name, choices in table.variables.items()
        )
    )  # fmt: skip
