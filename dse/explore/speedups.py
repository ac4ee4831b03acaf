"""Speed-ups between the points that a run shows, with the intervals of the two together."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import permutations

import numpy as np

from dse.evaluate.target_costs import LATENCY
from dse.explore.problem.design import Design
from dse.explore.problem.records import Record
from dse.run.entries import PointSpeedup
from hwmodels.tables.speedup import Speedup

BASES = ("uniform", "reference")
"""Sources of points that others are compared with."""
Pairs = dict[tuple[int, int], None]
"""Places of a point and its base, each pair once."""


def point_speedups(
    design: Design, records: Sequence[Record], front: Sequence[Record]
) -> Iterator[PointSpeedup]:
    """Speed-ups of what is shown: the front, the uniform assignments, the reference.

    In every latency over each uniform assignment and the reference; between targets likewise, in
    the latency of the whole scenario. Of two points of the front where they are neighbours in a
    latency, or not told apart by it. What was measured outside has no error.
    """
    bases = [record for record in records if record.source in BASES]
    shown = list({record.trial: record for record in (*front, *bases)}.values())
    errors = _errors(design, shown)
    labels = [target.label for target in design.costs.targets]
    for column, parts in errors.items():
        pairs = _with_bases(shown) | _along(shown, {one.trial for one in front}, column, parts)
        for point, base in pairs:
            half = _half_width(parts, point, base)
            yield from _entry(shown[point], column, shown[base], column, half)
    for column, other in _between_targets(labels, design.objectives.costs, errors):
        for point, base in _with_bases(shown):
            own, foreign = errors[column][point], errors[other][base]
            half = math.hypot(float(np.linalg.norm(own)), float(np.linalg.norm(foreign)))
            yield from _entry(shown[point], column, shown[base], other, half)


def costs_less(design: Design, point: Record, base: Record) -> bool:
    """Whether a point costs less than another in some objective, as far as the model can tell.

    Of a latency, and of what follows from it, the interval of the two together excludes 1; other
    costs are exact.
    """
    errors = _errors(design, (point, base))
    for column in design.objectives.costs:
        ours, theirs = point.costs[column], base.costs[column]
        if not ours < theirs:
            continue
        parts = errors.get(column)
        if parts is None or not 0 < ours < theirs < math.inf:
            return True
        if not Speedup.of(theirs / ours, _half_width(parts, 0, 1)).is_tied:
            return True
    return False


def _between_targets(
    labels: Sequence[str], objectives: Sequence[str], errors: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Columns of two targets that are the latency of the whole scenario, or one objective."""
    quantities = {LATENCY, *(column.rpartition(".")[2] for column in objectives)}
    for quantity in sorted(quantities):
        named = [f"{one}.{quantity}" for one in labels if f"{one}.{quantity}" in errors]
        yield from permutations(named, 2)


def _errors(design: Design, shown: Sequence[Record]) -> Mapping[str, np.ndarray]:
    """Latency column -> parts of the errors of points, (points, parts)."""
    points = [record.point for record in shown]
    predicted = design.costs.latency_errors(points, design.objectives.costs)
    for column, parts in predicted.items():
        parts[[column in record.measured_outside for record in shown]] = 0.0
    return predicted


def _half_width(parts: np.ndarray, point: int, base: int) -> float:
    """Of the log of a ratio of two latencies of one target, whose errors have much in common."""
    return float(np.linalg.norm(parts[point] - parts[base]))


def _with_bases(shown: Sequence[Record]) -> Pairs:
    """Every point with every base."""
    bases = [place for place, record in enumerate(shown) if record.source in BASES]
    every = [(point, base) for point in range(len(shown)) for base in bases]
    return dict.fromkeys(pair for pair in every if pair[0] != pair[1])


def _along(shown: Sequence[Record], front: set[int], column: str, parts: np.ndarray) -> Pairs:
    """Neighbours on the front, and points of it that a latency does not tell apart."""
    own = [
        place for place, one in enumerate(shown) if one.trial in front and _latency(one, column)
    ]
    own.sort(key=lambda place: _latency(shown[place], column))
    pairs: Pairs = {}
    for rank, faster in enumerate(own):
        for step, slower in enumerate(own[rank + 1 :]):
            half = _half_width(parts, faster, slower)
            factor = _latency(shown[slower], column) / _latency(shown[faster], column)
            if step == 0 or Speedup.of(factor, half).is_tied:
                pairs[faster, slower] = None
    return pairs


def _latency(record: Record, column: str) -> float:
    """Seconds of a record; 0 where it has none that could be compared."""
    found = record.costs.get(column, 0.0)
    return found if math.isfinite(found) else 0.0


def _entry(
    point: Record, column: str, base: Record, base_column: str, half: float
) -> Iterator[PointSpeedup]:
    """The entry of a pair; none without two latencies."""
    fast, slow = _latency(point, column), _latency(base, base_column)
    if fast > 0 and slow > 0:
        found = Speedup.of(slow / fast, half)
        yield PointSpeedup(
            column=column,
            trial=point.trial,
            base_column=base_column,
            base=base.trial,
            speedup=found.factor,
            low=found.low,
            high=found.high,
        )
