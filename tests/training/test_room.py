"""Memory of a run, planned and taken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dse.cli.app import run
from dse.errors import RunError
from dse.execute.memory import GIGA
from dse.explore.measure import workers
from dse.training.load import load_method
from dse.training.room import META, run_bytes, saved_bytes
from dse.training.search.pool import Places
from dse.training.search.run import LOCAL, placed, run_training_search
from dse.training.workloads.catalogue import workload
from tests.training.methods import method
from tests.training.test_run import Stripes

TRAIN = """
import sys, torch
from dse.training.load import load_method
from dse.training.run import Run
from dse.training.workloads.catalogue import workload
torch.set_num_threads(1)
run = Run(load_method(sys.argv[2]), workload(sys.argv[1]), 0, steps=3)
run.advance()
run.advance()
held = dict(line.split(":") for line in open("/proc/self/status"))
print(1024 * (int(held["VmHWM"].split()[0]) - int(held["RssFile"].split()[0])))
"""
"""Prints the most that a process had, without the pages of libraries.

Not `ru_maxrss`, which a new program takes over from the process that started it.
"""


@pytest.mark.parametrize(
    ("network", "name"),
    [("byte-gpt", "bf16"), ("fashion-resnet", "quartet_ii"), ("digits-mlp", "adam8bit")],
)
def test_a_process_takes_about_what_is_planned(network: str, name: str) -> None:
    planned = run_bytes(workload(network), [load_method(name)])
    words = [sys.executable, "-c", TRAIN, network, name]
    taken = int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    # Twice where kernels come from the cache, whose compilation is planned for.
    assert 0.7 * taken < planned < 2 * taken


def test_saved_bytes_are_those_of_the_formula() -> None:
    """An MLP saves its inputs, what ReLU gave, and log-probabilities."""
    network = workload("digits-mlp")
    batch = network.batch(0, 0)
    count = len(batch.labels)
    inputs, outputs = 4 * count * (64 + 128 + 128), 4 * count * 10
    labels, total = 8 * count, 4
    assert saved_bytes(network.model(0).to(META), batch) == inputs + outputs + labels + total


def test_clients_count_each_with_weights_and_moments() -> None:
    found = method(rounds={"clients": 4})
    one, four = run_bytes(Stripes(), []), run_bytes(Stripes(), [found])
    parameters = sum(p.numel() * 4 for p in Stripes().model(0).parameters())
    assert four - one == 4 * 3 * parameters


def test_workers_beyond_memory_are_refused_before_a_folder_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(workers, "available_bytes", lambda: int(1.3 * GIGA))
    line = ["train", "mxfp8", "--steps", "2", "--seeds", "8", "--out", str(tmp_path / "run")]
    assert run([*line, "--workers", "16"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "--workers 16: each takes about 0.5 GB" in said
    assert "1.3 GB free; expected at most 2" in said
    assert not (tmp_path / "run").exists()
    assert run(["train", "mxfp8", "--steps", "2", "--seeds", "1", "--out", str(tmp_path / "run"),
                "--workers", "16"]) == 0  # fmt: skip


def test_a_search_takes_as_many_workers_as_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(64))
    free = "dse.training.search.run.available_bytes"
    for gigabytes, expected in ((1.1, 2), (0.1, 1), (100.0, 8)):
        monkeypatch.setattr(free, lambda size=gigabytes: int(size * GIGA))
        assert placed(workload("digits-mlp"), LOCAL).count == expected
    monkeypatch.setattr(workers, "available_bytes", lambda: int(1.1 * GIGA))
    with pytest.raises(RunError, match=r"--workers 9: each takes .* expected at most 2"):
        run_training_search(
            "spaces/fp4-training.yaml", out=tmp_path / "run", places=Places(count=9)
        )
    assert not (tmp_path / "run").exists()


def test_a_gpu_is_one_place_unless_more_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = workload("digits-mlp")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert placed(digits, Places(device="cuda")) == Places(count=1, device="cuda")
    assert placed(digits, Places(count=2, device="cuda")).count == 2
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RunError, match="torch finds no GPU here"):
        placed(digits, Places(device="cuda"))
    elsewhere = Places(device="cuda", on_ray=True)
    assert placed(digits, elsewhere) == elsewhere
