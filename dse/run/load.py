"""A run folder into a `Run`; what is missing or torn is a `RunError` that says so."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from dse.errors import RunError
from dse.run.manifest import Manifest
from dse.run.run import FrontPoint, Point, Recommendation, RegionCost, Run, Sensitivity

FORMAT = 1
"""The version of the run folder that this code reads."""

EXCESS = ".excess"
"""Suffix of the columns that say how far a cost is above its own front."""
TEXT_COLUMNS = ("trial", "source", "name", "state", "digest", "tied", "told")

Record = TypeVar("Record")
Row = Mapping[str, str]


def read_run(folder: Path) -> Run:
    """The run in `folder`.

    Raises:
        RunError: the folder is missing, is no run, is torn, or has no front yet.
    """
    manifest = read_manifest(folder)
    points = tuple(_point(row, folder / "trials.csv") for row in _rows(folder, "trials.csv"))
    front = tuple(_point(row, folder / "front.csv") for row in _rows(folder, "front.csv"))
    if not front:
        raise RunError(
            f"{folder / 'front.csv'}: no point on the front yet; finish the run with: "
            f"dse search {manifest.space_file or 'SPACE.yaml'} --out {folder} --resume"
        )
    return Run(
        folder=folder,
        manifest=manifest,
        points=points,
        front=_cheapest_first(front, manifest.objectives),
        choices={
            _trial(row, folder / "choices.csv"): _chosen(row)
            for row in _rows(folder, "choices.csv")
        },
        sensitivity=_records(folder, "sensitivity.csv", Sensitivity),
        costs=_records(folder, "costs.csv", RegionCost),
        recommendation=_recommendation(folder, "recommended.json"),
        fronts=tuple(_placed(row) for row in _rows(folder, "fronts.csv", required=False)),
        robust=_recommendation(folder, "robust.json"),
    )


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the run in `folder`.

    Raises:
        RunError: there is no folder, no manifest, or it is of another version.
    """
    path = folder / "manifest.json"
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder; expected a run of `dse search` (see: --out)")
    if not path.is_file():
        raise RunError(f"{folder}: not a run folder: manifest.json is missing")
    manifest = _parsed(TypeAdapter(Manifest), path)
    if manifest.format != FORMAT:
        raise RunError(
            f"{path}: format: expected {FORMAT}, got {manifest.format}; "
            f"read it with the dse that wrote it ({manifest.dse})"
        )
    return manifest


def _recommendation(folder: Path, name: str) -> Recommendation | None:
    path = folder / name
    return _parsed(TypeAdapter(Recommendation), path) if path.is_file() else None


def _parsed(adapter: TypeAdapter[Record], path: Path) -> Record:
    try:
        return adapter.validate_json(path.read_bytes())
    except ValidationError as error:
        raise RunError(_complaint(path, error)) from None
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}") from None


def _complaint(path: Path, error: ValidationError) -> str:
    """Every error of a file, one a line, with the field's path."""
    lines = (
        f"{path}: {'.'.join(str(part) for part in one['loc']) or 'file'}: {one['msg']}"
        for one in error.errors()
    )
    return "\n".join(lines)


def _rows(folder: Path, name: str, *, required: bool = True) -> list[Row]:
    """The rows of a CSV file; a row that is cut short is an error."""
    path = folder / name
    if not path.is_file():
        if required:
            raise RunError(
                f"{folder}: {name} is missing: the run has not got that far, or the folder is torn"
            )
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        rows: list[Row] = list(csv.DictReader(stream))
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise RunError(f"{path}:{number}: the row does not match the header: the file is torn")
    return rows


def _records(folder: Path, name: str, kind: type[Record]) -> tuple[Record, ...]:
    rows = _rows(folder, name, required=False)
    filled = [{key: cell for key, cell in row.items() if cell != ""} for row in rows]
    try:
        return tuple(TypeAdapter(list[kind]).validate_python(filled))  # type: ignore[valid-type]
    except ValidationError as error:
        raise RunError(_complaint(folder / name, error)) from None


def _point(row: Row, path: Path) -> Point:
    return Point(
        trial=_trial(row, path),
        source=row.get("source", ""),
        name=row.get("name", ""),
        state=row.get("state", "complete"),
        digest=row.get("digest", ""),
        tied=row.get("tied", "").lower() in ("true", "1"),
        columns={
            key: value
            for key, cell in row.items()
            if key not in TEXT_COLUMNS and (value := _number(cell)) is not None
        },
    )


def _placed(row: Row) -> FrontPoint:
    return FrontPoint(
        front=row["front"],
        trial=int(row["trial"]),
        worst_ratio=float(row["worst_ratio"]),
        excess={
            key.removesuffix(EXCESS): float(cell)
            for key, cell in row.items()
            if key.endswith(EXCESS)
        },
    )


def _trial(row: Row, path: Path) -> int:
    try:
        return int(row["trial"])
    except (KeyError, ValueError):
        raise RunError(
            f"{path}: trial: expected a whole number, got {row.get('trial')!r}"
        ) from None


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _chosen(row: Row) -> Mapping[str, str]:
    return {variable: choice for variable, choice in row.items() if variable != "trial"}


def _cheapest_first(front: tuple[Point, ...], objectives: tuple[str, ...]) -> tuple[Point, ...]:
    costs = [name for name in objectives if "quality_loss" not in name]
    key = costs[0] if costs else "trial"
    return tuple(sorted(front, key=lambda point: point.columns.get(key, float("inf"))))
