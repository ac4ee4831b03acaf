"""A trial of a run folder, exported."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from dse.data import Sizes
from dse.errors import DataError, ExportError, RunError
from dse.evaluate.batches import batches
from dse.evaluate.splits import splits_of
from dse.execute.emulate import Emulator
from dse.execute.operators.operator import Value
from dse.execute.operators.step import Quantize
from dse.execute.program.program import Program
from dse.execute.quantizers import bound, with_emulators
from dse.execute.weights.calibrate import Calibration, load_calibration
from dse.execute.weights.learn import FILE as WEIGHTS_FILE
from dse.execute.weights.learn import WeightStates
from dse.export.base import Check, Launchable, Recipe
from dse.export.deliver import deliver
from dse.export.exporters import exporter
from dse.graph.assignment_json import from_json
from dse.graph.ir.assignment import Assignment
from dse.graph.ir.graph import Graph
from dse.model import Model
from dse.numerics import QuantizerState, StateError, load_states, states_digest
from dse.run import files
from dse.run.entries import FrontAssignment, Recommendation
from dse.run.files import STATE
from dse.run.read import (
    read_front,
    read_manifest,
    read_recommendation,
    read_space,
    read_tuned,
)
from dse.space.opened import searched_model
from dse.space.schema import Space
from dse.zoo.split import Splits, digest_of
from hwmodels.formats import catalog

Feeds = Callable[[], Iterable[Mapping[str, Value]]]
"""Batches of calibration data, each time anew."""
SAMPLES = 2
"""Samples that checkers compare outputs on, where the model does not ask for more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """The outcome of an export."""

    trial: int
    path: Path
    """The file or folder that was written."""
    checks: tuple[Check, ...] = ()
    """Verdicts of checkers; empty where none was asked."""
    launch: str = ""
    """The command that serves it, where one does."""


def export_trial(
    folder: Path,
    *,
    trial: int | None,
    target: str,
    out: Path,
    verify: bool = False,
    tuned: bool = False,
) -> Exported:
    """Write a trial of a run's front for a runtime.

    Scales and learned weights are those that the run measured with.

    Args:
        folder: the run folder.
        trial: a number of the front; the recommended one by default.
        target: a name of `dse.export.exporters.exporter_names`.
        out: the file or folder to write.
        verify: whether the target's checkers read it back.
        tuned: with what `dse tune` has learned about it.

    Raises:
        RunError: no run folder, no such trial on its front, one that was not tuned, or another
            model by now.
        ExportError: no such target, what it cannot express, or a checker that computes something
            else.
        WriteError: it cannot be written.
    """
    recipe = recipe_of(folder, trial, tuned=tuned)
    if verify:
        recipe = replace(recipe, samples=_samples(folder, recipe.graph))
    checks = deliver(recipe, target, out, verify=verify)
    assert recipe.trial is not None, "a run's trials have numbers"
    chosen = exporter(target)
    launch = chosen.launch(recipe, out) if isinstance(chosen, Launchable) else ""
    return Exported(trial=recipe.trial, path=out, checks=checks, launch=launch)


def recipe_of(folder: Path, trial: int | None, *, tuned: bool = False) -> Recipe:
    """A trial with the scales and learned weights that the run measured with.

    Args:
        folder: the run folder.
        trial: a number of the front; the recommended one by default.
        tuned: take what `dse tune` has learned about it.

    Raises:
        RunError: no run folder, no such trial on its front, one that was not tuned, or another
            model by now.
        ExportError: the model has no weights here.
    """
    chosen = chosen_trial(folder, trial)
    source = RecipeSource.of(folder)
    assignment = from_json(json.dumps(chosen.assignment), source.model.graph, catalog.quantizer)
    states = tuned_states(folder, chosen.trial) if tuned else None
    return source.recipe(assignment, trial=chosen.trial, tuned=states)


def tuned_states(folder: Path, trial: int) -> Mapping[str, QuantizerState]:
    """The states that `dse tune` has learned about a trial, by site.

    Raises:
        RunError: it was not tuned, or the file is torn.
    """
    record = read_tuned(folder, trial)
    path = files.tuned_states(folder, trial)
    try:
        states = load_states(path)
    except StateError as error:
        raise RunError(f"{error}; make it again with dse tune --replace") from error
    if states_digest(states) != record.digest:
        raise RunError(f"{path}: is not what {files.tuned_record(folder, trial)} tells of")
    return states


def _tuned(
    bound: Mapping[str, Quantize], states: Mapping[str, QuantizerState]
) -> dict[str, Emulator]:
    """The emulators with tuned states; equal ones are one, so that their results are shared.

    Raises:
        RunError: no quantizer stands at one of the sites.
    """
    known: dict[tuple[object, ...], Emulator] = {}
    found = {}
    for key, state in states.items():
        emulator = bound.get(key)
        if not isinstance(emulator, Emulator):
            raise RunError(f"tuned states: no quantizer stands at {key!r}; tune the trial again")
        place = (emulator.quantizer, emulator.axes, states_digest({"": state}))
        found[key] = known.setdefault(place, replace(emulator, state=state, statistics=None))
    return found


