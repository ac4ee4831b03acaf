"""`dse search --from RUN`: measured qualities on other devices or budgets, at no evaluation."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from dse.errors import RunError
from dse.evaluate.quality import Quality
from dse.explore.loop import identity
from dse.explore.manifest import described
from dse.explore.measure.on_hardware import on_all_hardware
from dse.explore.measure.records import (
    MEASUREMENT,
    REPORT_ATTRIBUTE,
    measured_attributes,
    measured_digest,
    measured_qualities,
    objective_values,
    records_of,
)
from dse.explore.problem.design import Design, open_design
from dse.explore.problem.feasible import check_front, check_measured, satisfied
from dse.explore.problem.hardware import Grid, grid_of
from dse.explore.problem.records import Record
from dse.explore.problem.selection import contenders, front_indices
from dse.explore.restore import check_model, study_to_read
from dse.explore.run import Overrides, SearchResult, default_folder, overridden
from dse.explore.scores import REFERENCE
from dse.explore.shadow_prices import hardware_answer
from dse.explore.solve.surrogate import Surrogate
from dse.explore.study.outside import ATTRIBUTE, corrected, outside_measurements
from dse.explore.study.storage import translated
from dse.explore.study.study import distributions, locked, open_study, trial_point
from dse.explore.write import write_tables
from dse.files import write_atomically, writing
from dse.run.files import SENSITIVITY, STATE
from dse.run.folder import open_folder
from dse.run.read import read_manifest, read_space
from dse.run.write import write_hardware, write_manifest
from dse.sensitivity.table import Sensitivity
from dse.space.load import space_yaml
from dse.space.relocate import relocated
from dse.space.schema import Space

SPACE = "space.yaml"
"""The space of the new run, so that `--resume` can measure more."""
KEPT = (
    "metric",
    "metric_goal",
    "reference_metric",
    "outputs",
    "loss_unit",
    "constant_loss",
    "constant_flip_rate",
    "samples",
    "ranges",
    "data_digest",
)
"""A manifest's entries on the measurements, which are the old run's."""

LOGGER = logging.getLogger(__name__)


def reprice(
    run: str | Path,
    *,
    overrides: Overrides | None = None,
    out: Path | None = None,
    storage: str | None = None,
) -> SearchResult:
    """A new run folder with the fronts of an old run's measurements under other targets or limits.

    Costs are computed anew, qualities are those that were measured. The front is decided among
    what has been measured on the report split; what else might belong on it is counted in the
    manifest (`unreported`), and is measured when the new run is continued.

    Args:
        run: a run folder.
        overrides: what differs; new constraints are added to the old ones.
        out: the new folder; `runs/<run>-<time>` by default. It keeps its own study.
        storage: the URL of the old run's shared study, where its manifest hides a password.

    Raises:
        StorageError: a shared study cannot be reached.
        RunError: the old folder cannot be read, or the new one exists.
        InfeasibleError: nothing that was measured satisfies the constraints.
    """
    run, overrides = Path(run), overrides or Overrides()
    out = out or default_folder(str(run))
    manifest = read_manifest(run)
    space, folder = read_space(run)
    space = overridden(relocated(_untargeted(space, overrides), folder), overrides)
    origin = str(out / SPACE)
    design = open_design(space, origin=origin, folder=out)
    check_model(run, manifest, design)
    known = {**identity(design), "storage": None, "study": None}
    with study_to_read(run, storage) as old:
        open_folder(out, known, resume=False)
        with locked(out), translated(str(out)):
            same = not (overrides.targets or overrides.settings)
            records = _taken_over(design, old, out, same_targets=same)
            grid = _grid(design, run)
            if grid is not None:
                study = open_study(out, design.objectives.names)
                records = on_all_hardware(design, study, grid)
    chosen = front_indices(
        records, design.objectives, feasible=satisfied(design.constraints, records)
    )
    front = tuple(records[index] for index in chosen)
    write_atomically(out / SPACE, space_yaml(space))
    for name in (SENSITIVITY, STATE):
        with writing(out / name):
            _copy(run / name, out / name)
    write_tables(out, design, records, front, metric=manifest.metric)
    if grid is not None and front:
        scored = _surrogates(design, run)
        write_hardware(out, hardware_answer(design, grid, scored, records, front))
    kept = {name: getattr(manifest, name) for name in KEPT}
    facts = {
        "origin": str(run),
        "unreported": _unreported(design, records),
        "forward_equivalents": {"total": 0.0},
    }
    write_manifest(out, described(design, out, known, **kept, **facts))
    check_measured(design.constraints, records)
    check_front(front, records, design.objectives.costs)
    return SearchResult(folder=out, front=front)


def _grid(design: Design, run: Path) -> Grid | None:
    """The hardware points under the new limits, by the old run's scores; None where none vary."""
    return None if design.varied is None else grid_of(design, _surrogates(design, run))


