"""The predicted latency of one point, split by role and by what bounds it; what is not native."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dse.run.entries import MeasuredPoint, RegionCost
from dse.run.search_run import SearchRun
from hwmodels.work.cost import AS_ASKED

FIXED = "fixed"
"""The choice of regions that are not searched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakdown:
    """Seconds of one phase on one target."""

    by_role: Mapping[str, float]
    by_bound: Mapping[str, float]

    @property
    def total_s(self) -> float:
        """Sum over regions."""
        return sum(self.by_role.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """One choice on one target, over the regions that could take it."""

    choice: str
    target: str
    statuses: Mapping[str, int] = field(default_factory=dict)
    """Regions by status, the most frequent first; a region counts once, whatever the phases."""
    notes: tuple[str, ...] = ()

    @property
    def native(self) -> bool:
        """Whether every region has a kernel that does what was asked."""
        return bool(self.statuses) and set(self.statuses) <= set(AS_ASKED)


def breakdown(run: SearchRun, point: MeasuredPoint, *, target: str, phase: str) -> Breakdown:
    """Shares of the time of `point`. Couplings between regions are not in the table."""
    chosen = run.choices.get(point.trial, {})
    roles, bounds = defaultdict[str, float](float), defaultdict[str, float](float)
    variable_roles = {variable.name: variable.role for variable in run.manifest.variables}
    for cost in _selected(run, chosen, target, phase):
        role = variable_roles.get(cost.variable) or region_role(cost.region)
        roles[role] += cost.latency_s
        bounds[cost.bound or "other"] += cost.latency_s
    return Breakdown(by_role=dict(roles), by_bound=dict(bounds))


def region_role(region: str) -> str:
    """`attention` of `blocks.3/attention`, `conv` of `conv_7`."""
    return re.sub(r"[._]\d+$", "", region.rsplit("/", 1)[-1])


def support(run: SearchRun) -> tuple[Support, ...]:
    """For every choice and target: native or what would happen instead, and why."""
    statuses: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    notes: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for cost in run.costs:
        key = (cost.choice, cost.target)
        if cost.choice == FIXED:
            continue
        statuses[key].setdefault(cost.region, cost.status)
        if cost.note:
            notes[key][cost.note] = None
    return tuple(
        Support(
            choice=choice,
            target=target.name,
            statuses=dict(Counter(statuses[choice, target.name].values()).most_common()),
            notes=tuple(notes[choice, target.name]),
        )
        for choice in run.manifest.choices
        for target in run.manifest.targets
        if (choice, target.name) in statuses
    )


def _selected(
    run: SearchRun, chosen: Mapping[str, str], target: str, phase: str
) -> Iterator[RegionCost]:
    """The rows of the cost table that an assignment looks up."""
    for cost in run.costs:
        wanted = chosen.get(cost.variable, "") if cost.variable else FIXED
        if cost.target == target and cost.phase == phase and cost.choice == wanted:
            yield cost
