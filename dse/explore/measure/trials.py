"""The trials of one process: asked of the study, measured by an executor, told in order.

A process asks for a few trials more than it has workers and tells their results in the order in
which it asked, whichever came first. What a proposal knows is then the same in every run, however
long measurements take: all trials but the last few, which count as predicted.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

from dse.evaluate.hurdle import Hurdle
from dse.explore.measure.executor import Executor, Job, Outcome
from dse.explore.measure.pruning import Pruner
from dse.explore.measure.records import tell
from dse.explore.problem.design import Design
from dse.explore.study.heartbeat import Heartbeat
from dse.explore.study.proposer import Proposer
from dse.explore.study.storage import written_together
from dse.explore.study.study import (
    PROPOSED,
    claim,
    is_pruned,
    is_settled,
    running_points,
    trial_point,
)
from dse.space.problem import Point, Problem

ATTEMPTS_PER_TRIAL = 20
"""A sampler that only repeats measured points is given up after this many tries a trial."""
POLL_S = 0.2
"""Between looks at a shared study while others measure what is left."""
NAMING_S = 10.0
"""The longest wait for a proposal of another process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A trial of this process that is not told yet."""

    trial: optuna.Trial
    point: Point
    planned: bool
    """Its point was queued before any sampler spoke."""
    hurdle: Hurdle | None = None
    """The hurdle that its first samples must clear."""


class Trials:
    """Asks, measures and tells until a study has as many settled points as wanted.

    A point that ends after a first look counts as the share of the samples that it took.

    Args:
        design: what is searched.
        study: where trials are kept.
        proposer: who proposes what to measure.
        executor: who measures.
        total: settled points wanted.
        pruner: sets hurdles; by default every point is measured on all samples.
        heartbeat: signs of life, in a study that others share.
        participant: this process's name, there.
    """

    def __init__(
        self,
        design: Design,
        study: optuna.Study,
        proposer: Proposer,
        executor: Executor,
        total: int,
        *,
        pruner: Pruner | None = None,
        heartbeat: Heartbeat | None = None,
        participant: str = "",
    ) -> None:
        self._design = design
        self._study = study
        self._study.sampler = proposer.sampler
        self._proposer = proposer
        self._executor = executor
        self._total = total
        self._pruner = pruner
        self._whole = 1 if pruner is None else pruner.samples
        self._heartbeat = heartbeat
        self._participant = participant
        self._asked: deque[Asked] = deque()
        self._came: dict[int, Outcome] = {}
        self._attempts = ATTEMPTS_PER_TRIAL * total
        self._settled: dict[int, tuple[Point, int]] = {}

    def run(self, show: Callable[[int, int], None]) -> None:
        """Go on to the end; `show` is told how many points are settled, of how many."""
        ahead = 2 * self._executor.slots - 1
        while True:
            if self._heartbeat is not None:
                self._heartbeat.take_over()
            while len(self._asked) < ahead and (asked := self._ask()) is not None:
                self._asked.append(asked)
                self._executor.submit(self._job(asked))
            known = self._known(self._all())
            show(sum(known.values()) // self._whole, self._total)
            if self._asked:
                self._tell_oldest()
            elif not self._has_room(known) or not self._attempts:
                return
            else:
                time.sleep(POLL_S)

    def _ask(self) -> Asked | None:
        """A trial whose point nobody has; None where none is to be had now."""
        while self._attempts:
            trials = self._all()
            if self._full(trials) or self._must_wait(trials):
                return None
            self._attempts -= 1
            trial = self._next()
            taken = self._taken_before(trial.number)
            point = suggested(trial, self._design.problem)
            if self._measured_as(point) not in taken and self._has_room(taken):
                source = trial.user_attrs.get("source")
                if source is None:
                    trial.set_user_attr("source", PROPOSED)
                planned = source not in (None, PROPOSED)
                hurdle = self._pruner.hurdle(trial, point) if self._pruner else None
                return Asked(trial=trial, point=point, planned=planned, hurdle=hurdle)
            self._study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
            self._forget(trial)
        return None

    def _job(self, asked: Asked) -> Job:
        assignment, *others = self._design.searched(asked.point)
        return Job(
            key=asked.trial.number,
            assignment=assignment,
            hurdle=asked.hurdle,
            others=tuple(others),
        )

    def _next(self) -> optuna.Trial:
        with warnings.catch_warnings():
            # Optuna beats by itself in `Study.optimize` only; here a heartbeat does.
            warnings.filterwarnings("ignore", message="Heartbeat of storage")
            trial = self._proposer.ask(self._study)
        if self._heartbeat is not None:
            self._heartbeat.watch(trial)
            claim(trial, self._participant)
        return trial

    def _tell_oldest(self) -> None:
        asked = self._asked.popleft()
        while asked.trial.number not in self._came:
            outcome = self._executor.next()
            self._came[outcome.key] = outcome
        tell(
            self._design,
            self._study,
            asked.trial,
            asked.point,
            self._came.pop(asked.trial.number),
            hurdle=asked.hurdle,
        )
        self._forget(asked.trial)

    def _forget(self, trial: optuna.Trial) -> None:
        if self._heartbeat is not None:
            self._heartbeat.forget(trial)

    def _all(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _full(self, trials: list[FrozenTrial]) -> bool:
        """Whether what is settled or being measured, here or elsewhere, is all that is wanted."""
        problem = self._design.problem
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        unnamed = sum(len(trial.params) < len(problem.variables) for trial in running)
        taken = self._with(self._known(trials), running_points(running, problem))
        return not self._has_room(taken, others=unnamed)

    def _has_room(self, taken: Mapping[Point, int], *, others: int = 0) -> bool:
        """Whether one more point fits the budget, though it may take all samples.

        Args:
            taken: point -> samples that it has taken or may take.
            others: points that are not known yet.
        """
        spent = sum(taken.values()) + others * self._whole
        left = self._design.problem.assignments - len(taken) - others
        return left > 0 and spent + self._whole <= self._total * self._whole

    def _with(self, known: Mapping[Point, int], running: set[Point]) -> dict[Point, int]:
        """Samples that are settled, and those being measured: that may take all samples."""
        return {**dict.fromkeys(map(self._measured_as, running), self._whole), **known}

    def _measured_as(self, point: Point) -> Point:
        """The point of a measurement: the same for all hardware."""
        return self._design.problem.on_start(point)

    def _must_wait(self, trials: list[FrozenTrial]) -> bool:
        """Whether a sampler would speak before all that was planned is told.

        Otherwise the first proposals of a run that was killed and resumed would know other points.
        """
        queued = any(trial.state == TrialState.WAITING for trial in trials)
        return not queued and any(asked.planned for asked in self._asked)

    def _taken_before(self, number: int) -> dict[Point, int]:
        """Points that are settled, or being measured by trials with smaller numbers.

        Two processes that ask at the same time so agree on who goes first. Where one of the
        earlier ones has not said yet what it measures, that is waited for.
        """
        problem = self._design.problem
        deadline = time.monotonic() + NAMING_S
        while True:
            trials = self._all()
            earlier = [
                trial for trial in trials
                if trial.state == TrialState.RUNNING and trial.number < number
            ]  # fmt: skip
            named = all(len(trial.params) == len(problem.variables) for trial in earlier)
            if named or time.monotonic() > deadline:
                return self._with(self._known(trials), running_points(earlier, problem))
            time.sleep(POLL_S / 10)

    def _known(self, trials: list[FrozenTrial]) -> dict[Point, int]:
        """Points that need no further trial -> samples that they have taken.

        They are complete, pruned, or failed for a reason of their own.
        """
        for trial in trials:
            if trial.number not in self._settled and is_settled(trial):
                point = trial_point(trial, self._design.problem)
                taken = trial.user_attrs["quality"]["samples"] if is_pruned(trial) else self._whole
                self._settled[trial.number] = self._measured_as(point), int(taken)
        return dict(self._settled.values())


def suggested(trial: optuna.Trial, problem: Problem) -> Point:
    """The point that a trial proposes."""
    if len(known := trial.params) == len(problem.variables):
        return problem.point(known)
    with written_together():
        names = {
            variable.name: trial.suggest_categorical(
                variable.name, [choice.name for choice in variable.choices]
            )
            for variable in problem.variables
        }
    return problem.point(names)
