"""Claims of a system measured, seed by seed, and judged."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean, stdev
from typing import Literal

from dse.errors import DseError, StudyError
from dse.systems.measures.measure import Measure, Rows
from dse.systems.measures.registry import measure_of
from dse.systems.schema import Claim, System
from dse.systems.verdict import Judged, judged
from hwmodels.errors import HardwareError

Tell = Callable[[int, int], None]
"""Takes the number of a measurement, from 0, and how many a claim has, before it starts."""
Known = dict[str, Rows]
"""Rows by measure, options and seed."""
Verdict = Literal[
    "holds", "does not hold", "not run", "not run here", "missing in the product"
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A number over seeds."""

    mean: float
    deviation: float
    """Standard deviation; 0 of one seed."""
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A claim beside what was measured."""

    claim: Claim
    verdict: Verdict
    why: str = ""
    """Reason that it was not run."""
    judged: tuple[Judged, ...] = ()
    rows: Mapping[str, Spread]
    seeds: int = 0
    seeds_holding: int = 0
    """Seeds for each of which alone all conditions hold."""
    took_s: float = 0.0


def measurements(claim: Claim, *, minutes: bool = False, seeds: int | None = None) -> int:
    """Measurements that `result` takes: one a seed, none of a claim that is not run."""
    if not claim.is_run_here or (claim.needs == "minutes" and not minutes):
        return 0
    return (seeds or claim.seeds) if measure_of(claim).draws else 1


def results(
    system: System,
    *,
    minutes: bool = False,
    seeds: int | None = None,
    tell: Callable[[Claim, int, int], None] | None = None,
) -> Iterator[Result]:
    """Every claim of a system in its order; those that take minutes only where they are asked for.

    Args:
        system: Whose claims.
        minutes: Whether claims that take minutes run.
        seeds: Of every claim that draws, instead of its own number.
        tell: Called before each measurement with its claim, its number and how many there are.

    Raises:
        StudyError: options that do not fit a measure, or a condition on a number that it lacks.
    """
    known: Known = {}
    for place, claim in enumerate(system.claims):
        origin = f"{system.id}.yaml: claims.{place}"
        try:
            heard = partial(tell, claim) if tell is not None else None
            yield result(claim, minutes=minutes, seeds=seeds, known=known, tell=heard)
        except StudyError as error:
            raise StudyError(f"{origin}: {error}") from None
        except (DseError, HardwareError) as error:
            raise StudyError(f"{origin}: options: {error}") from error


def result(
    claim: Claim,
    *,
    minutes: bool = False,
    seeds: int | None = None,
    known: Known | None = None,
    tell: Tell | None = None,
) -> Result:
    """One claim measured and judged on the mean over its seeds.

    Args:
        claim: The claim.
        minutes: As in `results`.
        seeds: As in `results`.
        known: Rows that were measured before, which this adds to.
        tell: Called before each measurement.

    Raises:
        StudyError: as `results`.
    """
    if not claim.is_run_here:
        missing = claim.needs == "a mechanism"
        return Result(
            claim=claim,
            verdict="missing in the product" if missing else "not run here",
            why=claim.why if missing else f"needs {claim.needs}: {claim.why}",
            rows={},
        )
    if claim.needs == "minutes" and not minutes:
        return Result(claim=claim, verdict="not run", why="takes minutes; add --minutes", rows={})
    measure = measure_of(claim)
    count = measurements(claim, minutes=minutes, seeds=seeds)
    began = time.perf_counter()
    known = {} if known is None else known
    found = []
    for seed in range(count):
        if tell is not None:
            tell(seed, count)
        found.append(_rows(claim, measure, seed, known))
    took = time.perf_counter() - began
    spreads = {name: _spread([one[name] for one in found]) for name in found[0]}
    means = {name: one.mean for name, one in spreads.items()}
    conditions = tuple(judged(one, means) for one in claim.expect)
    return Result(
        claim=claim,
        verdict="holds" if all(one.holds for one in conditions) else "does not hold",
        judged=conditions,
        rows=spreads,
        seeds=count,
        seeds_holding=sum(_all_hold(claim, one) for one in found),
        took_s=took,
    )


def _rows(claim: Claim, measure: Measure, seed: int, known: Known) -> Rows:
    """Rows that claims of equal options share, measured once."""
    key = f"{claim.measure} {claim.options!r} {seed}"
    if key not in known:
        known[key] = measure.rows(seed)
    return known[key]


def _all_hold(claim: Claim, rows: Rows) -> bool:
    return all(judged(one, rows).holds for one in claim.expect)


def _spread(values: Sequence[float]) -> Spread:
    finite = len(values) > 1 and all(map(math.isfinite, values))
    return Spread(
        mean=fmean(values),
        deviation=stdev(values) if finite else 0.0,
        low=min(values),
        high=max(values),
    )
