"""Searches that share a study in a database: counts are exact, whoever joins and whoever dies."""

from __future__ import annotations

import os
import shlex
import signal
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import optuna
import pandas as pd
import pytest
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from dse.errors import RunError, StorageError
from dse.explore.loop import run
from dse.explore.measure.parallelism import Parallelism
from dse.explore.problem.progress import Status
from dse.explore.study import patience
from dse.explore.study.storage import shared, shown
from dse.explore.study.study import is_settled
from tests.explore import metrics, postgresql
from tests.explore.measure.test_parallelism import (
    TRIALS,
    front,
    search_in_process,
    session,
    wait_until,
)
from tests.explore.server import served

pytestmark = pytest.mark.postgresql


@dataclass(frozen=True, kw_only=True)
class Database:
    """A server, and what a look into it shows."""

    server: postgresql.Server
    storage: BaseStorage

    @property
    def url(self) -> str:
        return self.server.url

    def trials(self, name: str) -> list[FrozenTrial]:
        """What a study has; nothing as long as there is none."""
        if name not in optuna.get_all_study_names(self.storage):
            return []
        return optuna.load_study(study_name=name, storage=self.storage).get_trials()

    def points(self, name: str) -> list[tuple[object, ...]]:
        """The parameters of every settled trial."""
        return [tuple(t.params.values()) for t in self.trials(name) if is_settled(t)]

    def running(self, name: str) -> int:
        """How many trials are being measured."""
        return sum(trial.state == TrialState.RUNNING for trial in self.trials(name))


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    # pytest's own temporary folders are closed to the server's user.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with (
            served(postgresql.Server(Path(folder) / "server")) as server,
            shared(server.url) as storage,
        ):
            yield Database(server=server, storage=storage)


def test_a_search_in_a_database_finds_what_one_in_a_folder_finds(
    database: Database, tmp_path: Path
) -> None:
    run(session(metrics.fidelity), tmp_path / "folder")
    parallelism = Parallelism(storage=database.url, study="same")
    run(session(metrics.fidelity), tmp_path / "database", parallelism=parallelism)
    pd.testing.assert_frame_equal(front(tmp_path / "folder"), front(tmp_path / "database"))
    assert "secret" not in (tmp_path / "database" / "manifest.json").read_text()


def test_those_who_join_share_the_trials_and_end_with_the_same_front(
    database: Database, tmp_path: Path
) -> None:
    parallelism = Parallelism(storage=database.url, study="shared")
    hold = tmp_path / "hold"

    def stand_still(status: Status) -> None:
        if status.stage == "trials" and status.done == 1:
            hold.touch()

    def let_go(status: Status) -> None:
        if status.stage == "trials" and status.done >= 4:
            hold.unlink(missing_ok=True)

    waiting = session(partial(metrics.held, hold=hold))
    with ThreadPoolExecutor() as pool:
        first = pool.submit(
            run, waiting, tmp_path / "first", parallelism=parallelism, progress=stand_still
        )
        try:
            wait_until(hold.exists)
            joined = replace(parallelism, join=True)
            run(
                session(metrics.fidelity), tmp_path / "second", parallelism=joined, progress=let_go
            )
        finally:
            hold.unlink(missing_ok=True)
        first.result()
    found = database.points("shared")
    assert len(found) == len(set(found)) == TRIALS
    assert len({trial.user_attrs["peer"][0] for trial in database.trials("shared")}) == 2
    pd.testing.assert_frame_equal(front(tmp_path / "first"), front(tmp_path / "second"))


def test_the_trials_of_a_process_that_was_killed_are_measured_by_the_others(
    database: Database, tmp_path: Path
) -> None:
    parallelism = Parallelism(storage=database.url, study="killed", silence_s=3)
    hold = tmp_path / "hold"
    with search_in_process(
        tmp_path / "first", hold, after=3, storage=database.url, study="killed"
    ) as process:
        wait_until(lambda: hold.exists() and database.running("killed") == 1, process)
        os.kill(process.pid, signal.SIGKILL)
    before = database.points("killed")
    assert len(before) == 3
    run(
        session(metrics.fidelity), tmp_path / "second", parallelism=replace(parallelism, join=True)
    )
    found = database.points("killed")
    assert found[: len(before)] == before
    assert len(found) == len(set(found)) == TRIALS
    states = [trial.state.name for trial in database.trials("killed")]
    assert database.running("killed") == 0
    assert states.count("FAIL") == 1
    run(session(metrics.fidelity), tmp_path / "first", resume=True, parallelism=parallelism)
    pd.testing.assert_frame_equal(front(tmp_path / "first"), front(tmp_path / "second"))


