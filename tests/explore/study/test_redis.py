"""Searches that share a study in Redis: the same promises as in a database."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pandas as pd
import pytest
import redis

from dse.errors import StorageError
from dse.explore.loop import run
from dse.explore.measure.parallelism import Parallelism
from dse.explore.problem.progress import Status
from dse.explore.study import patience
from dse.explore.study.storage import shared
from dse.explore.study.study import is_settled
from tests.explore import metrics, redis_server
from tests.explore.measure.test_parallelism import (
    TRIALS,
    front,
    search_in_process,
    session,
    wait_until,
)
from tests.explore.server import served

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis_server.Server]:
    with served(redis_server.Server(tmp_path_factory.mktemp("redis") / "server")) as found:
        yield found


def trials(url: str, name: str) -> list[optuna.trial.FrozenTrial]:
    """What a study has; nothing as long as there is none."""
    with shared(url) as storage:
        if name not in optuna.get_all_study_names(storage):
            return []
        return optuna.load_study(study_name=name, storage=storage).get_trials()


def points(url: str, name: str) -> list[tuple[object, ...]]:
    return [tuple(trial.params.values()) for trial in trials(url, name) if is_settled(trial)]


def running(url: str, name: str) -> int:
    return sum(trial.state.name == "RUNNING" for trial in trials(url, name))


def test_the_trials_of_a_process_that_was_killed_are_measured_by_one_that_joins(
    server: redis_server.Server, tmp_path: Path
) -> None:
    run(session(metrics.fidelity), tmp_path / "folder")
    parallelism = Parallelism(storage=server.url, study="killed", silence_s=3)
    hold = tmp_path / "hold"
    with search_in_process(
        tmp_path / "first", hold, after=3, storage=server.url, study="killed"
    ) as process:
        wait_until(lambda: hold.exists() and running(server.url, "killed") == 1, process)
        os.kill(process.pid, signal.SIGKILL)
    before = points(server.url, "killed")
    assert len(before) == 3
    run(
        session(metrics.fidelity), tmp_path / "second", parallelism=replace(parallelism, join=True)
    )
    found = points(server.url, "killed")
    assert found[:3] == before
    assert len(found) == len(set(found)) == TRIALS
    states = [trial.state.name for trial in trials(server.url, "killed")]
    assert sorted({*states}) == ["COMPLETE", "FAIL"]
    assert states.count("FAIL") == 1
    pd.testing.assert_frame_equal(front(tmp_path / "folder"), front(tmp_path / "second"))


def test_a_server_that_stays_away_ends_the_run_and_it_resumes(
    server: redis_server.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(
        session(metrics.fidelity),
        tmp_path / "whole",
        parallelism=Parallelism(storage=server.url, study="a"),
    )
    cut = Parallelism(storage=server.url, study="cut")
    starting = threading.Timer(1.0, server.start)

    def stop(status: Status) -> None:
        """The first time for a second, then for longer than anybody waits."""
        if status.stage == "trials" and status.done == 2 and starting.ident is None:
            server.stop()
            monkeypatch.setattr(patience, "PATIENCE_S", 60)
            starting.start()
        if status.stage == "trials" and status.done == 6:
            server.stop()
            monkeypatch.setattr(patience, "PATIENCE_S", 0)

    with pytest.raises(StorageError) as caught:
        run(session(metrics.fidelity), tmp_path / "cut", parallelism=cut, progress=stop)
    assert f"go on with: dse search --out {tmp_path / 'cut'} --resume" in str(caught.value)
    assert "secret" not in str(caught.value)
    server.start()
    run(session(metrics.fidelity), tmp_path / "cut", resume=True, parallelism=cut)
    assert sorted(points(server.url, "cut")) == sorted(points(server.url, "a"))
    pd.testing.assert_frame_equal(front(tmp_path / "whole"), front(tmp_path / "cut"))


def test_a_server_that_is_not_there_is_told_before_anything_is_written(tmp_path: Path) -> None:
    parallelism = Parallelism(storage="redis://:secret@127.0.0.1:1/0")
    with pytest.raises(StorageError, match=r"redis://:\*\*\*@127.0.0.1:1/0: .*refused"):
        run(session(metrics.fidelity), tmp_path / "run", parallelism=parallelism)
    assert not (tmp_path / "run").exists()


def test_no_pickle_is_read_from_a_server(server: redis_server.Server) -> None:
    """Optuna keeps snapshots there as pickles; one of somebody else's would run his code."""
    with redis.Redis.from_url(server.url) as client:
        client.set(":snapshot", b"cos\nabort\n(tR.")
        with shared(server.url) as storage:
            assert storage.get_all_studies() is not None
        client.delete(":snapshot")
