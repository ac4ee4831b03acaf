"""The methods that are compared: each proposes assignments of a table, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from studies.search_methods import ours, rules, samplers
from studies.search_methods.job import Job

HELD_OUT = "byte-gpt-role"
"""The space that no setting was chosen on."""
SPACES = ("byte-gpt-depth", "fashion-resnet", HELD_OUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One of them, and how often it is run."""

    run: Callable[[Job], None]
    seeds: int = 3
    """One for what depends on no seed."""
    efforts: tuple[int, ...] = (30, 60, 150)
    """Forward-equivalents."""
    spaces: tuple[str, ...] = SPACES
    anytime: bool = False
    """It does not look at its budget: one run with the largest says what smaller ones find."""


def _fixed(run: Callable[[Job], None], *, anytime: bool = True) -> Method:
    return Method(run=run, seeds=1, anytime=anytime)


def _gp(run: Callable[[Job], None], *, seeds: int = 2) -> Method:
    """A run takes most of a minute, so that there are few."""
    return Method(run=run, seeds=seeds, efforts=(30, 60), spaces=(HELD_OUT,), anytime=True)


def _variant(run: Callable[[Job], None], *, anytime: bool = False) -> Method:
    return Method(run=run, efforts=(30, 60), anytime=anytime)


METHODS: Mapping[str, Method] = {
    "random": Method(run=rules.random, anytime=True),
    "greedy, direct": _fixed(rules.greedy_direct),
    "greedy, gradient": _fixed(rules.greedy_gradient),
    "knapsack, direct": _fixed(rules.knapsack_direct, anytime=False),
    "knapsack, gradient": _fixed(rules.knapsack_gradient, anytime=False),
    "Lagrangian sweep, direct": _fixed(rules.lagrangian_direct),
    "Lagrangian sweep, gradient": _fixed(rules.lagrangian_gradient),
    "TPE": Method(run=samplers.tpe, anytime=True),
    "TPE, log losses": Method(run=samplers.tpe_logs, anytime=True),
    "NSGA-II": Method(run=samplers.nsga2, anytime=True),
    "NSGA-II seeded, direct": Method(run=samplers.nsga2_seeded_direct, anytime=True),
    "NSGA-II seeded, gradient": Method(run=samplers.nsga2_seeded_gradient, anytime=True),
    "GP": _gp(samplers.gp, seeds=1),
    "GP, log losses": _gp(samplers.gp_logs),
    "GP, log losses, 4 at once": _gp(samplers.gp_batches),
    "GP, log losses, limit, 4 at once": _gp(samplers.gp_limited, seeds=1),
    "ours, gradient": Method(run=ours.gradient),
    "ours, direct": Method(run=ours.direct),
    "ours, 4 at once": _variant(ours.batches),
    "ours, limit, 4 at once": _variant(ours.limited),
    "ours, linear gains": _variant(ours.linear_gains),
    "ours, gains from 1e-3": _variant(ours.finer_gains),
    "ours, not re-fitted": _variant(ours.not_refitted),
    "ours, without knapsack": _variant(ours.without_knapsack, anytime=True),
    "ours, large ones direct": _variant(ours.mixed),
    "ours, with interactions": _variant(ours.interacting),
}
