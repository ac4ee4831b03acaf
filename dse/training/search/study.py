"""The Optuna study of a search over methods: points asked for, points told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from dse.errors import RunError, SpaceError
from dse.explore.study.methods import METHODS, search_method
from dse.explore.study.optuna_samplers import OptunaMethod
from dse.explore.study.storage import written_together
from dse.explore.study.study import ESTIMATE, PROPOSED, RIVAL, open_study, queue
from dse.training.search.points import MethodProblem, Point
from dse.training.search.schema import Effort

TRIES = 200
"""Points that a sampler proposes in a row, each refused or known, before the space is spent."""
REFUSED = "refused"
"""Trial attribute: the reason why a point is no method, or was not trained again."""
DIGEST = "digest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A trial that waits for its runs."""

    trial: optuna.Trial
    point: Point

    @property
    def source(self) -> str:
        """Who proposes it."""
        return str(self.trial.user_attrs.get("source", PROPOSED))


class MethodStudy:
    """Trials of a run folder, whose lock the caller holds."""

    def __init__(self, folder: Path, problem: MethodProblem) -> None:
        effort = problem.space.search
        sampler = _method(effort, origin=problem.origin).seeded(effort.seed, effort.arguments)
        self._problem = problem
        self._study = open_study(folder, problem.space.objectives, sampler)
        self._space: Mapping[str, BaseDistribution] = {
            name: CategoricalDistribution(list(options))
            for name, options in problem.options.items()
        }

    def plan(self, points: Sequence[tuple[Point, str, str]]) -> None:
        """Queues points that are not known: point, source, name."""
        known = {
            tuple(sorted(trial.params.items()))
            for trial in self._trials()
            if trial.state != TrialState.FAIL
        }
        for point, source, name in points:
            key = tuple(sorted(point.choices.items()))
            if key not in known:
                known.add(key)
                queue(self._study, point.choices, self._space, source=source, name=name)

    def waiting(self, *sources: str) -> int:
        """Points that are queued: of these sources, by default of all."""
        return sum(
            trial.state == TrialState.WAITING
            and (not sources or trial.user_attrs.get("source") in sources)
            for trial in self._trials()
        )

    @property
    def settled(self) -> int:
        """Points that were trained, to their end or not."""
        return len(list(self.told()))

    def ask(self, count: int) -> list[Asked]:
        """The next points, each a method that nobody has; fewer where the space is spent."""
        asked: list[Asked] = []
        taken = {str(trial.user_attrs[DIGEST]) for trial in self.told()}
        tries = TRIES
        while len(asked) < count and tries:
            with written_together():
                trial = self._study.ask(dict(self._space))
                point = self._problem.point(trial.params)
                refusal = self._problem.refusal(point)
                if not refusal and point.digest in taken:
                    refusal = "the same method as another trial's"
                trial.set_user_attr("source", trial.user_attrs.get("source", PROPOSED))
                trial.set_user_attr(REFUSED if refusal else DIGEST, refusal or point.digest)
                if refusal:
                    self._study.tell(trial, state=TrialState.PRUNED)
            if refusal:
                tries -= 1
                continue
            tries = TRIES
            taken.add(point.digest)
            asked.append(Asked(trial=trial, point=point))
        return asked

    def tell(self, asked: Asked, values: Sequence[float]) -> None:
        """A point that was trained: its objectives, all finite."""
        self._study.tell(asked.trial, list(values))

    def end(self, asked: Asked, *, estimate: float, rival: int) -> None:
        """A point that was clearly worse than a rival before all its seeds had run."""
        with written_together():
            asked.trial.set_user_attr(ESTIMATE, estimate)
            asked.trial.set_user_attr(RIVAL, rival)
            self._study.tell(asked.trial, state=TrialState.PRUNED)

    def told(self) -> Iterator[FrozenTrial]:
        """Trials that have ended, in their order: complete, or clearly worse than a rival."""
        for trial in self._trials():
            if trial.state == TrialState.COMPLETE or (
                trial.state == TrialState.PRUNED and ESTIMATE in trial.user_attrs
            ):
                yield trial

    def point(self, trial: FrozenTrial) -> Point:
        """The point of a trial.

        Raises:
            RunError: one of another space.
        """
        try:
            return self._problem.point(trial.params)
        except KeyError as error:
            raise RunError(
                f"trial {trial.number} of the study has no {error.args[0]!r}: it is another "
                "search's, or damaged"
            ) from error

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)


def _method(effort: Effort, *, origin: str) -> OptunaMethod:
    found = search_method(effort.method, origin=origin, folder=Path())
    if not isinstance(found, OptunaMethod):
        known = ", ".join(name for name, one in METHODS.items() if isinstance(one, OptunaMethod))
        raise SpaceError(
            f"{origin}: search.method: {effort.method!r} solves with losses of single choices, "
            f"which add up in a network and not in a training; expected {known}, or a class of "
            "optuna.samplers"
        )
    return found
