"""Whether what was measured is what a claim expects, in words that have both numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from dse.errors import StudyError
from dse.systems.measures.measure import Rows
from dse.systems.schema import Expectation


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A condition beside what was measured."""

    what: str
    """Names of the numbers."""
    wanted: str
    found: str
    holds: bool


def judged(expected: Expectation, rows: Rows) -> Judged:
    """The verdict on one condition; a number that is none never holds.

    Raises:
        StudyError: it names a number that the measure does not return.
    """
    for name in expected.rows:
        if name not in rows:
            raise StudyError(f"expect: no number {name!r}; there are {', '.join(rows)}")
    if expected.rising:
        values = [rows[name] for name in expected.rising]
        return Judged(
            what=", ".join(expected.rising),
            wanted="rising",
            found=", ".join(f"{value:.4g}" for value in values),
            holds=all(low < high for low, high in pairwise(values)),
        )
    value = _value(expected, rows)
    return Judged(
        what=_what(expected),
        wanted=_bounds(expected),
        found=f"{value:.4g}",
        holds=_holds(expected, value),
    )


def _value(expected: Expectation, rows: Rows) -> float:
    value = rows[expected.row]
    if expected.minus:
        return value - rows[expected.minus]
    if not expected.over:
        return value
    below = rows[expected.over]
    return value / below if below else math.nan


def _what(expected: Expectation) -> str:
    if expected.over:
        return f"{expected.row} / {expected.over}"
    return f"{expected.row} - {expected.minus}" if expected.minus else expected.row


def _room(expected: Expectation) -> float:
    """Largest distance from the expected value."""
    if expected.within is not None:
        return expected.within
    return abs(expected.value or 0.0) * (expected.relative or 0.0)


def _bounds(expected: Expectation) -> str:
    words = []
    if expected.value is not None:
        room = _room(expected)
        words.append(f"{expected.value:.6g}" + (f" ± {room:.2g}" if room else ""))
    if expected.at_least is not None:
        words.append(f"≥ {expected.at_least:.4g}")
    if expected.at_most is not None:
        words.append(f"≤ {expected.at_most:.4g}")
    return ", ".join(words)


def _holds(expected: Expectation, value: float) -> bool:
    if not math.isfinite(value):
        return False
    if expected.value is not None and abs(value - expected.value) > _room(expected):
        return False
    low = expected.at_least is None or value >= expected.at_least
    return low and (expected.at_most is None or value <= expected.at_most)
