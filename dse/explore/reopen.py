"""A run folder read back: what was searched, and every trial of it, without the data."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
from pydantic import ValidationError

from dse.errors import RunError
from dse.explore import folder as run_folder
from dse.explore.design import Design, open_design
from dse.explore.measure import records_of
from dse.explore.records import Record
from dse.explore.storage import open_journal
from dse.explore.study import JOURNAL, STUDY_NAME
from dse.explore.surrogate import Surrogate
from dse.explore.told import corrections, told_of
from dse.sensitivity.table import Sensitivity, finite
from dse.space.schema import Space


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A run with its design."""

    folder: Path
    manifest: Mapping[str, Any]
    design: Design
    study: optuna.Study

    @property
    def records(self) -> list[Record]:
        """Completed trials in order."""
        return records_of(self.design, self.study)

    @property
    def prior(self) -> Surrogate:
        """The quality surrogate before any assignment was measured.

        Raises:
            RunError: no sensitivity table, or one of another problem.
        """
        path = self.folder / run_folder.SENSITIVITY
        try:
            table = Sensitivity.read(path)
            return Surrogate(losses=finite(table.losses(self.design.problem)))
        except FileNotFoundError:
            raise RunError(f"{path}: no such file; the run has not got that far") from None
        except KeyError as error:
            raise RunError(f"{path}: has no score of {error}; is it of another run?") from None


def read_space(run: Path) -> tuple[Space, Path]:
    """The space of a run, and the folder that its relative paths are relative to.

    Raises:
        RunError: no run folder, or one of another version.
    """
    manifest = run_folder.read_json(run / run_folder.MANIFEST)
    version = manifest.get("format")
    if version != run_folder.FORMAT:
        raise RunError(
            f"{run / run_folder.MANIFEST}: format: expected {run_folder.FORMAT}, got {version}"
        )
    try:
        space = Space.model_validate(
            {"question": manifest.get("question", ""), **_mapping(manifest["space"])}
        )
    except (KeyError, ValidationError) as error:
        raise RunError(
            f"{run / run_folder.MANIFEST}: space: not one that this version of dse reads: {error}"
        ) from error
    origin = Path(str(manifest.get("space_file", "")))
    return space, origin.parent if origin.suffix in (".yaml", ".yml") else Path()


def reopen(run: Path) -> Past:
    """A run with its study, to go on with; the caller holds the folder's lock.

    Raises:
        RunError: as `read_space`; trials that are elsewhere; a model that has changed.
    """
    space, folder = read_space(run)
    manifest = run_folder.read_json(run / run_folder.MANIFEST)
    design = open_design(space, origin=str(manifest.get("space_file", run)), folder=folder)
    check_model(run, manifest, design)
    past = Past(folder=run, manifest=manifest, design=design, study=_study(run, run / JOURNAL))
    design.corrections = corrections(design, told_of(past.study.user_attrs, design.problem))
    return past


@contextmanager
def copied_study(run: Path) -> Iterator[optuna.Study]:
    """The study of a run as it is now, from a copy: the run itself is not touched.

    Raises:
        RunError: trials that are elsewhere.
    """
    with TemporaryDirectory(prefix="dse-") as scratch:
        copy = Path(scratch) / JOURNAL
        if (run / JOURNAL).is_file():
            shutil.copyfile(run / JOURNAL, copy)
        yield _study(run, copy)


def check_model(run: Path, manifest: Mapping[str, object], design: Design) -> None:
    """The model must be the one that was searched.

    Raises:
        RunError: another digest.
    """
    now = design.model.graph.digest
    if manifest.get("model_digest") != now:
        raise RunError(
            f"{run}: the model {design.model.name} is not the one that was searched: its digest "
            f"was {str(manifest.get('model_digest'))[:16]}, is {now[:16]}"
        )


def _study(run: Path, journal: Path) -> optuna.Study:
    if not journal.is_file():
        where = run_folder.read_json(run / run_folder.MANIFEST).get("storage")
        kept = f"its trials are in {where}, and only runs that keep their own can be read"
        raise RunError(f"{run}: has no {JOURNAL}: {kept if where else 'nothing was measured yet'}")
    return optuna.load_study(study_name=STUDY_NAME, storage=open_journal(journal))


def _mapping(content: object) -> Mapping[str, object]:
    if not isinstance(content, Mapping):
        raise KeyError("space")
    return content
