"""Searches of several workers: what they give, and what sudden ends cost."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest

from dse.errors import RunError
from dse.evaluate.metric import Metric
from dse.explore.loop import run
from dse.explore.measure.parallelism import Parallelism
from dse.explore.measure.session import Session, prepare
from dse.explore.measure.workers import Workers
from dse.explore.study.storage import open_journal
from dse.explore.study.study import STUDY_NAME, is_settled
from dse.run.read import read_failures
from dse.space.load import load_space
from dse.space.schema import Match, Rule
from tests.explore import metrics

SMOKE = Path("spaces/smoke.yaml")
TRIALS = 12
LIMIT_S = 300
"""For what happens in seconds where nothing else runs."""


@pytest.fixture
def marks(tmp_path: Path) -> metrics.Marks:
    return metrics.Marks(folder=tmp_path, driver=os.getpid())


def session(
    function: Callable[..., object],
    trials: int = TRIALS,
    *,
    data: Mapping[str, int] | None = None,
    search: Mapping[str, object] | None = None,
) -> Session:
    """The smoke space with a few samples, few regions and a user's metric."""
    space = load_space(SMOKE)
    few = {"calibration": 8, "search": 8, "report": 8, "batch": 8, **(data or {})}
    space = space.model_copy(
        update={
            "data": space.data.model_copy(update=few),
            "candidates": (
                Rule(match=Match(name="blocks.[0-2]/*"), use=space.candidates[0].use),
                Rule(use=("bf16",)),
            ),
            "search": space.search.model_copy(update={"trials": trials, **(search or {})}),
        }
    )
    metric = Metric(function=function, name="fidelity")
    return prepare(space, origin="smoke", folder=SMOKE.parent, metric=metric)


def front(folder: Path) -> pd.DataFrame:
    table = pd.read_csv(folder / "front.csv")
    return table.drop(columns="trial")


def settled(folder: Path) -> list[tuple[object, ...]]:
    """The parameters of every settled trial, in no order."""
    study = optuna.load_study(study_name=STUDY_NAME, storage=open_journal(folder / "study.log"))
    return sorted(
        tuple(trial.params.values()) for trial in study.get_trials() if is_settled(trial)
    )


