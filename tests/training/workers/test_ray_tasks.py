"""Runs on a real local Ray cluster of two nodes, in pieces, though tasks die."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dse.cli.app import run
from dse.errors import RunError
from dse.run.training_run import read_training_run
from dse.training import experiment as experiments
from dse.training.experiment import advance, open_folder, outcomes
from dse.training.load import load_method
from dse.training.search.pool import Places, pool_of
from dse.training.search.seed_run import Job
from hwmodels.yaml_file import yaml_text
from tests import ray_cluster
from tests.training.search.spaces import SMALL, content
from tests.training.test_run import STEPS, Stripes, experiment

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

    from dse.training.experiment import Experiment
    from dse.training.workers.piece import Piece
    from dse.training.workloads.workload import Batch

pytestmark = [*ray_cluster.MARKS, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ray_cluster.two_nodes() as found:
        yield found


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadly(Stripes):
    """A process that trains it dies in the middle of seed 1, once or every time."""

    mark: Path
    always: bool = False

    def batch(self, seed: int, step: int) -> Batch:
        if seed == 1 and step == STEPS // 2 and (self.always or not self.mark.exists()):
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Stripes.batch(self, seed, step)


def test_tasks_find_what_this_process_finds_though_one_dies(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dse.training.workers import ray_tasks  # noqa: PLC0415 (an extra)

    alone = experiment(tmp_path / "alone", "bf16", "mxfp8")
    open_folder(alone)
    assert advance(alone)
    monkeypatch.setattr(ray_tasks, "PIECE_S", 0.02)  # many pieces of a few steps
    workload = Deadly(mark=tmp_path / "died")
    there = experiment(tmp_path / "there", "bf16", "mxfp8", workload=workload)
    open_folder(there)
    kept: list[bool] = []
    keep = experiments._keep

    def counted(one: Experiment, key: tuple[str, int], piece: Piece) -> None:
        kept.append(piece.ended)
        keep(one, key, piece)

    monkeypatch.setattr(experiments, "_keep", counted)
    seen: list[tuple[int, int]] = []
    assert advance(there, on_ray=True, listener=lambda done, all_, _: seen.append((done, all_)))
    assert outcomes(there) == outcomes(alone)
    assert (tmp_path / "died").exists()
    assert kept.count(True) == 4
    assert kept.count(False) > 4
    assert seen[-1] == (4 * STEPS, 4 * STEPS)
    assert not list((tmp_path / "there").rglob("*.safetensors"))


def test_a_run_whose_tasks_die_again_and_again_is_given_up(
    cluster: Cluster, tmp_path: Path
) -> None:
    workload = Deadly(mark=tmp_path / "died", always=True)
    trial = experiment(tmp_path / "run", "bf16", workload=workload)
    open_folder(trial)
    with pytest.raises(RunError, match="3 tasks died that trained seed 1 of 'bf16'"):
        advance(trial, on_ray=True, workers=1)
    assert list(outcomes(trial)) == [("bf16", 0)]


def test_what_a_run_raises_is_what_is_raised_here(cluster: Cluster, tmp_path: Path) -> None:
    trial = experiment(tmp_path / "run", "bf16")
    open_folder(trial)
    (trial.folder / "bf16" / "seed-0.safetensors").write_bytes(b"half of it")
    with pytest.raises(RunError, match="delete it"):
        advance(trial, on_ray=True, workers=1)


def test_a_search_trains_its_seeds_on_the_cluster(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dse.training.workers import ray_tasks  # noqa: PLC0415 (an extra)

    def jobs(folder: str) -> list[Job]:
        return [Job(folder=tmp_path / folder, method=load_method("mxfp8"), split="search",
                    seed=seed, steps=STEPS) for seed in (0, 1, 2)]  # fmt: skip

    monkeypatch.setattr(ray_tasks, "PIECE_S", 0.02)
    deadly = Deadly(mark=tmp_path / "died")
    done: list[bool] = []
    with pool_of(deadly, Places(on_ray=True)) as pool:
        first = pool.run(jobs("there")[2:])
        there = pool.run(jobs("there"), lambda: done.append(True))
    with pool_of(Stripes(), Places(count=1)) as pool:
        here = pool.run(jobs("here"))
    assert (tmp_path / "died").exists()
    assert there[2] == first[0]  # read, not trained again
    assert [replace(one, seconds=0) for one in there] == [replace(one, seconds=0) for one in here]
    assert len(done) == 3
    assert not list((tmp_path / "there").rglob("*.safetensors"))


def test_a_search_of_the_command_line_finds_on_a_cluster_what_it_finds_here(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dse.training.workers import ray_tasks  # noqa: PLC0415 (an extra)

    space, made = tmp_path / "small.yaml", list[Job]()
    space.write_text(yaml_text(content(**SMALL)))
    tasks = ray_tasks.Tasks.run

    def counted(self: ray_tasks.Tasks[Job], left: Sequence[Job], **more: Any) -> bool:
        made.extend(left)
        return tasks(self, left, **more)

    monkeypatch.setattr(ray_tasks.Tasks, "run", counted)
    line = ["search", str(space), "--json", "--out"]
    assert run([*line, str(tmp_path / "there"), "--executor", "ray"]) == 0
    count = len(made)
    assert run([*line, str(tmp_path / "here"), "--workers", "1"]) == 0
    assert len(made) == count > 0
    here, there = (read_training_run(tmp_path / name) for name in ("here", "there"))
    assert there.front == here.front
    assert there.manifest.runs == here.manifest.runs


def test_a_seed_of_a_search_whose_tasks_die_is_named(cluster: Cluster, tmp_path: Path) -> None:
    deadly = Deadly(mark=tmp_path / "died", always=True)
    one = Job(folder=tmp_path / "0a1b", method=load_method("bf16"), split="search", seed=1,
              steps=STEPS)  # fmt: skip
    with (
        pool_of(deadly, Places(on_ray=True, count=1)) as pool,
        pytest.raises(RunError, match=r"tasks died that trained seed 1 of the method in .*0a1b"),
    ):
        pool.run([one])


def test_a_piece_stops_in_time_and_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    trial = experiment(tmp_path / "run", "bf16")
    open_folder(trial)
    assert not advance(trial, on_ray=True, until=time.monotonic())
    assert outcomes(trial) == {}
    assert advance(trial, on_ray=True)
    assert len(outcomes(trial)) == 2
