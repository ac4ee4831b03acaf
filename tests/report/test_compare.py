from __future__ import annotations

import json
from pathlib import Path

import pytest

from dse.errors import RunError
from dse.report.compare import compare
from tests.run.synthetic import write_run


def test_one_page_holds_every_front(finished: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", seed=3)
    page = compare([finished, other], tmp_path / "both.html")
    text = page.read_text(encoding="utf-8")
    assert '"name":"fp4"' in text
    assert '"name":"other"' in text


def test_runs_with_the_same_name_are_told_apart(finished: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / finished.name, seed=3)
    text = compare([finished, other], tmp_path / "both.html").read_text(encoding="utf-8")
    assert str(other) in text


def test_runs_that_are_not_alike_say_what_differs(
    finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Losses of two models, or in two units, stood on one axis without a word."""
    other = write_run(tmp_path / "other", seed=3)
    compare([finished, other], tmp_path / "both.html")
    assert "not alike" not in caplog.text
    path = other / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["model"]["name"] = "another-net"
    manifest["model_digest"] = "0" * 64
    manifest["loss_unit"] = "of the output's norm"
    manifest["phases"] = [{"name": "call", "share": 1, "dims": {"batch": 3}}]
    path.write_text(json.dumps(manifest))
    text = compare([finished, other], tmp_path / "both.html").read_text(encoding="utf-8")
    name = json.loads((finished / "manifest.json").read_text())["model"]["name"]
    assert f"models ({name} / another-net); losses (nats per position / of the" in caplog.text
    assert "call batch=3 x 1)" in caplog.text
    assert "data (" not in caplog.text
    assert "quality loss (nats per position, of the output" in text
    assert "The runs are not alike" in text


def test_one_run_is_no_comparison(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="at least two"):
        compare([finished], tmp_path / "both.html")


def test_runs_without_a_common_cost_are_refused(finished: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other")
    for name in ("trials.csv", "front.csv", "manifest.json"):
        path = other / name
        path.write_text(path.read_text().replace("b200", "mi355").replace("h100", "a100"))
    with pytest.raises(RunError, match="no cost column in common"):
        compare([finished, other], tmp_path / "both.html")
