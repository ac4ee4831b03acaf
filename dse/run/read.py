"""The reader of the run folder; what is missing or torn is a `RunError` that says so."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dse.errors import RunError
from dse.run import files
from dse.run.entries import (
    FrontAssignment,
    FrontPlace,
    HardwareAnswer,
    MeasuredPoint,
    PointSpeedup,
    Recommendation,
    RegionCost,
    TunedTrial,
)
from dse.run.manifest import Manifest
from dse.run.search_run import SearchRun
from dse.run.tables import (
    TEXT_COLUMNS,
    Row,
    number_of,
    read_json,
    read_points,
    read_records,
    read_rows,
    trial_of,
)
from dse.sensitivity.table import Score, Sensitivity
from dse.space.schema import Space

PLACE_COLUMNS = ("trial", "worst_ratio")
KIND_WITHIN = 200
"""Characters of a manifest within which another kind of run says so."""


def read_run(folder: Path) -> SearchRun:
    """The run in a folder.

    Raises:
        RunError: the folder is missing, is no run, is torn, or has no front yet.
    """
    manifest = read_manifest(folder)
    points = read_points(folder, files.TRIALS)
    front = read_points(folder, files.FRONT)
    if not front:
        raise RunError(f"{folder / files.FRONT}: no point on the front{_remedy(folder, manifest)}")
    return SearchRun(
        folder=folder,
        manifest=manifest,
        points=points,
        front=_cheapest_first(front, manifest.objectives),
        choices=_choices(folder, manifest),
        sensitivity=_scores(folder),
        costs=read_records(folder, files.COSTS, RegionCost),
        recommendation=_recommendation(folder, files.RECOMMENDED),
        fronts=_places(folder),
        robust=_recommendation(folder, files.ROBUST),
        speedups=read_records(folder, files.SPEEDUPS, PointSpeedup),
        hardware=_hardware(folder),
    )


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the run in a folder.

    Raises:
        RunError: there is no folder, no manifest, or it is of another version.
    """
    path = folder / files.MANIFEST
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder; expected a run of `dse search` (see: --out)")
    if not path.is_file():
        raise RunError(f"{folder}: not a run folder: {files.MANIFEST} is missing")
    if '"kind": "training"' in path.read_text(encoding="utf-8", errors="replace")[:KIND_WITHIN]:
        raise RunError(
            f"{folder}: a search over training methods; what reads searches over formats of "
            "inference cannot read it (dse report can)"
        )
    manifest = read_json(TypeAdapter(Manifest), path)
    if manifest.format != files.FORMAT:
        raise RunError(
            f"{path}: format: expected {files.FORMAT}, got {manifest.format}; "
            f"read it with the dse that wrote it ({manifest.dse})"
        )
    return manifest


def read_space(folder: Path) -> tuple[Space, Path]:
    """The space of a run, and the folder that its relative paths are relative to.

    Raises:
        RunError: as `read_manifest`, or a space that this version does not read.
    """
    manifest = read_manifest(folder)
    try:
        space = Space.model_validate({"question": manifest.question, **manifest.space})
    except ValidationError as error:
        raise RunError(
            f"{folder / files.MANIFEST}: space: not one that this version of dse reads: {error}"
        ) from error
    origin = Path(manifest.space_file)
    here = origin.parent if origin.suffix in (".yaml", ".yml") else Path()
    there = folder / manifest.beside
    # A run is used from other folders than it was made in; one that was moved has nothing there.
    return space, min(here, there, key=lambda base: _absent(space, base))


def _absent(space: Space, base: Path) -> int:
    """Names of the space that lead to no file from a folder: those of catalogues never do."""
    hardware = (name for one in space.targets for name in (one.device, one.runtime))
    named = (space.model, space.cost_model, space.data.source, *hardware)
    return sum(name is not None and not (base / name).exists() for name in named)


def read_front(folder: Path) -> tuple[FrontAssignment, ...]:
    """The assignments of a run's front.

    Raises:
        RunError: no finished run, or a torn file.
    """
    read_manifest(folder)
    path = folder / files.FRONT_ASSIGNMENTS
    if not path.is_file():
        raise RunError(
            f"{path}: no such file: the run is not finished; go on with: "
            f"{files.resume_command(folder)}"
        )
    return read_json(TypeAdapter(tuple[FrontAssignment, ...]), path)


