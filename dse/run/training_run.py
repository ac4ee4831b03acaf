"""The run folder of a search over training methods: its own manifest and tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, TypeAdapter

from dse.errors import RunError
from dse.run import files
from dse.run.entries import MeasuredPoint
from dse.run.manifest import FileModel, Status
from dse.run.tables import read_json, read_points, read_records, read_rows
from dse.run.write import write_front, write_json, write_table, write_trials

KIND = "training"
"""The word in the manifest by which such a run is told from one of assignments."""
ABLATION = "ablation.csv"
RECOMMENDED_METHOD = "recommended.yaml"
COLUMNS = (
    "gap", "gap_low", "gap_high", "pairs", "diverged", "loss",
    "report_gap", "report_gap_low", "report_gap_high", "report_pairs", "report_diverged",
    "report_loss", "step_s", "step_low_s", "step_high_s", "energy_j", "memory_bytes", "rival",
)  # fmt: skip
"""Of trials.csv and front.csv; gaps in nats above bf16, with 95 % intervals over seeds."""
Verdict = Literal["better", "worse", "unresolved", "same"]


class TrainingManifest(FileModel):
    """The manifest: what was asked, with what, and what it took."""

    format: int
    kind: Literal["training"]
    dse: str
    versions: Mapping[str, str] = Field(default_factory=dict)
    created: str = ""
    status: Status = "complete"
    question: str = ""
    space_file: str = ""
    space: Mapping[str, object] = Field(default_factory=dict)
    workload: str
    data: str
    steps: int
    compute: str = "cpu"
    """The kind of processor that networks were trained on: losses of two kinds are no pairs."""
    parameters: int = 0
    """Of the network that is trained."""
    search_seeds: tuple[int, ...]
    report_seeds: tuple[int, ...]
    cost_model: str
    dims: Mapping[str, int] = Field(default_factory=dict)
    target: str
    device: str
    runtime: str
    objectives: tuple[str, ...]
    start: str
    named: tuple[str, ...] = ()
    variables: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    runs: int = 0
    """Seeds that were trained, those that ended early included."""
    elapsed_s: Mapping[str, float] = Field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def asked(self) -> str:
        """The question itself."""
        return self.question.partition("?")[0] + "?" if "?" in self.question else self.question

    @property
    def background(self) -> str:
        """The content of the space beside its question."""
        return self.question.removeprefix(self.asked).strip()


class AxisChange(FileModel):
    """One axis of a method turned, and what that does."""

    base: int
    """Trial of the method whose axis is turned."""
    variable: str
    before: str
    after: str
    mean: float | None = None
    """Loss with the axis turned, minus that without, nats."""
    low: float | None = None
    high: float | None = None
    pairs: int = 0
    diverged: int = 0
    """Seeds of the turned method that diverged."""
    step_ratio: float | None = None
    """Step time with the axis turned over that without."""
    memory_ratio: float | None = None
    refused: str = ""
    """The reason why the axis cannot be turned alone."""

    @property
    def is_resolved(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


class RecommendedMethod(FileModel):
    """The method that the search would take, and how it stands on other seeds."""

    trial: int
    name: str = ""
    method: Mapping[str, object] = Field(default_factory=dict)
    """As a method file has it."""
    beside: str
    """The named method that it is compared with."""
    beside_trial: int
    chosen: int
    """Trial that the search chose; the recommended one is `beside` where that loses less on the
    report's seeds."""
    verdict: Verdict
    """Of what was chosen against `beside`, on the report's seeds: `same` where it is that."""
    mean: float | None = None
    """Loss of what was chosen minus that of `beside`, paired, on the report's seeds."""
    low: float | None = None
    high: float | None = None
    pairs: int = 0
    seeds_needed: int | None = None
    """Seeds that a difference of that size takes."""


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """A finished search over methods, as its folder says."""

    folder: Path
    manifest: TrainingManifest
    points: tuple[MeasuredPoint, ...]
    front: tuple[MeasuredPoint, ...]
    """Non-dominated on the report's seeds, fastest step first."""
    choices: Mapping[int, Mapping[str, str]]
    sensitivity: tuple[AxisChange, ...]
    ablation: tuple[AxisChange, ...]
    recommended: RecommendedMethod | None

    @cached_property
    def by_trial(self) -> Mapping[int, MeasuredPoint]:
        """Points by trial."""
        return {point.trial: point for point in (*self.points, *self.front)}

    @property
    def reference(self) -> MeasuredPoint:
        """The row of bf16."""
        return next(point for point in self.points if point.source == "reference")

    @property
    def start_choices(self) -> Mapping[str, str]:
        """Options of the method that axes are varied from."""
        start = next((p for p in self.points if p.name == self.manifest.start), None)
        return self.choices.get(start.trial, {}) if start else {}


def is_training_run(folder: Path) -> bool:
    """Whether a folder holds a search over training methods."""
    try:
        content = json.loads((folder / files.MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("kind") == KIND


def read_training_manifest(folder: Path) -> TrainingManifest:
    """The manifest of a search over methods.

    Raises:
        RunError: none is there, or it is of another version.
    """
    path = folder / files.MANIFEST
    if not path.is_file():
        raise RunError(f"{folder}: not a run folder: {files.MANIFEST} is missing")
    manifest = read_json(TypeAdapter(TrainingManifest), path)
    if manifest.format != files.FORMAT:
        raise RunError(f"{path}: format: expected {files.FORMAT}, got {manifest.format}")
    return manifest


def read_training_run(folder: Path) -> TrainingRun:
    """The run in a folder.

    Raises:
        RunError: the folder is no such run, is torn, or has no front yet.
    """
    manifest = read_training_manifest(folder)
    if not (folder / files.FRONT).is_file():
        raise RunError(
            f"{folder}: no front yet; finish the run with: {files.resume_command(folder)}"
        )
    place = folder / files.RECOMMENDED
    found = read_json(TypeAdapter(RecommendedMethod), place) if place.is_file() else None
    return TrainingRun(
        folder=folder,
        manifest=manifest,
        points=read_points(folder, files.TRIALS),
        front=read_points(folder, files.FRONT),
        choices={
            int(row["trial"]): {key: cell for key, cell in row.items() if key != "trial"}
            for row in read_rows(folder, files.CHOICES)
        },
        sensitivity=read_records(folder, files.SENSITIVITY, AxisChange),
        ablation=read_records(folder, ABLATION, AxisChange),
        recommended=found,
    )


def write_training_manifest(folder: Path, manifest: TrainingManifest) -> None:
    """Write `manifest.json`."""
    write_json(folder / files.MANIFEST, manifest.model_dump(mode="json"))


def write_training_run(run: TrainingRun) -> None:
    """Write every table of a run, and what it recommends."""
    folder, columns = run.folder, list(COLUMNS)
    write_trials(folder, run.points, columns)
    write_table(
        folder / files.CHOICES,
        [{"trial": trial, **chosen} for trial, chosen in run.choices.items()],
        ["trial", *run.manifest.variables],
    )
    fields = list(AxisChange.model_fields)
    for name, changes in ((files.SENSITIVITY, run.sensitivity), (ABLATION, run.ablation)):
        write_table(folder / name, [dict(one) for one in changes], fields)
    if run.recommended is not None:
        write_json(folder / files.RECOMMENDED, run.recommended.model_dump(mode="json"))
    write_front(folder, run.front, columns)
