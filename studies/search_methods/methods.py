"""The methods that are compared: each proposes assignments of a table, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from studies.search_methods import ours, rules, samplers
from studies.search_methods.job import Job

METHODS: Mapping[str, Callable[[Job], None]] = {
    "uniforms": rules.only_uniforms,
    "random": rules.random,
    "greedy, direct": rules.greedy_direct,
    "greedy, gradient": rules.greedy_gradient,
    "knapsack, direct": rules.knapsack_direct,
    "knapsack, gradient": rules.knapsack_gradient,
    "Lagrangian sweep, direct": rules.lagrangian_direct,
    "Lagrangian sweep, gradient": rules.lagrangian_gradient,
    "TPE": samplers.tpe,
    "GP": samplers.gp,
    "NSGA-II": samplers.nsga2,
    "NSGA-II seeded, direct": samplers.nsga2_seeded_direct,
    "NSGA-II seeded, gradient": samplers.nsga2_seeded_gradient,
    "ours, direct": ours.direct,
    "ours, gradient": ours.gradient,
    "ours, not re-fitted": ours.not_refitted,
    "ours, without knapsack": ours.without_knapsack,
    "ours, large ones direct": ours.mixed,
    "ours, with interactions": ours.interacting,
}
DETERMINISTIC = (
    "uniforms", "greedy, direct", "greedy, gradient", "knapsack, direct", "knapsack, gradient",
    "Lagrangian sweep, direct", "Lagrangian sweep, gradient",
)  # fmt: skip
"""Those that depend on no seed."""
ANYTIME = (
    "random", "greedy, direct", "greedy, gradient", "Lagrangian sweep, direct",
    "Lagrangian sweep, gradient", "TPE", "GP", "NSGA-II", "NSGA-II seeded, direct",
    "NSGA-II seeded, gradient", "ours, without knapsack",
)  # fmt: skip
"""Those that do not look at their budget: one run with the largest says what smaller ones find."""
