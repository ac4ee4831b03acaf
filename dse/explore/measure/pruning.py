"""Trials that may end after a first look, and what is known of those that did.

A trial is compared, sample by sample, with the best measured assignment that costs no more in any
objective. What it is compared with is settled when it is asked for and written into the trial, so
that a run that was killed and resumed decides as it would have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from dse.evaluate.hurdle import Hurdle, first_rows
from dse.explore.measure.session import Session
from dse.explore.problem.design import Design
from dse.explore.study.study import ESTIMATE, RIVAL, is_pruned, trial_point
from dse.space.problem import Point

PRUNED_COLUMNS = (
    "trial", "source", "samples", "samples_loss", "samples_stderr", "estimated_loss", "rival",
)  # fmt: skip
"""Of `pruned.csv`, before the costs and the digest."""
BASELINE = ("uniform", "reference")
"""Sources of trials that are always measured in full: others are compared with them."""


class Pruner:
    """Hurdles for the trials of a study.

    Args:
        session: what is searched.
        study: what is measured.
        share: of the search samples, for a first look.
    """

    def __init__(self, session: Session, study: optuna.Study, share: float) -> None:
        self._design = session.design
        self._study = study
        evaluator = session.evaluator
        self.samples = evaluator.samples("search")
        self._rows = first_rows(self.samples, evaluator.batch, share)

    def hurdle(self, trial: optuna.Trial, point: Point) -> Hurdle | None:
        """The hurdle of a trial; None where it is measured in full, whatever comes of it."""
        attributes = trial.user_attrs
        if not self._rows or attributes.get("source") in BASELINE:
            return None
        done = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if RIVAL not in attributes:
            trial.set_user_attr(RIVAL, self._rival(done, point))
        number = trial.user_attrs[RIVAL]
        rival = next((one for one in done if one.number == number), None)
        return None if rival is None else Hurdle(rows=self._rows, rival=_losses(rival))

    def _rival(self, done: Sequence[FrozenTrial], point: Point) -> int | None:
        """The number of the best trial that costs no more and keeps to the constraints."""
        own = self._design.objective_costs(np.array([point]))[0]
        for trial in sorted(done, key=lambda one: (one.values[0], one.number)):
            if len(_losses(trial)) == self.samples and (np.array(trial.values[1:]) <= own).all():
                known = np.array([trial_point(trial, self._design.problem)])
                if self._design.allowed(known, np.array([trial.values[:1]])).all():
                    return trial.number
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """A trial that ended after its first samples."""

    trial: int
    point: Point
    source: str
    digest: str
    samples: int
    loss: float
    """Mean over those samples."""
    stderr: float
    estimate: float
    """Of the loss over all samples."""
    rival: int
    """The trial that costs no more and is better."""
    costs: Mapping[str, float]

    def row(self) -> dict[str, object]:
        """As a row of `pruned.csv`."""
        return {
            "trial": self.trial,
            "source": self.source,
            "samples": self.samples,
            "samples_loss": self.loss,
            "samples_stderr": self.stderr,
            "estimated_loss": self.estimate,
            "rival": self.rival,
            **self.costs,
            "digest": self.digest,
        }


def pruned_of(design: Design, study: optuna.Study) -> list[Pruned]:
    """The trials that ended after a first look, in order."""
    return [
        _pruned(design, trial)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
        if is_pruned(trial)
    ]


def _pruned(design: Design, trial: FrozenTrial) -> Pruned:
    point, known = trial_point(trial, design.problem), trial.user_attrs
    return Pruned(
        trial=trial.number,
        point=point,
        source=known["source"],
        digest=known["digest"],
        samples=int(known["quality"]["samples"]),
        loss=float(known["quality"]["loss"]),
        stderr=float(known["quality"]["stderr"]),
        estimate=float(known[ESTIMATE]),
        rival=int(known[RIVAL]),
        costs=design.total(point),
    )


def _losses(trial: FrozenTrial) -> tuple[float, ...]:
    return tuple(trial.user_attrs["quality"]["losses"])
