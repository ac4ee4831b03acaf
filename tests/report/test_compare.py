from __future__ import annotations

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
