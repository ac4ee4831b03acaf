"""Commands that messages name are pasted, and work; every path has a space in it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dse.cli.screen import INTERRUPTED
from dse.explore import loop
from tests.cli.conftest import Dse


@pytest.fixture
def own(space: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "two words"
    folder.mkdir()
    return space.rename(folder / space.name)


def pasted(text: str) -> list[list[str]]:
    """Every command line of a text that says what to do next."""
    found = re.findall(r"(?:with|then): (dse .+)", text)
    return [shlex.split(line)[1:] for one in found for line in one.split(" && ")]


def test_a_run_that_is_there_is_continued(dse: Dse, own: Path) -> None:
    arguments = ("search", own, "--out", own.parent / "run", "--trials", 4)
    assert dse(*arguments).code == 0
    refused = dse(*arguments)
    assert refused.code == 2
    (command,) = pasted(refused.err.replace(", or choose", "\n"))
    assert dse(*command).code == 0
    extended = dse(*command, "--trials", 5)
    assert extended.code == 0
    assert len(pd.read_csv(own.parent / "run" / "trials.csv")) == 5


@pytest.mark.parametrize("shared", [False, True])
def test_a_run_that_was_stopped_goes_on(
    dse: Dse, own: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    def stop(study: object, progress: object, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    options: list[Any] = ["--storage", own.parent / "shared.log", "--study", "a b"]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_show", stop)
        stopped = dse(
            "search", own, "--out", own.parent / "run", "--trials", 4, *(options if shared else [])
        )
    assert stopped.code == INTERRUPTED
    (command,) = pasted(stopped.err)
    assert ("--storage" in command) == shared
    done = dse(*command)
    assert done.code == 0, done.err
    assert len(pd.read_csv(own.parent / "run" / "trials.csv")) == 4


def test_what_is_proposed_is_told(dse: Dse, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = own.parent / "run"
    assert dse("search", own, "--out", run, "--trials", 4).code == 0
    proposed = dse("propose", run, "-n", 1, "-o", own.parent / "next")
    line = proposed.out.partition("and: ")[2].strip()
    digest = next((own.parent / "next").glob("*.json")).stem
    monkeypatch.chdir(own.parent)
    Path("RESULTS.csv").write_text(f"digest,quality_loss\n{digest},0.1\n")
    monkeypatch.chdir(Path(__file__).parents[2])
    command = [str(own.parent / word) if word == "RESULTS.csv" else word for word in
               shlex.split(line)[1:]]  # fmt: skip
    told = dse(*command)
    assert told.code == 0, told.err


def test_a_space_that_was_written_is_checked(dse: Dse, own: Path) -> None:
    written = dse("init", "zoo:fashion-resnet", "-o", own.parent / "new space.yaml")
    commands = pasted(written.out)
    assert [command[0] for command in commands] == ["check", "search"]
    checked = dse(*commands[0])
    assert checked.code == 0, checked.err


@pytest.mark.parametrize("url", ["sqlite:///{}", "{}"])
def test_a_manifest_from_a_stranger_makes_no_file(dse: Dse, own: Path, url: str) -> None:
    run, elsewhere = own.parent / "run", own.parent / "elsewhere.log"
    assert dse("search", own, "--out", run, "--trials", 4).code == 0
    manifest = run / "manifest.json"
    text = manifest.read_text()
    assert '"storage": null' in text
    stored = f'"storage": "{url.format(elsewhere)}"'
    manifest.write_text(text.replace('"storage": null', stored))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for line in (["search", "--out", run, "--resume"], ["propose", run, "-n", 1, "-o", run / "n"]):
        refused = dse(*line)
        assert refused.code == 2, refused.err
        assert "outside of the folder; if you know that place, name it: --storage" in refused.err
    assert not elsewhere.exists()
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert {path for path in after if after[path] != before.get(path)} <= {run / ".lock"}
