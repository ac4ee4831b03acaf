"""Searches that are killed at random moments: what they lose, and where they end.

Usage: python -m studies.sudden_ends.run [--ends 100] [--rows FILE.csv]

Resumable: a run is a number; runs that the file has are not made again.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import yaml
from optuna.trial import FrozenTrial, TrialState

from dse.explore.measure.workers import PRELOADED
from dse.explore.study.storage import open_journal, shared
from dse.explore.study.study import JOURNAL, STUDY_NAME
from dse.run.files import FRONT, MANIFEST
from tests.explore import postgresql
from tests.explore.server import served
from tests.hostile import seeds
from tests.hostile.answer import import_all

HERE = Path(__file__).parent
ROWS = HERE / "results" / "runs.csv"
COLUMNS = ("run", "storage", "search_kills", "worker_kills", "server_restarts",
           "complete_when_killed", "complete", "lost", "doubled", "same_front")  # fmt: skip
TRIALS = 12
SPACE: Mapping[str, object] = {
    **seeds.SPACE,
    "candidates": [
        {"match": {"name": "*"}, "use": ["bf16", "w8a8_fp8", "w4a16", "w8a8_int8"]},
    ],
    "search": {"trials": TRIALS, "seed": 1, "solver_budgets": 4},
}
"""Two regions with four choices each, of which twelve combinations are measured."""
BY_CLOCK = 0.3
"""Share of kills at a random second; others come after a random number of trials."""
POOL: Any = forkserver._forkserver
"""The server that workers are forked from."""
SOON_S = 0.1
RESTART_S = 1.0
"""How long the server is away."""
LIMIT_S = 600


@dataclass(kw_only=True)
class Life:
    """One search, from its first start to its end."""

    number: int
    folder: Path
    server: postgresql.Server | None
    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COLUMNS[2:5], 0))
    seen: dict[str, float] = field(default_factory=dict)
    """Digest -> loss of what was complete at some kill."""
    counts: list[int] = field(default_factory=list)

    @property
    def study(self) -> str:
        return f"run{self.number}"

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".out")

    @property
    def measured(self) -> int:
        """Trials that the search says it has."""
        said = self.log.read_text(errors="replace") if self.log.exists() else ""
        return int((re.findall(rf"(\d+)/{TRIALS}", said) or ["0"])[-1])

    def has(self, trials: int) -> bool:
        """Whether the search says it has so many."""
        return self.measured >= trials

    @property
    def command(self) -> list[str]:
        begun = (self.folder / MANIFEST).is_file()
        shared = self.server and ["--storage", self.server.url, "--study", self.study]
        start = ["--resume"] if begun else [str(self.folder.parent / "space.yaml")]
        return ["search", *start, "--out", str(self.folder), "--workers", "2", *(shared or [])]

    def trials(self) -> list[FrozenTrial]:
        """Complete trials, as the storage has them now."""
        with self._storage() as storage:
            name = self.study if self.server else STUDY_NAME
            if storage is None or name not in optuna.get_all_study_names(storage):
                return []
            study = optuna.load_study(study_name=name, storage=storage)
            return study.get_trials(states=(TrialState.COMPLETE,))

    @contextmanager
    def _storage(self) -> Iterator[optuna.storages.BaseStorage | None]:
        if self.server:
            with shared(self.server.url) as storage:
                yield storage
        elif not (self.folder / JOURNAL).is_file():
            yield None
        else:
            with tempfile.TemporaryDirectory() as scratch:
                yield open_journal(Path(shutil.copy(self.folder / JOURNAL, scratch)))

    def note(self) -> None:
        """Remember what is complete now."""
        found = {trial.user_attrs["digest"]: trial.values[0] for trial in self.trials()}
        self.counts.append(len(found))
        self.seen |= found


def started(command: Sequence[str], log: Path) -> int:
    """A process that runs a command line, with everything imported."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        # The server of workers is its parent's: a process cannot wait for a sibling.
        POOL.ensure_running = lambda: None
        from dse.cli.app import run  # noqa: PLC0415

        code = run(command)
    finally:
        os._exit(code)


def ended(pid: int, within_s: float, *, unless: Callable[[], bool] = lambda: False) -> bool:
    """Whether a process ends by itself within some seconds, and before something else is so."""
    end = time.monotonic() + within_s
    while time.monotonic() < end and not unless():
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            if status:
                raise RuntimeError(f"a search ended with {os.waitstatus_to_exitcode(status)}")
            return True
        time.sleep(0.01)
    return False


def workers_of(pid: int) -> list[int]:
    """Processes that measure for a search: the server's children that hold its pipes."""
    pool = POOL._forkserver_pid
    children = Path(f"/proc/{pool}/task/{pool}/children").read_text().split()
    return [int(child) for child in children]


