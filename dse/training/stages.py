"""The stage of a schedule at a step and a site, from step, seed and losses alone."""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Collection
from dataclasses import dataclass, field

from dse.training.method import Formats, Method, Schedule
from dse.training.roles import UNSTAGED, SiteFormats

FIRST = 10
"""Means of the loss that its differences are measured by (FracTrain's code)."""
DECAYS = 2
"""Changes of stage after which the threshold of a plateau falls (likewise)."""


@dataclass(slots=True, kw_only=True)
class Plateau:
    """Counts the times that the loss stood still.

    Source: FracTrain, arXiv 2012.13113, section 3.1; `loss_diff_indicator` of its code.
    """

    schedule: Schedule
    count: int = 0
    _steps: list[float] = field(default_factory=list)
    _means: list[float] = field(default_factory=list)
    _first: list[float] = field(default_factory=list)

    def observe(self, loss: float) -> None:
        """Takes the loss of a step."""
        self._steps.append(loss)
        if len(self._steps) < self.schedule.every:
            return
        mean = sum(self._steps) / len(self._steps)
        self._steps.clear()
        if len(self._first) < FIRST:
            self._first.append(mean)
        if self.count == len(self.schedule.stages) - 1:
            return
        self._means = [*self._means, mean][-self.schedule.window :]
        if len(self._means) == self.schedule.window and self._stands():
            self.count += 1
            self._means.clear()

    def _stands(self) -> bool:
        size = sum(self._first) / len(self._first)
        limit = self.schedule.threshold * self.schedule.decay ** min(self.count, DECAYS)
        return all(abs(one - self._means[-1]) / size <= limit for one in self._means[:-1])


class Stages:
    """The formats of a schedule, step after step."""

    def __init__(
        self, method: Method, *, steps: int, seed: int, curved: Collection[str] = ()
    ) -> None:
        """A run from its first step.

        Args:
            method: With or without a schedule.
            steps: Of the whole run.
            seed: Of what is drawn.
            curved: Sites whose curvature is above the mean (`hasb`).
        """
        self._schedule = method.schedule
        self._steps = steps
        self._seed = seed
        self._curved = frozenset(curved)
        self._plateau = Plateau(schedule=method.schedule) if method.schedule else None
        self._bits = _bits(method)

    def observe(self, loss: float) -> None:
        """Takes the loss of a step; the same losses in the same order give the same stages."""
        if self._plateau is not None and self._schedule is not None:
            self._plateau.observe(loss)

    def at(self, step: int, site: str) -> Formats:
        """The formats at a site in a step."""
        schedule = self._schedule
        return UNSTAGED if schedule is None else schedule.stages[self._index(schedule, step, site)]

    def at_end(self, site: str) -> Formats:
        """The formats that held-out data are read in.

        Those of the last step, or the last stage where stages are drawn.
        """
        if self._schedule is not None and self._schedule.kind in ("uniform", "hasb"):
            return self._schedule.stages[-1]
        return self.at(self._steps - 1, site)

    def _index(self, schedule: Schedule, step: int, site: str) -> int:
        last = len(schedule.stages) - 1
        match schedule.kind:
            case "phase":
                starts = schedule.starts or [(one + 1) / (last + 1) for one in range(last)]
                return sum(step >= round(start * self._steps) for start in starts)
            case "cycle":
                return _cycled(step * schedule.cycles / self._steps, last)
            case "plateau":
                return self._plateau.count if self._plateau else 0
            case "gate":
                return last  # gates choose for each sample
            case "uniform" | "hasb":
                drawn = random.Random(zlib.crc32(f"{self._seed} {step} {site}".encode()))
                by_bits = schedule.kind == "hasb" and site in self._curved
                weights = self._bits if by_bits else None
                return drawn.choices(range(last + 1), weights=weights)[0]


def _cycled(cycles: float, last: int) -> int:
    """The stage after so many cycles, of which each rises by half a cosine.

    Source: cyclic precision training, arXiv 2101.09868, equation 1, over stages for bits.
    """
    return round(last * (1 - math.cos(math.pi * (cycles % 1))) / 2)


def _bits(method: Method) -> list[int]:
    """Bits of the weights of each stage."""
    stages = method.schedule.stages if method.schedule else ()
    formats = [SiteFormats([method.roles, stage]) for stage in stages]
    return [one.operand("weight", "fprop").quantizer.format.element.bits for one in formats]