@dataclass(frozen=True, kw_only=True)
class RecipeSource:
    """The model of a run with what calibration found, from which assignments become recipes."""

    model: Model
    program: Program
    calibration: Calibration
    weights: WeightStates

    @classmethod
    def of(cls, folder: Path, feeds: Feeds | None = None) -> RecipeSource:
        """The source of a run.

        Args:
            folder: the run folder.
            feeds: calibration data for what the run did not learn; None: it has learned all.

        Raises:
            RunError: no run folder, or another model by now.
            ExportError: the model has no weights here.
        """
        model, state = model_of(folder), folder / STATE
        if not model.graph.has_weights:
            missing = ", ".join(model.graph.absent_files)
            raise ExportError(f"{model.name}: has no weights here ({missing} is absent)")
        program = Program(model.graph, analysis=model.analysis)
        weights = WeightStates(program, model.analysis.with_tables, feeds or _missing(folder))
        if (state / WEIGHTS_FILE).exists():
            weights.load(state)
        return cls(
            model=model, program=program, calibration=load_calibration(state), weights=weights
        )

    def recipe(
        self,
        assignment: Assignment,
        *,
        trial: int | None = None,
        tuned: Mapping[str, QuantizerState] | None = None,
    ) -> Recipe:
        """An assignment with everything that was found for it, and what it was tuned to."""
        sites = self.model.analysis.sites_with(key for key, _ in assignment)
        found = bound(assignment, sites, self.calibration, self.weights)
        return Recipe(
            name=self.model.name,
            program=self.program,
            assignment=assignment,
            bound=with_emulators(found, _tuned(found, tuned)) if tuned else found,
            trial=trial,
        )


def calibration_feeds(folder: Path) -> Feeds:
    """The calibration split of a run, read when it is asked for."""

    def feeds() -> Iterable[Mapping[str, Value]]:
        splits = splits_of_run(folder, model_of(folder).graph)
        batch = read_space(folder)[0].data.batch
        return (one.feeds for one in batches(splits.calibration, batch, "cpu"))

    return feeds


def splits_of_run(folder: Path, graph: Graph) -> Splits:
    """The samples that a run measured with.

    Raises:
        DataError: the source is not there, or has too few.
        RunError: it holds other samples by now.
    """
    space, beside = read_space(folder)
    splits = _splits(space, beside, graph, report=space.data.report)
    check_samples(folder, splits)
    return splits


def check_samples(folder: Path, splits: Splits) -> None:
    """Holds samples against those that a run measured with.

    Raises:
        RunError: they are others.
    """
    before, now = read_manifest(folder).data_digest, digest_of(splits.arrays)
    if before and before != now:  # versions that took none left it empty
        raise RunError(
            f"{folder}: {read_space(folder)[0].data.source} holds other samples than the run "
            f"measured with (digest {before}, now {now}), so that losses could not be compared; "
            "put them back"
        )


def _samples(folder: Path, graph: Graph) -> Mapping[str, Tensor] | None:
    """A batch of the run's report split; None where its data came from a program."""
    space, beside = read_space(folder)
    shapes = [graph.shape(name) or () for name in graph.inputs]
    fixed = [shape[0] for shape in shapes if shape and isinstance(shape[0], int)]
    count = max([SAMPLES, *fixed])
    try:
        splits = _splits(space, beside, graph, report=max(count, space.data.report))
    except DataError:
        return None
    return next(batches(splits.report, count, "cpu")).feeds


def _splits(space: Space, beside: Path, graph: Graph, *, report: int) -> Splits:
    """The data of a run, with as many samples of the report split as asked."""
    data = space.data
    sizes = Sizes(calibration=data.calibration, search=data.search, report=report)
    return splits_of(graph, data, beside, sizes=sizes)


def chosen_trial(folder: Path, trial: int | None) -> FrontAssignment | Recommendation:
    """A trial of the front; the recommended one if none is named.

    Raises:
        RunError: no run folder, or no such trial on its front.
    """
    if trial is None:
        return read_recommendation(folder)
    found = {entry.trial: entry for entry in read_front(folder)}
    if trial not in found:
        known = ", ".join(str(number) for number in sorted(found))
        raise RunError(f"{folder}: trial {trial} is not on the front; expected one of {known}")
    return found[trial]


def model_of(folder: Path) -> Model:
    """The model of a run.

    Raises:
        RunError: it is not where it was, or it is another one by now.
    """
    space, beside = read_space(folder)
    model = searched_model(space, beside)
    if model.graph.digest != read_manifest(folder).model_digest:
        raise RunError(f"{folder}: was made with another {space.model}; search that one again")
    return model


def _missing(folder: Path) -> Feeds:
    """Calibration data, which an export does not have: the run's state must hold everything."""

    def fail() -> Iterable[Mapping[str, Value]]:
        raise RunError(
            f"{folder / STATE}: does not hold what calibration learned; resume the "
            "search to write it"
        )

    return fail
