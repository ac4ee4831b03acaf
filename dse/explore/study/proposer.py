"""The seam of search methods: what one is given, and what it has to give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.samplers import BaseSampler

from dse.explore.problem.design import Design
from dse.explore.problem.hardware import Grid
from dse.explore.solve.gain import Fronts
from dse.explore.solve.surrogate import Surrogate
from dse.space.problem import Problem

CostFunction = Callable[[np.ndarray], np.ndarray]
"""(points, variables) choice indices -> (points, cost objectives), exact."""
Mask = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(points, variables) and (points,) or (points, losses) losses -> (points,) booleans."""


def one_front(values: np.ndarray) -> Mapping[str, np.ndarray]:
    """All objectives as the only front that counts."""
    return {"": values}


def everything_allowed(points: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """No constraint."""
    return np.ones(len(points), dtype=bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchTask:
    """Facts of a search that a method may know, besides its study."""

    problem: Problem
    """The decision variables."""
    surrogate: Surrogate
    """Losses of every choice alone, before any assignment is measured."""
    costs: CostFunction
    """Exact cost objectives of points."""
    additive: Sequence[Sequence[np.ndarray]]
    """Parts of the cost objectives: of each one array of choices a variable."""
    seed: int
    others: tuple[Surrogate, ...] = ()
    """As `surrogate`, of each further loss that is an objective: what other targets execute."""
    loss_of_cost: tuple[int, ...] = ()
    """Of each cost objective which loss is its target's; the first of all by default."""
    fronts: Fronts = field(default=one_front)
    """Objective values as the fronts that count, by name."""
    allowed: Mask = field(default=everything_allowed)
    """The points that may be on a front."""
    grid: Grid | None = None
    """The hardware points, where hardware varies: variables of the problem that cost no
    measurement."""
    focused: Mask = field(default=everything_allowed)
    """The points where the front is wanted most."""

    @property
    def surrogates(self) -> tuple[Surrogate, ...]:
        """One a loss."""
        return (self.surrogate, *self.others)

    @classmethod
    def of(
        cls, design: Design, surrogates: Sequence[Surrogate], grid: Grid | None = None
    ) -> SearchTask:
        """The task of a design, with its corrections and constraints, and its hardware points."""
        first, *others = surrogates
        return cls(
            problem=design.problem,
            surrogate=first,
            others=tuple(others),
            loss_of_cost=tuple(design.objectives.place(one) for one in design.objectives.costs),
            costs=design.objective_costs,
            additive=design.additive,
            seed=design.space.search.seed,
            fronts=design.objectives.split,
            allowed=design.allowed,
            grid=grid,
            focused=design.focused,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposer:
    """A search method at work: an Optuna sampler, and what is done before a trial is asked for."""

    sampler: BaseSampler
    before_ask: Callable[[optuna.Study], None] = field(default=lambda study: None)

    def ask(self, study: optuna.Study) -> optuna.Trial:
        """The next trial of a study: what is queued there first, then what the sampler proposes.

        NSGA-II puts a trial into a generation when its relative parameters are read, which Optuna
        does when the first parameter is suggested. A queued trial has all of them: without the
        reading here planned assignments would be no parents.
        """
        self.before_ask(study)
        trial = study.ask()
        _ = trial.relative_params
        return trial


class SearchMethod(Protocol):
    """Makes the proposer of one search.

    The laws (`tests/contracts/test_search_methods.py`):

    * every proposal gives each variable of the problem one of its choices;
    * a proposal depends on the seed and on the trials that are finished or running, in their
      order, and on nothing that lives in the process: not on trials that were lost with another
      process, nor on trial numbers. So a search that was killed goes on as it would have, and
      several workers ask one study;
    * a point that was proposed again is not proposed for ever: whoever asks often enough gets one
      that is not known, as long as there is one;
    * trials that are queued come first, with the parameters that they were queued with;
    * nothing is read or written but the study.
    """

    def __call__(self, task: SearchTask, **arguments: Any) -> Proposer:
        """The proposer.

        Args:
            task: what is searched.
            arguments: what the space says under `search.arguments`.

        Raises:
            SpaceError: arguments that the method does not take.
        """