def disturbed(life: Life, rng: random.Random, typical_s: float) -> None:
    """Start a search and kill something at a random moment, as often as it lives to see it."""
    for _ in range(rng.choice((1, 2, 3))):
        pid = started(life.command, life.log)
        if rng.random() < BY_CLOCK:
            is_over = ended(pid, rng.uniform(0, 1.2 * typical_s))
        else:
            some = rng.randint(min(life.measured, TRIALS - 1), TRIALS)
            is_over = ended(pid, LIMIT_S, unless=partial(life.has, some))
            is_over = is_over or ended(pid, rng.uniform(0, SOON_S))
        if is_over:
            return
        victim = rng.choice(("search", "search", "worker", "server"))
        if victim == "worker" and (workers := workers_of(pid)):
            with suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)
                life.kills["worker_kills"] += 1
        elif victim == "server" and life.server:
            life.server.stop()
            life.kills["server_restarts"] += 1
            threading.Event().wait(RESTART_S)
            life.server.start()
        if ended(pid, rng.uniform(0, 0.6 * typical_s)):
            return
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        life.kills["search_kills"] += 1
        life.note()
        if not (life.folder / MANIFEST).is_file():  # nothing was begun
            shutil.rmtree(life.folder, ignore_errors=True)


def finished(life: Life) -> None:
    """Go on to the end."""
    if not (life.folder / FRONT).is_file():
        pid = started(life.command, life.log)
        if not ended(pid, LIMIT_S):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise RuntimeError(f"run {life.number} hangs")


def front(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / FRONT).drop(columns="trial")


def row(life: Life, reference: pd.DataFrame) -> dict[str, object]:
    """What a life was and what it came to."""
    losses = [(trial.user_attrs["digest"], trial.values[0]) for trial in life.trials()]
    found = dict(losses)
    return {
        "run": life.number,
        "storage": "postgresql" if life.server else "journal",
        **life.kills,
        "complete_when_killed": " ".join(map(str, life.counts)),
        "complete": len(losses),
        "lost": sum(found.get(digest) != loss for digest, loss in life.seen.items()),
        "doubled": len(losses) - len(found),
        "same_front": front(life.folder).equals(reference),
    }


def lives(home: Path, server: postgresql.Server | None) -> Iterator[Life]:
    """Searches without end, in the journal and in the server in turn."""
    for number in range(10_000):
        kept = server if number % 2 else None
        yield Life(number=number, folder=home / f"run{number}", server=kept)


def study(path: Path, ends: int) -> pd.DataFrame:
    """Runs what is missing; all rows."""
    rows: list[dict[str, object]] = []
    if path.is_file():
        with path.open(newline="") as before:
            rows = [dict(entry) for entry in csv.DictReader(before)]
    done, killed = {int(str(entry["run"])) for entry in rows}, sum(map(_kills, rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as name,
        served(_server(Path(name))) as server,
        path.open("a", newline="") as stream,
    ):
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        if not rows:
            writer.writeheader()
        calm, typical_s = _prepared(Path(name))
        for life in lives(Path(name), server):
            if killed >= ends:
                break
            if life.number in done:
                continue
            disturbed(life, random.Random(life.number), typical_s)
            finished(life)
            entry = row(life, calm)
            killed += _kills(entry)
            writer.writerow(entry)
            stream.flush()
    return pd.read_csv(path)


def _kills(entry: Mapping[str, object]) -> int:
    return sum(int(str(entry[name])) for name in COLUMNS[2:5])


def _server(home: Path) -> postgresql.Server:
    home.chmod(0o755)  # for the server's user
    return postgresql.Server(home / "server")


def _prepared(home: Path) -> tuple[pd.DataFrame, float]:
    """The front of a search that nobody disturbs, and the seconds that it takes."""
    (home / "mlp.onnx").write_bytes(seeds.MODELS["mlp"]().SerializeToString())
    (home / "mlp.npz").write_bytes(seeds.npz(seeds.arrays()))
    (home / "space.yaml").write_text(yaml.safe_dump(dict(SPACE), sort_keys=False))
    import_all()
    forkserver.set_forkserver_preload(PRELOADED)
    forkserver.ensure_running()
    seconds = []
    for number in (-2, -1):  # the first compiles kernels
        calm, begun = Life(number=number, folder=home / f"calm{number}", server=None), time.time()
        finished(calm)
        seconds.append(time.time() - begun)
    return front(calm.folder), seconds[-1]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ends", type=int, default=100)
    parser.add_argument("--rows", type=Path, default=ROWS)
    given = parser.parse_args(arguments)
    table = study(given.rows, given.ends)
    sums = table.groupby("storage")[["search_kills", "worker_kills", "server_restarts", "lost",
                                     "doubled"]].sum()  # fmt: skip
    sums["runs"] = table.groupby("storage").size()
    sums["same_front"] = table.groupby("storage").same_front.sum()
    print(sums.to_string())


if __name__ == "__main__":
    main()