def test_another_model_space_or_version_is_refused_with_the_reason(
    database: Database, tmp_path: Path
) -> None:
    parallelism = Parallelism(storage=database.url, study="identity")
    run(session(metrics.fidelity, trials=3), tmp_path / "first", parallelism=parallelism)
    with pytest.raises(RunError, match=r"has a study 'identity' already.*--join"):
        run(session(metrics.fidelity, trials=3), tmp_path / "twice", parallelism=parallelism)
    joined = Parallelism(storage=database.url, study="identity", join=True)
    other = session(metrics.fidelity, trials=3, search={"seed": 4})
    with pytest.raises(RunError, match=r"its space differs.*seed: was 0, is 4"):
        run(other, tmp_path / "other", parallelism=joined)
    missing = Parallelism(storage=database.url, study="identiti", join=True)
    with pytest.raises(RunError, match="no study 'identiti'; did you mean 'identity'"):
        run(session(metrics.fidelity, trials=3), tmp_path / "missing", parallelism=missing)


@pytest.fixture(scope="module")
def whole(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that nothing disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(
        session(metrics.fidelity),
        folder,
        parallelism=Parallelism(storage=database.url, study="whole"),
    )
    return folder


def test_a_database_that_is_back_soon_costs_only_time(
    database: Database,
    whole: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    restarts = iter([threading.Timer(1.0, database.server.start)])

    def restart(status: Status) -> None:
        if status.stage == "trials" and status.done == 4 and (starting := next(restarts, None)):
            database.server.stop()
            starting.start()

    parallelism = Parallelism(storage=database.url, study="patient")
    run(session(metrics.fidelity), tmp_path / "run", parallelism=parallelism, progress=restart)
    said = [message for message in caplog.messages if "the storage's server is" in message]
    assert "away; waiting for it up to 60 s" in said[0]
    assert "back after" in said[-1]
    assert sorted(database.points("patient")) == sorted(database.points("whole"))
    pd.testing.assert_frame_equal(front(whole), front(tmp_path / "run"))


def test_a_database_that_stays_away_ends_the_run_and_it_resumes(
    database: Database, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 0)
    cut = Parallelism(storage=database.url, study="cut")

    def stop(status: Status) -> None:
        if status.stage == "trials" and status.done == 4:
            database.server.stop()

    with pytest.raises(StorageError) as caught:
        run(session(metrics.fidelity), tmp_path / "cut", parallelism=cut, progress=stop)
    hidden = shlex.quote(shown(database.url))
    command = f"dse search --out {tmp_path / 'cut'} --resume --storage {hidden} --study cut"
    assert f"go on with: {command}" in str(caught.value)
    assert "secret" not in str(caught.value)
    database.server.start()
    run(session(metrics.fidelity), tmp_path / "cut", resume=True, parallelism=cut)
    assert sorted(database.points("cut")) == sorted(database.points("whole"))
    pd.testing.assert_frame_equal(front(whole), front(tmp_path / "cut"))


def test_an_unreachable_database_is_told_before_anything_is_written(tmp_path: Path) -> None:
    parallelism = Parallelism(storage="postgresql://someone:secret@127.0.0.1:1/nowhere")
    with pytest.raises(StorageError, match=r"someone:\*\*\*@127.0.0.1:1/nowhere: .*refused"):
        run(session(metrics.fidelity), tmp_path / "run", parallelism=parallelism)
    assert not (tmp_path / "run").exists()


def test_passwords_are_not_shown() -> None:
    assert shown("mysql://me:p@host/db") == "mysql://me:***@host/db"
    assert shown("runs/study.log") == "runs/study.log"
