"""The command line: a space of methods searched, resumed, checked, reported, and refused."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

from dse.cli.app import run
from dse.run.training_run import COLUMNS, read_training_run
from dse.training.load import load_method
from hwmodels.yaml_file import yaml_text
from tests.training.search.spaces import SMALL, content


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "small.yaml"
    question = "# Does the gradient of activations need bf16?\n"
    path.write_text(question + yaml_text(content(**SMALL)))
    return path


@pytest.fixture(scope="module")
def folder(space: Path) -> Path:
    out = space.parent / "run"
    assert run(["search", str(space), "--out", str(out), "--workers", "1", "--json"]) == 0
    return out


def test_a_search_leaves_a_front_a_method_file_and_a_page(folder: Path) -> None:
    found = read_training_run(folder)
    assert found.manifest.status == "complete"
    assert found.manifest.asked == "Does the gradient of activations need bf16?"
    with (folder / "front.csv").open(newline="") as stream:
        assert set(COLUMNS) <= set(next(csv.reader(stream)))
    assert load_method(folder / "recommended.yaml").roles
    page = (folder / "report.html").read_text()
    assert "Every axis alone" in page
    assert "What each axis buys" in page or not found.ablation


def test_a_report_is_written_again_from_the_folder(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "report.html").unlink()
    assert run(["report", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "gap to bf16" in out
    assert "Losses are of digits-mlp" in out
    assert run(["report", str(folder), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"trial", "gap", "report_gap", "step_s", "memory_bytes", "method"} <= set(rows[0])


def test_a_finished_run_is_continued_without_training_again(folder: Path) -> None:
    before = (folder / "trials.csv").read_text()
    assert run(["search", "--out", str(folder), "--resume", "--workers", "1", "--json"]) == 0
    assert (folder / "trials.csv").read_text() == before


def test_another_space_does_not_continue_it(
    folder: Path, space: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["search", str(space), "--out", str(folder)]
    assert run(command) == 2
    assert "exists already; continue it with: dse search --out" in capsys.readouterr().err
    assert run([*command, "--resume", "--seed", "7"]) == 2
    assert "cannot be resumed: its space differs" in capsys.readouterr().err


def test_losses_of_a_gpu_are_no_pairs_with_those_of_a_cpu(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "run"
    shutil.copytree(folder, other)
    manifest = json.loads((other / "manifest.json").read_text())
    assert manifest["compute"] == "cpu"
    (other / "manifest.json").write_text(json.dumps({**manifest, "compute": "cuda"}))
    assert run(["search", "--out", str(other), "--resume", "--workers", "1"]) == 2
    assert "cannot be resumed: its compute differs" in capsys.readouterr().err


def test_a_folder_that_leads_elsewhere_is_not_continued(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = tmp_path / "run"
    shutil.copytree(folder, strange)
    (strange / "front.csv").unlink()
    (strange / "front.csv").symlink_to(tmp_path / "elsewhere.csv")
    assert run(["search", "--out", str(strange), "--resume"]) == 2
    assert "front.csv: is a symbolic link" in capsys.readouterr().err
    assert not (tmp_path / "elsewhere.csv").exists()


def test_a_space_is_checked_without_training(
    space: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", str(space)]) == 0
    out = capsys.readouterr().out
    assert "1 (dgrad)" in out
    assert "mxfp8" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "zoo:byte-gpt"], "--data: not of a space of training methods"),
        (["--memory", "1 GB"], "--memory: not of a space of training methods"),
        (["--compute", "cuda"], "--compute cuda: torch finds no GPU here"),
        (["--target", "b200-sxm", "--target", "h100-sxm"], "has one device"),
        (["--target", "b2000-sxm"], "b2000-sxm"),
    ],
)
def test_what_a_space_of_methods_does_not_take_is_refused(
    space: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run(["search", str(space), "--out", str(space.parent / "none"), *options]) == 2
    assert words in capsys.readouterr().err


def test_other_spaces_have_no_quick_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", "spaces/fp4.yaml", "--quick"]) == 2
    assert "--quick is of spaces of training methods" in capsys.readouterr().err


def test_readers_of_other_runs_say_what_this_one_is(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", str(folder), "--trial", "0", "--to", "recipe", "-o", "x"]) == 2
    assert "a search over training methods" in capsys.readouterr().err
