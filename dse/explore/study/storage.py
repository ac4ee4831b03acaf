"""The place of a study: in the run folder's journal, or in a storage that machines share."""

from __future__ import annotations

import importlib
import logging
import re
import shlex
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import (
    BaseStorage,
    JournalStorage,
    RDBStorage,
    RetryHeartbeatStaleTrialCallback,
)
from optuna.storages.journal import (
    BaseJournalBackend,
    JournalFileBackend,
    JournalFileOpenLock,
    JournalRedisBackend,
)

from dse.errors import DseError, RunError, StorageError
from dse.explore.study.patience import PatientDatabase, PatientJournal, at_once

SILENCE_S = 90
"""A trial that was silent for so long is taken from its process and measured again."""
BEATS = 4
"""In that time a process says so often that it still works on its trials."""
MAX_RETRIES = 3
"""Number of new attempts at a trial that was lost with its process."""
REDIS = ("redis://", "rediss://", "unix://")
DRIVERS = {
    "postgresql": "postgresql+psycopg",  # SQLAlchemy's own default differs between its versions
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
PACKAGES = {"postgresql": "psycopg[binary]", "mysql": "pymysql", "mariadb": "pymysql"}
PASSWORD = re.compile(r"(?<=:)[^:@/]*(?=@)")
HIDDEN = "***"
"""The text that is shown instead."""
_TOGETHER: ContextVar[bool] = ContextVar("written_together", default=False)


@contextmanager
def undamaged(what: str, expected: str) -> Iterator[None]:
    """A context that reads what a study holds: whatever does not fit was damaged.

    Args:
        what: the file or the part of the study.
        expected: its content.

    Raises:
        RunError: instead of the error of whatever stumbled over it.
    """
    try:
        yield
    except DseError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise RunError(
            f"{what}: expected {expected}, got something else ({type(error).__name__}: {error}); "
            "the study was damaged: restore it from a copy, or search into a new folder"
        ) from error


def open_journal(path: Path) -> BaseStorage:
    """The journal of a run folder; the caller holds the folder's lock.

    What a killed process can leave is repaired first: a torn last line is cut off and the
    journal's own lock is removed.

    Raises:
        RunError: a line that no killed process leaves: the file was damaged otherwise.
    """
    journal = path.absolute()
    _cut_torn_line(journal)
    # The backend makes its lock beside the file, and finds a stale one by absolute path only.
    Path(f"{journal}.lock").unlink(missing_ok=True)
    lock = JournalFileOpenLock(str(journal))
    backend = JournalFileBackend(str(journal), lock_obj=lock)
    with undamaged(str(journal), "a JSON object in UTF-8 a line"):
        gathered = _Gathered(backend)
    with undamaged(str(journal), "entries of a study that Optuna can replay"):
        return JournalStorage(gathered)


@contextmanager
def shared(url: str, *, silence_s: int = SILENCE_S) -> Iterator[BaseStorage]:
    """The storage of a URL, reached; its connections are closed at the end.

    Args:
        url: what SQLAlchemy takes (`postgresql://user:password@host/database`, `mysql://`,
            `sqlite:///file`), `redis://host:port/db`, or the path of a journal (`*.log`) on a
            file system that all machines share.
        silence_s: how long a process may be silent before its trials are taken from it.

    Raises:
        StorageError: malformed, without a driver, or not reachable.
    """
    storage = _opened(url, silence_s)
    try:
        yield storage
    finally:
        if isinstance(storage, RDBStorage):
            storage.remove_session()
            storage.engine.dispose()


def _opened(url: str, silence_s: int) -> BaseStorage:
    with translated(url), at_once(), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if url.startswith(REDIS):
            storage: BaseStorage = PatientJournal(_Unpickled(JournalRedisBackend(url)))
        elif "://" not in url:
            storage = JournalStorage(JournalFileBackend(url))
        else:
            storage = PatientDatabase(
                _with_driver(url),
                # A connection that was idle while a long measurement ran may be gone.
                engine_kwargs={"pool_pre_ping": True},
                heartbeat_interval=max(1, silence_s // BEATS),
                grace_period=silence_s,
                heartbeat_stale_trial_callback=retry(),
            )
        storage.get_all_studies()
        return storage


class _Unpickled(BaseJournalBackend):
    """A backend without its snapshots: those are pickles, which whoever writes them may abuse."""

    def __init__(self, backend: BaseJournalBackend) -> None:
        self._backend = backend

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Every log from a number on."""
        yield from self._backend.read_logs(log_number_from)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write logs."""
        self._backend.append_logs(logs)


def local_file(url: str) -> Path | None:
    """The file that a storage is kept in; None for a server's."""
    if "://" not in url:
        return Path(url)
    scheme, _, rest = url.partition("://")
    if not scheme.startswith("sqlite"):
        return Path(rest) if scheme == "unix" else None
    return Path(rest.removeprefix("/").partition("?")[0])


def has_study(file: Path, name: str) -> bool:
    """Whether a file is an SQLite database with a study of that name; only looks."""
    address = f"{file.resolve().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True)) as database:
            query = "SELECT 1 FROM studies WHERE study_name = ?"
            return database.execute(query, (name,)).fetchone() is not None
    except sqlite3.Error:
        return False


def check_named(run: Path, url: str, study: str) -> None:
    """A look at the storage that a run's manifest names, before it is opened.

    A manifest from a stranger could name any file, which would be created or get tables. One
    outside of the folder must be a database that has the study already.

    Raises:
        RunError: it is another file outside of the run folder.
    """
    file = local_file(url)
    if file is None or file.resolve().is_relative_to(run.resolve()) or has_study(file, study):
        return
    raise RunError(
        f"{run}: its trials are in {url}, outside of the folder; if you know that place, "
        f"name it: {shlex.join(['--storage', url])}"
    )


@contextmanager
def written_together() -> Iterator[None]:
    """Whatever is written to a run folder's journal meanwhile waits for the next write after it.

    A trial of 1,000 variables whose sampler names them one by one would otherwise wait for the
    disk 1,000 times.
    """
    token = _TOGETHER.set(True)
    try:
        yield
    finally:
        _TOGETHER.reset(token)


class _Gathered(BaseJournalBackend):
    """Holds back what is `written_together`.

    Only for a journal that one process holds: what is not written yet, others do not see.
    """

    def __init__(self, backend: JournalFileBackend) -> None:
        self._backend = backend
        self._written = sum(1 for _ in backend.read_logs(0))
        self._waiting: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Every log from a number on, written or not."""
        if log_number_from < self._written:
            yield from self._backend.read_logs(log_number_from)
        yield from self._waiting[max(0, log_number_from - self._written) :]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Take logs; write all that wait, unless more is to come."""
        self._waiting += logs
        if not _TOGETHER.get():
            self._backend.append_logs(self._waiting)
            self._written += len(self._waiting)
            self._waiting = []


def retry() -> RetryHeartbeatStaleTrialCallback:
    """Queues a lost trial again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRIES)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """A context that tells in one line what goes wrong with a storage or a disk meanwhile.

    Args:
        where: the storage's URL, or the run folder.

    Raises:
        StorageError: instead of what the storage's library raised.
    """
    try:
        yield
    except DseError:
        raise
    except ImportError as error:
        package = PACKAGES.get(_scheme(where), "redis")
        raise StorageError(
            f"{shown(where)}: no driver for this storage ({error.__cause__ or error}); install "
            f"one with: pip install '{package}'"
        ) from error
    except Exception as error:
        if not isinstance(error, _failures()):
            raise
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise StorageError(f"{shown(where)}: {type(error).__name__}: {reason}") from error


def shown(url: str) -> str:
    """The URL without its password."""
    return PASSWORD.sub(HIDDEN, url) if "://" in url else url


def lasting(url: str) -> str:
    """A manifest's name of a storage: no password, and the whole path of a journal."""
    return shown(url) if "://" in url else str(Path(url).absolute())


def _failures() -> tuple[type[Exception], ...]:
    """Errors of storages that cannot be reached or written, of the libraries that are here."""
    found: list[type[Exception]] = [OSError, optuna.exceptions.StorageInternalError]
    for module, name in (("sqlalchemy.exc", "SQLAlchemyError"), ("redis", "RedisError")):
        try:
            found.append(getattr(importlib.import_module(module), name))
        except ImportError:
            continue
    return tuple(found)


def _scheme(url: str) -> str:
    return url.partition("://")[0].partition("+")[0]


def _with_driver(url: str) -> str:
    """The URL with the driver that the extras of this package install, if it names none."""
    scheme, _, rest = url.partition("://")
    return f"{DRIVERS.get(scheme, scheme)}://{rest}"


def _cut_torn_line(journal: Path) -> None:
    """Drop what follows the last line end: a line that was being written when the process died."""
    if not journal.exists():
        return
    content = journal.read_bytes()
    if content and not content.endswith(b"\n"):
        logging.getLogger(__name__).info("%s: a torn last line is cut off", journal)
        with journal.open("r+b") as stream:
            stream.truncate(content.rfind(b"\n") + 1)
