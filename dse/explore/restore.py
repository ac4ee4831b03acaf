"""A run folder read back: what was searched, and every trial of it, without the data."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import optuna

from dse.errors import RunError, nearest
from dse.explore.measure.records import records_of
from dse.explore.problem.design import Design, open_design
from dse.explore.problem.records import Record
from dse.explore.solve.surrogate import Surrogate
from dse.explore.study.outside import corrected
from dse.explore.study.storage import (
    HIDDEN,
    check_named,
    open_journal,
    shared,
    shown,
    translated,
)
from dse.explore.study.study import IDENTITY, JOURNAL, STUDY_NAME
from dse.run.files import SENSITIVITY
from dse.run.folder import mismatch
from dse.run.manifest import Manifest
from dse.run.read import read_manifest, read_space
from dse.sensitivity.table import Sensitivity

SAME = ("dse", "model_digest", "space", "data_digest")
"""Facts that a manifest and a shared study must agree on (`dse.explore.loop.identity`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoredRun:
    """A run with its design."""

    folder: Path
    manifest: Manifest
    design: Design
    study: optuna.Study

    @property
    def records(self) -> list[Record]:
        """Completed trials in order."""
        return records_of(self.design, self.study)

    @property
    def surrogate(self) -> Surrogate:
        """The surrogate of the primary target's loss before any assignment was measured.

        Raises:
            RunError: as `surrogates`.
        """
        return self.surrogates[0]

    @property
    def surrogates(self) -> tuple[Surrogate, ...]:
        """One for each loss that is an objective, before any assignment was measured.

        Raises:
            RunError: no sensitivity table, or one of another problem.
        """
        path = self.folder / SENSITIVITY
        try:
            return self.design.losses(Sensitivity.read(path))
        except FileNotFoundError:
            raise RunError(f"{path}: no such file; the run has not got that far") from None


@contextmanager
def restored_to_continue(run: Path, storage: str | None = None) -> Iterator[RestoredRun]:
    """A run with its study, to go on with; the caller holds the folder's lock.

    Args:
        run: a run folder.
        storage: where its study is shared, as a URL with the password that no manifest keeps.

    Raises:
        RunError: as `read_space`; no trials, or those of another search; a model that has changed.
        StorageError: the storage cannot be reached.
    """
    manifest, design = _opened(run)
    url = _url(run, manifest, storage)
    with _own_study(run / JOURNAL) if url is None else _shared_study(run, manifest, url) as study:
        design = corrected(design, study.user_attrs)
        yield RestoredRun(folder=run, manifest=manifest, design=design, study=study)


@contextmanager
def restored_to_read(run: Path, storage: str | None = None) -> Iterator[RestoredRun]:
    """A run with its study as it is now, to read: the run itself is not touched.

    Args, Raises: as `restored_to_continue`.
    """
    manifest, design = _opened(run)
    with study_to_read(run, storage) as study:
        yield RestoredRun(folder=run, manifest=manifest, design=design, study=study)


@contextmanager
def study_to_read(run: Path, storage: str | None = None) -> Iterator[optuna.Study]:
    """The study of a run as it is now, to read: the run itself is not touched.

    Args:
        run: a run folder.
        storage: as `restored_to_continue`.

    Raises:
        RunError, StorageError: as `restored_to_continue`.
    """
    manifest = read_manifest(run)
    url = _url(run, manifest, storage)
    if url is not None:
        with _shared_study(run, manifest, url) as study:
            yield study
        return
    with TemporaryDirectory(prefix="dse-") as scratch:
        copy = Path(scratch) / JOURNAL
        shutil.copyfile(run / JOURNAL, copy)
        with _own_study(copy) as study:
            yield study


def _opened(run: Path) -> tuple[Manifest, Design]:
    """The manifest and the design of a run whose model is still the one that was searched."""
    manifest, (space, folder) = read_manifest(run), read_space(run)
    design = open_design(space, origin=manifest.space_file or str(run), folder=folder)
    check_model(run, manifest, design)
    return manifest, design


def check_model(run: Path, manifest: Manifest, design: Design) -> None:
    """The model must be the one that was searched.

    Raises:
        RunError: another digest.
    """
    now = design.model.graph.digest
    if manifest.model_digest != now:
        raise RunError(
            f"{run}: the model {design.model.name} is not the one that was searched: its digest "
            f"was {manifest.model_digest[:16]}, is {now[:16]}"
        )


def _url(run: Path, manifest: Manifest, given: str | None) -> str | None:
    """The storage that shares a run's study; None where it is in the folder."""
    kept = manifest.storage
    if kept is None:
        if given is not None:
            raise RunError(f"--storage: the study of {run} is not shared, its trials are there")
        if not (run / JOURNAL).is_file():
            raise RunError(f"{run}: has no {JOURNAL}: nothing was measured yet")
        return None
    if given is None and HIDDEN in kept:
        raise RunError(
            f"{run}: its trials are in {kept}; give that URL with its password: --storage URL"
        )
    if given is None:
        check_named(run, kept, str(manifest.study))
    return given or kept


@contextmanager
def _own_study(journal: Path) -> Iterator[optuna.Study]:
    yield optuna.load_study(study_name=STUDY_NAME, storage=open_journal(journal))


@contextmanager
def _shared_study(run: Path, manifest: Manifest, url: str) -> Iterator[optuna.Study]:
    name, expected = str(manifest.study), {key: getattr(manifest, key) for key in SAME}
    with shared(url) as storage, translated(url):
        known = optuna.get_all_study_names(storage)
        if name not in known:
            raise RunError(
                f"{run}: its study {name!r} is not in {shown(url)}{nearest(name, known)}"
            )
        study = optuna.load_study(study_name=name, storage=storage)
        if other := mismatch(study.user_attrs.get(IDENTITY, {}), expected):
            raise RunError(f"{run}: study {name!r} in {shown(url)} is another search: {other}")
        yield study
