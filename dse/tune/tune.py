"""`dse tune`: a trial of a run folder, distilled and kept beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from dse.errors import RunError
from dse.evaluate.evaluator import Evaluator
from dse.evaluate.quality import Quality
from dse.evaluate.setup import build_evaluator
from dse.execute.operators.step import Quantize
from dse.execute.quantizers import with_emulators
from dse.export.trial import RecipeSource, check_samples, chosen_trial, splits_of_run
from dse.graph.assignment_json import from_json
from dse.graph.ir.assignment import Assignment
from dse.graph.ir.site import Site
from dse.numerics import save_states
from dse.run import files
from dse.run.entries import TunedTrial, TuningSettings
from dse.run.folder import check_own
from dse.run.read import read_space
from dse.run.write import write_json
from dse.training.checkpoint import step_on
from dse.tune.distillation import Distillation, Loss, divergence
from dse.tune.learner import learners_of
from dse.tune.operand import operands_of
from dse.zoo.split import Split
from hwmodels.formats import catalog

Listener = Callable[[int, float], None]
"""(step, loss of its batch)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A recipe before it is tuned, and everything that it is measured with."""

    evaluator: Evaluator
    bound: Mapping[str, Quantize]
    sites: Mapping[str, Site]

    @classmethod
    def of(
        cls, folder: Path, assignment: Assignment, source: RecipeSource, *,
        samples: int | None = None, compute: str = "cpu",
    ) -> Start:  # fmt: skip
        """The start of a trial of a run, with as many samples of the calibration split as asked.

        Raises:
            DataError: the run's data are not there, or too few.
            RunError: they are others by now.
        """
        space, beside = read_space(folder)
        data = space.data.model_copy(update={"calibration": samples or space.data.calibration})
        analysis = source.model.analysis
        sites = analysis.sites_with(key for key, _ in assignment)
        evaluator = build_evaluator(
            analysis, data, sites, (), folder=beside, compute=compute, quality=space.quality
        )
        if data == space.data:
            check_samples(folder, evaluator.splits)
        else:
            splits_of_run(folder, source.model.graph)
        return cls(evaluator=evaluator, bound=source.recipe(assignment).bound, sites=sites)

    def distillation(self, settings: TuningSettings, *, loss: Loss = divergence) -> Distillation:
        """The training of the recipe.

        Raises:
            RunError: nothing of it can be learned.
        """
        operands = operands_of(self.bound, self.sites, self.evaluator.program)
        if not operands:
            raise RunError(
                f"trial {settings.trial}: nothing is quantized to fewer than 16 bits in a way "
                "that can be learned; tune a trial with narrower formats"
            )
        learners = learners_of(operands, settings.learn, rank=settings.rank, seed=settings.seed)
        if not learners:
            raise RunError(
                f"trial {settings.trial}: --learn {settings.learn}: no scale of its formats is a "
                "float of 16 bits or more; use --learn weights or --learn low-rank"
            )
        return Distillation(
            evaluator=self.evaluator,
            bound=self.bound,
            learners=learners,
            data=self.data,
            steps=settings.steps,
            rate=settings.rate,
            seed=settings.seed,
            loss=loss,
        )

    @property
    def data(self) -> Split:
        """The samples that it is tuned on: those of the calibration and of the search split."""
        first, second = self.evaluator.splits.calibration, self.evaluator.splits.search
        labels = None
        if first.labels is not None and second.labels is not None:
            labels = np.concatenate([first.labels, second.labels])
        inputs = {
            name: np.concatenate([values, second.inputs[name]])
            for name, values in first.inputs.items()
        }
        return Split(inputs=inputs, labels=labels, kind=first.kind, axes=first.axes)


def tune_trial(
    folder: Path,
    settings: TuningSettings,
    *,
    compute: str = "cpu",
    resume: bool = False,
    replace: bool = False,
    listener: Listener | None = None,
) -> TunedTrial:
    """Distil a trial of a run's front against full precision, and keep what was learned.

    Trained on the calibration and the search split, scored on the report split. An interruption
    leaves a checkpoint.

    Args:
        folder: the run folder.
        settings: the trial, and how it is tuned.
        compute: `cpu` or `cuda`.
        resume: go on from a checkpoint of the same settings.
        replace: whether a tuning that is there, finished or not, is done again.
        listener: told of every step.

    Raises:
        RunError: no run folder, no such trial, nothing that can be learned, a tuning that is
            there already, data that are others by now, or a loss that is no number.
        DataError: the run's data are not there, or too few.
        ExportError: the model has no weights here.
    """
    chosen = chosen_trial(folder, settings.trial)
    check_own(folder)
    kept = files.tuning_checkpoint(folder, settings.trial)
    _check_place(folder, settings, resume=resume, replace=replace)
    source = RecipeSource.of(folder)
    assignment = from_json(json.dumps(chosen.assignment), source.model.graph, catalog.quantizer)
    if assignment.sums:
        raise RunError(
            f"trial {settings.trial}: has accumulators of its own, which pass no gradient; tune a "
            "trial whose products are summed in float32"
        )
    start = Start.of(folder, assignment, source, samples=settings.samples, compute=compute)
    training = start.distillation(settings)
    if resume:
        training.resume(kept, settings.model_dump())
    before = start.evaluator.measure_bound(start.bound, "report")
    _train(training, kept, settings, listener)
    learned = training.learned()
    after = start.evaluator.measure_bound(with_emulators(start.bound, learned), "report")
    states = {key: one.state for key, one in learned.items() if one.state is not None}
    digest = save_states(
        {key: state.apart() for key, state in states.items()},
        files.tuned_states(folder, settings.trial),
    )
    done = _record(settings, training, (before, after), digest=digest, sites=len(states))
    place = files.tuned_record(folder, settings.trial)
    place.parent.mkdir(exist_ok=True)
    write_json(place, done.model_dump(mode="json"))
    kept.unlink(missing_ok=True)
    return done


def _check_place(folder: Path, settings: TuningSettings, *, resume: bool, replace: bool) -> None:
    """Nothing is written over unasked, and only what was begun is continued.

    Raises:
        RunError: a tuning is there and neither option was given, or none is to be resumed.
    """
    begun = files.tuning_checkpoint(folder, settings.trial)
    ended = files.tuned_record(folder, settings.trial)
    if resume and not begun.exists():
        what = f"{ended}: is finished" if ended.exists() else f"{begun}: no such file"
        raise RunError(f"--resume: {what}; there is nothing to go on with: leave --resume out")
    if not resume and not replace and (begun.exists() or ended.exists()):
        there = "was begun and can go on with --resume" if begun.exists() else "is finished"
        raise RunError(
            f"{folder}: a tuning of trial {settings.trial} {there}; --replace does it again"
        )


def _train(
    training: Distillation, kept: Path, settings: TuningSettings, listener: Listener | None
) -> None:
    """Steps to the end; a checkpoint now and then, and when it is interrupted."""

    def stop(loss: float) -> bool:
        if listener is not None:
            listener(training.step, loss)
        return False

    step_on(training, save=partial(training.save, kept, settings.model_dump()), stop=stop)


def _record(
    settings: TuningSettings,
    training: Distillation,
    losses: tuple[Quality, Quality],
    *,
    digest: str,
    sites: int,
) -> TunedTrial:
    before, after = losses
    change = np.array(before.losses) - np.array(after.losses)
    known = [None if math.isnan(one.metric) else one.metric for one in losses]
    return TunedTrial(
        settings=settings,
        digest=digest,
        sites=sites,
        before=before.loss,
        before_stderr=before.stderr,
        after=after.loss,
        after_stderr=after.stderr,
        recovered=float(change.mean()),
        recovered_stderr=float(change.std(ddof=1) / math.sqrt(len(change))),
        metric_before=known[0],
        metric_after=known[1],
        seconds=training.seconds,
        forward_equivalents=training.macs / training.evaluator.forward_macs("search"),
    )
