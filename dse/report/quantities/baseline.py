"""Baselines of a point: uniform assignments of no greater loss."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from dse.report.quantities.unit import ratio, speedup_text
from dse.run.entries import MeasuredPoint
from dse.run.search_run import SearchRun
from hwmodels.tables.speedup import Speedup


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """A point against a baseline in one cost column."""

    baseline: MeasuredPoint
    column: str
    factor: float
    """Cost of the baseline over cost of the point: above 1 the point is cheaper."""
    speedup: Speedup | None = None
    """The factor with its interval, where the two are latencies and the run tells it."""

    @property
    def text(self) -> str:
        """`1.92× (1.85 to 2.00)`, or the factor alone where no interval is known."""
        return speedup_text(self.speedup) if self.speedup else ratio(self.factor)

    @property
    def inverse(self) -> Gain:
        """The same from the side of the baseline: how much cheaper that is."""
        back = self.speedup.inverse if self.speedup else None
        return replace(self, factor=1 / self.factor, speedup=back)


def rivals(
    run: SearchRun, point: MeasuredPoint, *, on: str = "", of: str = ""
) -> tuple[MeasuredPoint, ...]:
    """The uniform assignments, and the reference, whose loss is no greater than the point's.

    Two standard errors of the difference are granted, the errors taken as independent. A uniform
    assignment that breaks a constraint is no rival.

    Args:
        run: the run.
        point: the point.
        on: the target whose network the rivals are (`SearchRun.owner`).
        of: that of the point.
    """
    own = point.loss_on(of)
    if own is None:
        return ()
    allowed = [one for one in run.uniforms if not run.broken(one)]
    candidates = {p.trial: p for p in (*allowed, *((run.reference,) if run.reference else ()))}
    return tuple(
        rival
        for rival in candidates.values()
        if rival.trial != point.trial
        and (loss := rival.loss_on(on)) is not None
        and loss <= own + 2 * math.hypot(rival.stderr_on(on), point.stderr_on(of))
    )


def gain(run: SearchRun, point: MeasuredPoint, column: str, *, of: str = "") -> Gain | None:
    """The point against the cheapest rival; None where nothing was measured.

    Args:
        run: the run.
        point: the point.
        column: the rival's cost column.
        of: the point's cost column, where the two are compared across targets.
    """
    same = {"on": run.owner(column), "of": run.owner(of or column)}
    priced = [rival for rival in rivals(run, point, **same) if _cost(rival, column)]
    own = _cost(point, of or column)
    if not priced or not own:
        return None
    best = min(priced, key=lambda rival: rival.columns[column])
    return Gain(
        baseline=best,
        column=column,
        factor=best.columns[column] / own,
        speedup=run.speedup(point, best, of or column, column),
    )


def against_reference(run: SearchRun, point: MeasuredPoint, column: str) -> Gain | None:
    """The point against the reference; None where a cost is unknown."""
    return against(run, point, run.reference, column) if run.reference else None


def against(
    run: SearchRun, point: MeasuredPoint, baseline: MeasuredPoint, column: str
) -> Gain | None:
    """The point against another one; None where a cost is unknown."""
    whole, own = _cost(baseline, column), _cost(point, column)
    if not whole or not own:
        return None
    return Gain(
        baseline=baseline,
        column=column,
        factor=whole / own,
        speedup=run.speedup(point, baseline, column),
    )


def _cost(point: MeasuredPoint, column: str) -> float:
    """The cost of a point; 0 where it is unknown, or infinite on hardware that does not run it."""
    found = point.columns.get(column, 0.0)
    return found if math.isfinite(found) else 0.0
