"""Searches that share a study in a database: counts are exact, whoever joins and whoever dies."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import optuna
import pandas as pd
import pytest

from dse.errors import RunError, StorageError
from dse.explore.loop import run
from dse.explore.scale import Scale
from dse.explore.storage import shared, shown
from dse.explore.study import is_settled
from tests.explore import metrics, postgresql
from tests.explore.test_scale import TRIALS, front, search_in_process, session, wait_until

pytestmark = pytest.mark.postgresql
SILENCE_S = 3


@pytest.fixture(scope="module")
def server() -> Iterator[postgresql.Server]:
    # pytest's own temporary folders are closed to the server's user.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with postgresql.server(Path(folder) / "server") as found:
            yield found


def trials(url: str, name: str) -> list[optuna.trial.FrozenTrial]:
    """What a study has; nothing as long as there is none."""
    with shared(url) as storage:
        if name not in optuna.get_all_study_names(storage):
            return []
        return optuna.load_study(study_name=name, storage=storage).get_trials()


def points(url: str, name: str) -> list[tuple[object, ...]]:
    """The parameters of every settled trial."""
    return [tuple(t.params.values()) for t in trials(url, name) if is_settled(t)]


def test_a_search_in_a_database_finds_what_one_in_a_folder_finds(
    server: postgresql.Server, tmp_path: Path
) -> None:
    run(session(metrics.fidelity), tmp_path / "folder")
    scale = Scale(storage=server.url, study="same")
    run(session(metrics.fidelity), tmp_path / "database", scale=scale)
    pd.testing.assert_frame_equal(front(tmp_path / "folder"), front(tmp_path / "database"))
    assert "secret" not in (tmp_path / "database" / "manifest.json").read_text()


def test_those_who_join_share_the_trials_and_end_with_the_same_front(
    server: postgresql.Server, tmp_path: Path
) -> None:
    first = search_in_process("slow", tmp_path / "first", storage=server.url, study="shared")
    wait_until(lambda: bool(trials(server.url, "shared")), first)
    joined = Scale(storage=server.url, study="shared", join=True)
    run(session(metrics.slow), tmp_path / "second", scale=joined)
    first.communicate(timeout=60)
    found = points(server.url, "shared")
    assert len(found) == len(set(found)) == TRIALS
    assert len({t.user_attrs["peer"][0] for t in trials(server.url, "shared")}) == 2
    pd.testing.assert_frame_equal(front(tmp_path / "first"), front(tmp_path / "second"))


def test_the_trials_of_a_process_that_was_killed_are_measured_by_the_others(
    server: postgresql.Server, tmp_path: Path
) -> None:
    first = search_in_process("slow", tmp_path / "first", storage=server.url, study="killed")
    wait_until(lambda: len(points(server.url, "killed")) >= 4, first)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert len(points(server.url, "killed")) < TRIALS
    joined = Scale(storage=server.url, study="killed", join=True, silence_s=SILENCE_S)
    run(session(metrics.fidelity), tmp_path / "second", scale=joined)
    found = points(server.url, "killed")
    assert len(found) == len(set(found)) == TRIALS
    states = {t.state.name for t in trials(server.url, "killed")}
    assert "RUNNING" not in states


def test_another_model_space_or_version_is_refused_with_the_reason(
    server: postgresql.Server, tmp_path: Path
) -> None:
    scale = Scale(storage=server.url, study="identity")
    run(session(metrics.fidelity, trials=3), tmp_path / "first", scale=scale)
    with pytest.raises(RunError, match=r"has a study 'identity' already.*--join"):
        run(session(metrics.fidelity, trials=3), tmp_path / "twice", scale=scale)
    joined = Scale(storage=server.url, study="identity", join=True)
    with pytest.raises(RunError, match=r"its space differs.*trials: was 3, is 4"):
        run(session(metrics.fidelity, trials=4), tmp_path / "other", scale=joined)
    missing = Scale(storage=server.url, study="identiti", join=True)
    with pytest.raises(RunError, match="no study 'identiti'; did you mean 'identity'"):
        run(session(metrics.fidelity, trials=3), tmp_path / "missing", scale=missing)


def test_a_database_that_goes_away_ends_the_run_and_it_resumes(
    server: postgresql.Server, tmp_path: Path
) -> None:
    whole = Scale(storage=server.url, study="whole")
    run(session(metrics.fidelity), tmp_path / "whole", scale=whole)
    process = search_in_process("slow", tmp_path / "cut", storage=server.url, study="cut")
    wait_until(lambda: len(points(server.url, "cut")) >= 3, process)
    server.stop()
    _, complaint = process.communicate(timeout=60)
    assert "StorageError: postgresql://" in complaint
    assert f"go on with --out {tmp_path / 'cut'} --resume" in complaint
    assert "secret" not in complaint.splitlines()[-2]
    server.start()
    scale = Scale(storage=server.url, study="cut")
    run(session(metrics.slow), tmp_path / "cut", resume=True, scale=scale)
    assert sorted(points(server.url, "cut")) == sorted(points(server.url, "whole"))
    pd.testing.assert_frame_equal(front(tmp_path / "whole"), front(tmp_path / "cut"))


def test_an_unreachable_database_is_told_before_anything_is_written(tmp_path: Path) -> None:
    scale = Scale(storage="postgresql://someone:secret@127.0.0.1:1/nowhere")
    with pytest.raises(StorageError, match=r"someone:\*\*\*@127.0.0.1:1/nowhere: .*refused"):
        run(session(metrics.fidelity), tmp_path / "run", scale=scale)
    assert not (tmp_path / "run").exists()


def test_passwords_are_not_shown() -> None:
    assert shown("mysql://me:p@host/db") == "mysql://me:***@host/db"
    assert shown("runs/study.log") == "runs/study.log"