def _surrogates(design: Design, run: Path) -> tuple[Surrogate, ...]:
    """Losses of every choice alone, as the old run scored them.

    Raises:
        RunError: the old run has not got that far, or scored another problem.
    """
    path = run / SENSITIVITY
    try:
        return design.losses(Sensitivity.read(path))
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; the run has not got that far") from None


def unreported(run: Path) -> int:
    """Assignments of a reused run that may belong on its front and lack the report split."""
    return read_manifest(run).unreported


def _taken_over(
    design: Design, old: optuna.Study, out: Path, *, same_targets: bool
) -> list[Record]:
    """The old study's completed trials in the new run's study, priced anew.

    A measurement is that of a network: the new targets may execute the same one in place of
    another assignment, or another one in place of the same.
    """
    study = open_study(out, design.objectives.names)
    for key, content in old.user_attrs.items():
        if key.startswith(REPORT_ATTRIBUTE):
            study.set_user_attr(key, _free(content))
        elif key.startswith(REFERENCE):
            study.set_user_attr(key, content)
    trials = old.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    known = {
        digest: quality
        for trial in trials
        for digest, quality in measured_qualities(trial).items()
    }
    networks = {trial.user_attrs["digest"]: measured_digest(trial) for trial in trials}
    for digest, told in outside_measurements(old.user_attrs, design.problem).items():
        kept = told if same_targets else told.without_costs
        same = networks.get(digest) in (None, design.networks.measured(told.point).digest)
        if kept.values and same:
            name = design.problem.assignment(told.point).digest
            study.set_user_attr(f"{ATTRIBUTE}{name}", kept.to_json(design.problem))
    design = corrected(design, study.user_attrs)
    taken = [trial for trial in map(_again(design, known), trials) if trial is not None]
    for trial in taken:
        study.add_trial(trial)
    if other := len(trials) - len(taken):
        LOGGER.warning(
            "%d trials are left out: the targets run other networks in their place", other
        )
    return records_of(design, study)


def _again(
    design: Design, known: Mapping[str, Quality]
) -> Callable[[FrozenTrial], FrozenTrial | None]:
    """A trial -> the same point in another run; None where a network was not measured."""

    def again(trial: FrozenTrial) -> FrozenTrial | None:
        point = trial_point(trial, design.problem)
        main, *others = (network.digest for network in design.searched(point))
        if not {main, *others} <= known.keys():
            return None
        more = {digest: known[digest] for digest in others}
        attributes = {
            name: value for name, value in trial.user_attrs.items() if name not in MEASUREMENT
        }
        attributes["digest"] = design.problem.assignment(point).digest
        attributes |= measured_attributes(design, point, known[main], more)
        return optuna.trial.create_trial(
            params=trial.params,
            distributions=dict(distributions(design.problem)),
            values=objective_values(design, point, known),
            user_attrs=_free(attributes),
        )

    return again


def _free(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of a measurement that cost this run nothing."""
    return {**attributes, "macs": 0}


def _untargeted(space: Space, overrides: Overrides) -> Space:
    """The space with columns for every target, where new targets replace those they name."""
    if not overrides.targets:
        return space
    labels = [f"{target.label}." for target in space.targets]

    def plain(text: str) -> str:
        label = next((label for label in labels if text.strip().startswith(label)), "")
        return text.strip().removeprefix(label)

    return space.model_copy(
        update={
            "objectives": tuple(dict.fromkeys(map(plain, space.objectives))),
            "constraints": tuple(dict.fromkeys(map(plain, space.constraints))),
        }
    )


def _unreported(design: Design, records: Sequence[Record]) -> int:
    """Assignments that may belong on the front and were not measured on the report split."""
    feasible = satisfied(design.constraints, records)
    found = contenders(records, design.objectives, feasible=feasible)
    losses = design.objectives.losses
    return sum(any(records[i].reported(name) is None for name in losses) for i in found)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.is_file():
        shutil.copyfile(source, target)
