"""Spread of a search: workers of one process, and processes of one study."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dse.errors import RunError
from dse.evaluate.evaluator import Evaluator
from dse.explore.measure.executor import Executor, InProcess
from dse.explore.measure.workers import Workers
from dse.explore.study.storage import HIDDEN, SILENCE_S, check_named, lasting
from dse.run.manifest import Manifest

NAME_FILE = ".peer"
"""In the run folder: what the process that runs there is called in a shared study."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallelism:
    """Who takes part in a search."""

    workers: int | None = None
    """Processes that measure, with one torch thread each; by default the search's own process
    does, with all threads. On Ray: actors, by default as many as the cluster has room for."""
    executor: Literal["local", "ray"] = "local"
    storage: str | None = None
    """Of a study that several processes share (see `dse.explore.study.storage`); by default the
    study is in the run folder, for this process alone."""
    study: str | None = None
    """Its name there; the space's by default."""
    join: bool = False
    """Take part in a study that exists, instead of making one."""
    silence_s: int = SILENCE_S
    """The longest silence of a process before others measure its trials again; a pause of the
    machine or the network should be shorter."""

    def title(self, origin: str) -> str | None:
        """Name of the shared study; None where none is shared.

        Args:
            origin: what errors call the space.
        """
        if self.storage is None:
            return None
        return self.study or Path(origin).stem.removeprefix("zoo:")

    @property
    def options(self) -> tuple[str, ...]:
        """Options of a command line that goes on with a run.

        A password is hidden here as everywhere: the command line asks for it again.
        """
        found: list[str] = []
        if self.storage is not None:
            found += ["--storage", lasting(self.storage)]
        if self.study is not None:
            found += ["--study", self.study]
        if self.executor != "local":
            found += ["--executor", self.executor]
        if self.workers is not None:
            found += ["--workers", str(self.workers)]
        return tuple(found)

    def resumed(self, folder: Path, manifest: Manifest) -> Parallelism:
        """The same, with the storage and the study of the run that is continued.

        Raises:
            RunError: the study is shared, and its URL has a password that nobody gave, or is a
                file outside of the folder that nobody named.
        """
        if manifest.storage is None:
            return self
        if self.storage is None and HIDDEN in manifest.storage:
            raise RunError(
                f"--resume: the trials are in {manifest.storage}; give that URL with its "
                "password: --storage URL"
            )
        if self.storage is None:
            check_named(folder, manifest.storage, str(manifest.study))
        return replace(
            self, storage=self.storage or manifest.storage, study=self.study or manifest.study
        )

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            RunError: says what.
        """
        if self.storage is None and (self.join or self.study):
            raise RunError("--join and --study need --storage: the URL of the shared study")
        if self.workers is not None and self.workers < 1:
            raise RunError(f"--workers: expected at least 1, got {self.workers}")


@contextmanager
def started(evaluator: Evaluator, parallelism: Parallelism) -> Iterator[Executor]:
    """The executor that measures, stopped at the end whatever happens.

    Raises:
        RunError: no Ray, or an evaluator that cannot be copied to other processes.
    """
    executor = _executor(evaluator, parallelism)
    try:
        yield executor
    finally:
        executor.close()


def participant_name(folder: Path) -> str:
    """The name of the process that holds a run folder: the same after a resume."""
    path = folder / NAME_FILE
    if not path.exists():
        path.write_text(uuid.uuid4().hex, encoding="utf-8")
    return path.read_text(encoding="utf-8")


def _executor(evaluator: Evaluator, parallelism: Parallelism) -> Executor:
    if parallelism.executor == "ray":
        from dse.explore.measure.ray_actors import RayActors  # noqa: PLC0415 (an extra)

        return RayActors(evaluator, parallelism.workers)
    return (
        InProcess(evaluator)
        if parallelism.workers is None
        else Workers(evaluator, parallelism.workers)
    )
