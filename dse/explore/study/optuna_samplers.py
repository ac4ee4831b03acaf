"""Samplers that Optuna ships, or that a user writes for it, as search methods."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from dse.errors import SpaceError
from dse.explore.study.proposer import Proposer, SearchTask
from dse.explore.study.study import is_settled

SEEDED = ("NSGAIISampler", "NSGAIIISampler", "TPESampler", "GPSampler", "RandomSampler")
"""Samplers that keep nothing but a random generator between proposals: everything else that they
know is in the study, so that a new one can speak for each trial."""


def sampler_names() -> list[str]:
    """The classes that `optuna.samplers` has, by name."""
    return [
        name
        for name in dir(optuna.samplers)
        if name.endswith("Sampler") and not inspect.isabstract(getattr(optuna.samplers, name))
    ]


@dataclass(frozen=True, slots=True)
class OptunaMethod:
    """A sampler class of `optuna.samplers`, or of a user's, with the arguments that we give it."""

    kind: type[BaseSampler]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, task: SearchTask, **arguments: Any) -> Proposer:
        """The sampler for a task.

        Args:
            task: what is searched; of it a sampler takes the seed.
            arguments: of the class; they win over ours.

        Raises:
            SpaceError: arguments that the class refuses.
        """
        return Proposer(sampler=self.seeded(task.seed, arguments))

    def seeded(self, seed: int, arguments: Mapping[str, Any]) -> BaseSampler:
        """The sampler of a seed, whatever is searched.

        Raises:
            SpaceError: arguments that the class refuses.
        """
        known = inspect.signature(self.kind).parameters

        def made(seed: int) -> BaseSampler:
            seeded = {"seed": seed} if "seed" in known else {}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return self.kind(**{**seeded, **self.defaults, **arguments})

        try:
            first = made(seed)
        except (TypeError, ValueError) as error:
            raise SpaceError(
                f"search.arguments: {self.kind.__name__}: {error} (known: {', '.join(known)})"
            ) from error
        renewed = self.kind.__module__.startswith("optuna.") and self.kind.__name__ in SEEDED
        return RenewedSampler(made, seed) if renewed else first


@dataclass(frozen=True, slots=True)
class GivenSampler:
    """A sampler that a program made, as a search method: taken as it is."""

    sampler: BaseSampler

    def __call__(self, task: SearchTask, **arguments: Any) -> Proposer:
        """The sampler, whatever the task."""
        return Proposer(sampler=self.sampler)


class RenewedSampler(BaseSampler):
    """A new sampler for every proposal, seeded with the search's seed and how far the study is.

    Optuna's samplers draw from a generator that lives as long as their process. One that went on
    with a killed run would begin again at its first number, and propose what is measured already.

    Args:
        made: seed -> sampler.
        seed: the search's.
    """

    def __init__(self, made: Callable[[int], BaseSampler], seed: int) -> None:
        self._made = made
        self._seed = seed
        self._sampler = made(seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Make the sampler that speaks for a trial."""
        count = sum(_counts(other) for other in study.get_trials(deepcopy=False))
        own = int(np.random.SeedSequence([self._seed, count]).generate_state(1)[0])
        self._sampler = self._made(own)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The sampler's."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The sampler's."""
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The sampler's."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """The sampler's."""
        self._sampler.after_trial(study, trial, state, values)


def _counts(trial: FrozenTrial) -> bool:
    """Whether a trial moves the seed on.

    Trials that were lost with their process do not, or a resumed run would propose otherwise. One
    that was given up because its point is known does, or it would be proposed for ever.
    """
    given_up = trial.state == TrialState.PRUNED
    return given_up or trial.state == TrialState.RUNNING or is_settled(trial)