def read_recommendation(folder: Path) -> Recommendation:
    """The recommended point of a run.

    Raises:
        RunError: no run, or none that recommends one.
    """
    read_manifest(folder)
    found = _recommendation(folder, files.RECOMMENDED)
    if found is None:
        raise RunError(
            f"{folder / files.RECOMMENDED}: no such file: the run recommends nothing yet; go on "
            f"with: {files.resume_command(folder)}"
        )
    return found


def read_tuned(folder: Path, trial: int) -> TunedTrial:
    """The record of a trial that was tuned.

    Raises:
        RunError: it was not, or a torn file.
    """
    path = files.tuned_record(folder, trial)
    if not path.is_file():
        raise RunError(
            f"{path}: no such file: the trial was not tuned; tune it with: "
            f"{shlex.join(['dse', 'tune', str(folder), '--trial', str(trial)])}"
        )
    return read_json(TypeAdapter(TunedTrial), path)


def read_failures(folder: Path) -> Mapping[int, str]:
    """Trial -> why it failed."""
    path = folder / files.FAILURES
    rows = read_rows(folder, files.FAILURES, required=False)
    return {trial_of(row, path): row.get("error", "") for row in rows}


def _remedy(folder: Path, manifest: Manifest) -> str:
    """Advice about a run without a front."""
    if manifest.status == "complete":
        limits = ", ".join(manifest.constraints) or "nothing"
        return f": no assignment that was measured keeps to the constraints ({limits})"
    return f" yet; finish the run with: {files.resume_command(folder)}"


def _recommendation(folder: Path, name: str) -> Recommendation | None:
    path = folder / name
    return read_json(TypeAdapter(Recommendation), path) if path.is_file() else None


def _hardware(folder: Path) -> HardwareAnswer | None:
    path = folder / files.HARDWARE
    return read_json(TypeAdapter(HardwareAnswer), path) if path.is_file() else None


def _scores(folder: Path) -> tuple[Score, ...]:
    path = folder / files.SENSITIVITY
    return Sensitivity.read(path).scores if path.is_file() else ()


def _choices(folder: Path, manifest: Manifest) -> dict[int, dict[str, str]]:
    """Choices of every trial, by variable; only what the manifest offers."""
    path = folder / files.CHOICES
    offered = {variable.name: variable.choices for variable in manifest.variables}
    found = {}
    for row in read_rows(folder, files.CHOICES):
        trial = trial_of(row, path)
        chosen = {variable: choice for variable, choice in row.items() if variable != "trial"}
        for name, choice in chosen.items():
            if choice not in offered.get(name, ()):
                raise RunError(
                    f"{path}: trial {trial}: {name!r} takes {choice!r}, which the manifest "
                    f"does not offer there ({', '.join(offered.get(name, ())) or 'no variable'})"
                )
        found[trial] = chosen
    return found


def _places(folder: Path) -> tuple[FrontPlace, ...]:
    path = folder / files.FRONTS
    try:
        return tuple(_placed(row) for row in read_rows(folder, files.FRONTS, required=False))
    except (KeyError, ValueError) as error:
        raise RunError(f"{path}: a column is missing or no number ({error})") from error


def _placed(row: Row) -> FrontPlace:
    numbers = {key: value for key, cell in row.items() if (value := number_of(cell)) is not None}
    excess = {key: value for key, value in numbers.items() if key.endswith(files.EXCESS)}
    named = {*PLACE_COLUMNS, *TEXT_COLUMNS, *excess}
    return FrontPlace(
        front=row["front"],
        trial=int(row["trial"]),
        source=row.get("source", ""),
        name=row.get("name", ""),
        digest=row.get("digest", ""),
        worst_ratio=float(row["worst_ratio"]),
        columns={key: value for key, value in numbers.items() if key not in named},
        excess={key.removesuffix(files.EXCESS): value for key, value in excess.items()},
    )


def _cheapest_first(
    front: tuple[MeasuredPoint, ...], objectives: tuple[str, ...]
) -> tuple[MeasuredPoint, ...]:
    costs = [name for name in objectives if "quality_loss" not in name]
    key = costs[0] if costs else "trial"
    return tuple(sorted(front, key=lambda point: point.columns.get(key, float("inf"))))