@pytest.fixture(scope="session")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two workers that others are compared with, made once for all test processes."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = base / "two_workers"
    with (base / "two_workers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "front.csv").exists():
            run(session(metrics.fidelity), folder, parallelism=Parallelism(workers=2))
    return folder


def test_one_worker_finds_what_the_search_itself_finds(tmp_path: Path) -> None:
    run(session(metrics.fidelity), tmp_path / "alone")
    run(session(metrics.fidelity), tmp_path / "one", parallelism=Parallelism(workers=1))
    pd.testing.assert_frame_equal(front(tmp_path / "alone"), front(tmp_path / "one"))
    assert settled(tmp_path / "alone") == settled(tmp_path / "one")


def test_two_workers_find_the_same_however_long_measurements_take(
    two_workers: Path, tmp_path: Path
) -> None:
    run(session(metrics.uneven), tmp_path / "uneven", parallelism=Parallelism(workers=2))
    pd.testing.assert_frame_equal(front(two_workers), front(tmp_path / "uneven"))
    assert settled(two_workers) == settled(tmp_path / "uneven")


def test_workers_that_die_are_replaced_and_nothing_is_lost(
    two_workers: Path, marks: metrics.Marks, tmp_path: Path
) -> None:
    run(
        session(partial(metrics.deadly, marks=marks)),
        tmp_path / "run",
        parallelism=Parallelism(workers=2),
    )
    assert (tmp_path / "deaths").stat().st_size == 3
    assert settled(tmp_path / "run") == settled(two_workers)
    pd.testing.assert_frame_equal(front(two_workers), front(tmp_path / "run"))
    assert read_failures(tmp_path / "run") == {}


def test_what_kills_every_worker_is_given_up(marks: metrics.Marks, tmp_path: Path) -> None:
    planned = session(metrics.fidelity)
    problem = planned.design.problem
    scores = [
        planned.evaluator.measure(problem.assignment(point)).metric
        for point in problem.uniforms.values()
    ]
    deadly = partial(metrics.poisonous, marks=marks, threshold=min(scores) + 1e-4, samples=8)
    # The report split has another size: what is worst on the search split may be any there.
    searched = session(deadly, trials=6, data={"report": 16})
    run(searched, tmp_path / "run", parallelism=Parallelism(workers=2))
    failures = read_failures(tmp_path / "run")
    assert failures
    assert all("3 workers died" in error for error in failures.values())
    assert len(settled(tmp_path / "run")) == 6


def test_a_search_that_is_killed_leaves_no_worker_and_ends_as_it_would_have(
    two_workers: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    hold = tmp_path / "hold"
    with search_in_process(folder, hold, after=5, workers=2) as process:
        wait_until(hold.exists, process)
        workers = descendants(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert len(workers) >= 2
        wait_until(lambda: not any(alive(worker) for worker in workers))
    assert 5 <= completed(folder) < TRIALS
    run(session(metrics.fidelity), folder, resume=True, parallelism=Parallelism(workers=2))
    assert settled(folder) == settled(two_workers)
    pd.testing.assert_frame_equal(front(two_workers), front(folder))


def test_ctrl_c_ends_the_workers_too(tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    with search_in_process(tmp_path / "run", hold, after=3, workers=2) as process:
        wait_until(hold.exists, process)
        workers = descendants(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        _, complaints = process.communicate(timeout=LIMIT_S)
        assert not any(alive(worker) for worker in workers)
    assert complaints.count("Traceback") == 1
    assert complaints.strip().endswith("KeyboardInterrupt")


@contextmanager
def search_in_process(
    folder: Path,
    hold: Path,
    *,
    after: int,
    **parallelism: object,
) -> Iterator[subprocess.Popen[str]]:
    """A search in a process group of its own that stands still in its trials.

    It makes `hold` when `after` trials are settled: what is measured then does not end, and a test
    that waits for the file finds the search in the middle, however slow the machine is. Whatever
    becomes of the test, nothing of the group is left at the end.
    """
    code = f"""
import signal
from functools import partial
from pathlib import Path
from dse.explore.loop import run
from dse.explore.measure.parallelism import Parallelism
from tests.explore import metrics
from tests.explore.measure.test_parallelism import session

HOLD = Path({str(hold)!r})

def stand_still(status):
    if status.stage == "trials" and status.done >= {after}:
        HOLD.touch()

# Shells start jobs in the background with it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
if __name__ == "__main__":
    metric = partial(metrics.held, hold=HOLD)
    parallelism = Parallelism(**{parallelism!r})
    run(session(metric), Path({str(folder)!r}), parallelism=parallelism, progress=stand_still)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": "."},
    )
    with process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not reached():
        assert time.monotonic() < deadline, "waited in vain"
        if process is not None and process.poll() is not None:
            assert process.stderr is not None
            pytest.fail(f"the search ended by itself: {process.stderr.read()}")
        time.sleep(0.02)


def completed(folder: Path) -> int:
    """Trials that a journal says are complete."""
    journal = folder / "study.log"
    return journal.read_text().count('"state":1') if journal.exists() else 0


def descendants(pid: int) -> Sequence[int]:
    try:
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return []
    return [found for word in words for found in (int(word), *descendants(int(word)))]


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_more_workers_than_memory_are_refused_before_one_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[int] = []
    monkeypatch.setattr(Workers, "_seated", lambda _, number: started.append(number))
    monkeypatch.setattr("dse.explore.measure.workers.available_bytes", lambda: 10**9)
    evaluator: Any = None
    with pytest.raises(RunError, match=r"--workers 64: each takes .*0\.3 GB.* 1 GB free.* most 3"):
        Workers(evaluator, 64)
    assert started == []
    Workers(evaluator, 3)
    assert started == [0, 1, 2]
