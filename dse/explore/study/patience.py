"""Storages of servers that wait: one that is back within a minute costs a search only time."""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage

PATIENCE_S = 60.0
"""The longest absence of a server."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 5.0
"""Between two tries; the wait doubles."""
FULL_DISK = "53100"
"""SQLSTATE that no waiting helps."""
INNER = {"_create_new_trial", "_get_trials", "_set_trial_param", "_get_best_trial_id",
         "_get_stale_trial_ids", "get_trial_id_from_study_id_trial_number",
         "record_heartbeat"}  # fmt: skip
"""Methods that Optuna calls of a database beside those of every storage."""

P = ParamSpec("P")
R = TypeVar("R")
Kind = TypeVar("Kind", bound=type[BaseStorage])
_WAITS: ContextVar[bool] = ContextVar("waits_for_servers", default=True)


@contextmanager
def at_once() -> Iterator[None]:
    """A server that is away is an error meanwhile, without waiting."""
    token = _WAITS.set(False)
    try:
        yield
    finally:
        _WAITS.reset(token)


def patient(call: Callable[P, R]) -> Callable[P, R]:
    """The same call, tried again while the server is away, for `PATIENCE_S`.

    A call may have been carried out although its answer was lost. All that a search says can be
    said twice: attributes and parameters are set to the same again, a point that is queued twice
    is measured once, a trial that nobody knows is given up like one whose process died, and a
    trial that is finished already stays as it was told.
    """

    @wraps(call)
    def waiting(*args: P.args, **kwargs: P.kwargs) -> R:
        if not _WAITS.get():
            return call(*args, **kwargs)
        with at_once():
            return _tried(lambda: call(*args, **kwargs))

    return waiting


def waiting(kind: Kind) -> Kind:
    """A class of storages with all that reaches the server made patient."""
    for name in sorted(BaseStorage.__abstractmethods__ | INNER):
        if hasattr(kind, name):
            setattr(kind, name, patient(getattr(kind, name)))
    return kind


@waiting
class PatientDatabase(RDBStorage):
    """A database."""


@waiting
class PatientJournal(JournalStorage):
    """A journal that a server keeps."""


def is_away(error: BaseException | None) -> bool:
    """Whether a storage's error says that its server does not answer now, but may again."""
    while error is not None:
        if isinstance(error, _redis_errors()) or _is_connection_error(error):
            return True
        error = error.__cause__
    return False


def _tried(call: Callable[[], R]) -> R:
    """The answer of a call at last.

    Raises:
        Exception: what the call raised, if that is no server's absence, or one that lasts.
    """
    begun, wait_s, lost = time.monotonic(), FIRST_WAIT_S, None
    while True:
        try:
            found = call()
        except UpdateFinishedTrialError:
            if lost is None:
                raise
            found = True  # type: ignore[assignment]  # what `set_trial_state_values` says
        except Exception as error:
            if not is_away(error) or time.monotonic() - begun > PATIENCE_S:
                raise
            if lost is None:
                _tell("the storage's server is away; waiting for it up to %.0f s", PATIENCE_S)
            lost = error
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            continue
        if lost is not None:
            _tell("the storage's server is back after %.0f s", time.monotonic() - begun)
        return found


def _tell(text: str, seconds: float) -> None:
    logging.getLogger("dse.explore").warning(text, seconds)


def _is_connection_error(error: BaseException) -> bool:
    """Whether a driver's error is about its connection, not about what was asked."""
    from sqlalchemy.exc import InterfaceError, OperationalError  # noqa: PLC0415 (slow)

    if not isinstance(error, OperationalError | InterfaceError):
        return False
    original: Any = error.orig
    if type(original).__module__.startswith("sqlite3"):
        return "locked" in str(original)
    return getattr(original, "sqlstate", None) != FULL_DISK


def _redis_errors() -> tuple[type[Exception], ...]:
    try:
        errors = importlib.import_module("redis.exceptions")
    except ImportError:
        return ()
    return errors.ConnectionError, errors.TimeoutError
