"""`dse search` as a process: output, refusal, and interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from dse.cli.screen import INTERRUPTED, TERMINATED
from tests.cli.conftest import Dse

# Shells start jobs in the background with SIGINT ignored.
PROGRAM = """
import signal
from dse.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
DSE = (sys.executable, "-c", PROGRAM)


def test_a_finished_search_prints_its_front_and_its_report(
    dse: Dse, space: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    outcome = dse("search", space, "--out", out, "--trials", 6)
    assert outcome.code == 0
    assert f"report: {out / 'report.html'}" in outcome.out
    assert "★" in outcome.out
    assert "6/6" in outcome.err
    again = dse("search", space, "--out", out, "--trials", 6)
    assert again.code == 2
    assert "--resume" in again.err


def test_a_budget_of_bytes_holds_for_every_point_of_the_front(
    dse: Dse, space: Path, tmp_path: Path
) -> None:
    def weights(out: Path, *more: object) -> list[float]:
        outcome = dse("search", space, "--out", out, "--trials", 6, *more)
        assert outcome.code == 0, outcome.err
        found = pd.read_csv(out / "front.csv")["weight_bytes"]
        return [float(value) for value in found]

    free = weights(tmp_path / "free")
    limit = (min(free) + max(free)) / 2
    assert max(free) > limit
    kept = weights(tmp_path / "kept", "--target-bytes", limit, "--focus", "quality_loss<=0.1")
    assert kept
    assert max(kept) <= limit


@pytest.mark.parametrize(
    ("words", "said"),
    [(("--target-bytes", "many"), "expected bytes or a share"),
     (("--target-bytes", "nan%"), "is not a finite number"),
     (("--bits-per-weight", "nan"), "is not a finite number"),
     (("--focus", "quality_loss"), "expected")],
)  # fmt: skip
def test_budgets_that_say_nothing_are_refused(
    dse: Dse, space: Path, tmp_path: Path, words: tuple[str, str], said: str
) -> None:
    outcome = dse("search", space, "--out", tmp_path / "run", *words)
    assert outcome.code == 2
    assert said in outcome.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, TERMINATED)]
)
def test_a_search_that_is_stopped_says_how_to_go_on(
    space: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "run"
    command = [*DSE, "search", str(space), "--out", str(out), "--trials", "40"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "hypervolume" in line:
                break
        process.send_signal(number)
        rest = process.stderr.read()
    assert process.returncode == code
    assert f"dse: interrupted; go on with: dse search --out {out} --resume" in rest
    assert "Traceback" not in rest
    assert json.loads((out / "manifest.json").read_text())["status"] == "interrupted"


def test_a_reader_that_goes_away_is_no_error_of_ours() -> None:
    with subprocess.Popen(
        [*DSE, "formats"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
