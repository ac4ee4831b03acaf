"""The writer of the run folder: every file in one step, so that none is ever half there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from dse.files import write_atomically
from dse.run import files
from dse.run.entries import (
    FrontAssignment,
    FrontPlace,
    HardwareAnswer,
    MeasuredPoint,
    PointSpeedup,
    Recommendation,
    RegionCost,
)
from dse.run.manifest import Manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json`."""
    content = manifest.model_dump(mode="json", by_alias=True)
    write_json(folder / files.MANIFEST, content)


def write_trials(folder: Path, points: Sequence[MeasuredPoint], columns: Sequence[str]) -> None:
    """Write `trials.csv`.

    Args:
        folder: the run folder.
        points: every trial.
        columns: names of numbers, in order; what a point does not have is left empty.
    """
    _write_points(folder / files.TRIALS, points, columns, [])


def write_front(folder: Path, points: Sequence[MeasuredPoint], columns: Sequence[str]) -> None:
    """Write `front.csv`: `trials.csv`'s columns, and whether a uniform assignment is as good."""
    _write_points(folder / files.FRONT, points, columns, ["tied"])


def write_choices(
    folder: Path, choices: Mapping[int, Mapping[str, str]], variables: Sequence[str]
) -> None:
    """Write `choices.csv`: trial -> what every variable took."""
    rows = [{"trial": trial, **chosen} for trial, chosen in choices.items()]
    write_table(folder / files.CHOICES, rows, ["trial", *variables])


def write_costs(folder: Path, costs: Sequence[RegionCost]) -> None:
    """Write `costs.csv`."""
    columns = list(RegionCost.model_fields)
    write_table(folder / files.COSTS, [dict(cost) for cost in costs], columns)


def write_speedups(folder: Path, speedups: Sequence[PointSpeedup]) -> None:
    """Write `speedups.csv`."""
    columns = list(PointSpeedup.model_fields)
    write_table(folder / files.SPEEDUPS, [dict(one) for one in speedups], columns)


def write_front_assignments(folder: Path, assignments: Sequence[FrontAssignment]) -> None:
    """Write `front.json`."""
    write_json(folder / files.FRONT_ASSIGNMENTS, [_chosen_json(one) for one in assignments])


def write_recommendations(
    folder: Path, recommended: Recommendation | None, robust: Recommendation | None
) -> None:
    """Write `recommended.json` and `robust.json`; where there is none, an earlier one goes."""
    for name, one in ((files.RECOMMENDED, recommended), (files.ROBUST, robust)):
        if one is None:
            (folder / name).unlink(missing_ok=True)
        else:
            write_json(folder / name, _chosen_json(one))


def write_fronts(folder: Path, places: Sequence[FrontPlace]) -> None:
    """Write `fronts.csv`; no file where there is one target."""
    path = folder / files.FRONTS
    if not places:
        path.unlink(missing_ok=True)
        return
    losses = [name for name in places[0].columns if files.is_loss(name)]
    costs = [name for name in places[0].columns if not files.is_loss(name)]
    rows = [
        {
            **dict(place),
            **place.columns,
            **{f"{column}{files.EXCESS}": value for column, value in place.excess.items()},
        }
        for place in places
    ]
    columns = [
        "front", "trial", "source", "name", *losses, "worst_ratio", "digest", *costs,
        *(f"{column}{files.EXCESS}" for column in places[0].excess),
    ]  # fmt: skip
    write_table(path, rows, columns)


def write_hardware(folder: Path, found: HardwareAnswer) -> None:
    """Write `hardware.json`."""
    write_json(folder / files.HARDWARE, found.model_dump(mode="json"))


def write_failures(folder: Path, failures: Mapping[int, str]) -> None:
    """Write `failures.csv`, trial -> why it failed; no file where none did."""
    if failures:
        rows = [{"trial": trial, "error": error} for trial, error in failures.items()]
        write_table(folder / files.FAILURES, rows, ["trial", "error"])


def write_pruned(
    folder: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str]
) -> None:
    """Write `pruned.csv`; no file where nothing ended after a first look."""
    if rows:
        write_table(folder / files.PRUNED, rows, columns)


def write_json(path: Path, content: Mapping[str, object] | Sequence[object]) -> None:
    """Write JSON in one step; NaN is refused, since JSON has none."""
    write_atomically(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_table(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> None:
    """Write a CSV in one step; what a row does not have is left empty."""
    table = pd.DataFrame.from_records(list(rows), columns=list(columns))
    write_atomically(path, table.to_csv(index=False, lineterminator="\n"))


def _write_points(
    path: Path, points: Sequence[MeasuredPoint], columns: Sequence[str], more: Sequence[str]
) -> None:
    rows = [
        {**dict(p), **_hardware_cells(p), **p.columns, "told": " ".join(p.told)} for p in points
    ]
    told = ["told"] if any(point.told for point in points) else []
    hardware = dict.fromkeys(name for point in points for name in _hardware_cells(point))
    header = ["trial", "source", "name", *hardware, *columns, "digest", "state", *told, *more]
    write_table(path, rows, header)


def _chosen_json(one: FrontAssignment | Recommendation) -> dict[str, object]:
    """An assignment that was chosen; its hardware where that varies."""
    return one.model_dump(exclude=None if one.hardware else {"hardware"})


def _hardware_cells(point: MeasuredPoint) -> dict[str, str]:
    return {f"{files.HARDWARE_COLUMN}{name}": text for name, text in point.hardware.items()}
