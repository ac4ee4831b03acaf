"""The workload of a run as benchmarks state it: calls of its phases, and its load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dse.errors import RunError, nearest
from dse.evaluate.phases import phase_work
from dse.evaluate.target_costs import TargetCosts, joined
from dse.explore.problem.design import Design
from hwmodels.tables.serving import Call, Demand, call_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Sizes at which one target is measured, with the columns that the results belong to."""

    target: TargetCosts
    calls: Mapping[str, Call]
    """By phase; a phase without attention has none."""
    shares: Mapping[str, float]
    """By phase, all of them."""
    prefix: str
    """Of the target's columns; empty where it is the only one."""
    loss_prefix: str = ""
    """Of its losses; empty where it executes the network that is measured for all."""

    @property
    def demand(self) -> Demand | None:
        """The load; None where the scenario is no prefill with a decoding phase."""
        return None if self.target.served is None else self.target.served.demand

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the target's columns in the run's tables."""
        return joined(self.target, self.target.columns, several=bool(self.prefix))

    def latency_column(self, phase: str) -> str:
        """The column of a phase's latency."""
        inner = f"{phase}." if len(self.shares) > 1 else ""
        return f"{self.prefix}{inner}latency_s"


def workload(design: Design, target: str, *, origin: str = "--target") -> Workload:
    """The workload of a run on a target.

    Args:
        design: of the run.
        target: its label.
        origin: where that one stands, for errors.

    Raises:
        RunError: no such target.
    """
    targets = {one.label: one for one in design.costs.targets}
    if target not in targets:
        raise RunError(
            f"{origin} {target}: not a target of this run{nearest(target, targets)} "
            f"(its targets: {', '.join(targets)})"
        )
    scenario, analysis = design.space.scenario, design.priced.analysis
    calls = {
        name: call_of(phase_work(analysis, phase.dims, scenario.tensor_parallel))
        for name, phase in scenario.phases.items()
    }
    return Workload(
        target=targets[target],
        calls={name: call for name, call in calls.items() if call is not None},
        shares={name: phase.share for name, phase in scenario.phases.items()},
        prefix=f"{target}." if len(targets) > 1 else "",
        loss_prefix=f"{target}." if target in design.networks.apart else "",
    )
