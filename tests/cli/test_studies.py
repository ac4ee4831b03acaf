"""`dse studies`, `dse study run`, `dse study show`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dse.cli.app import run
from tests.cli.conftest import Dse


def test_all_systems_are_listed(dse: Dse) -> None:
    shown = dse("studies")
    assert shown.code == 0
    assert "S28" in shown.out
    found = json.loads(dse("studies", "--json").out)
    assert len(found) == 28
    assert sum(one["in seconds"] for one in found) > 60


def test_claims_are_measured_and_told(dse: Dse, tmp_path: Path) -> None:
    shown = dse("study", "run", "s3", "S22", "-o", tmp_path / "out")
    assert shown.code == 0
    assert "S03 Continuous 16-bit training" in shown.out
    assert "second / first: 0.5, expected 0.5" in shown.out
    assert "takes minutes; add --minutes" in shown.out
    assert "not run here: 77.6 %" in shown.out
    assert all(len(line) <= 100 for line in shown.out.splitlines())
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == ["S03.json", "S22.json"]


def test_every_seed_of_a_claim_moves_the_progress(dse: Dse) -> None:
    """A claim of several seeds is told as it goes on, not when it has ended."""
    shown = dse("study", "run", "S14", "--seeds", "3")
    told = " ".join(shown.err.split())
    assert "measuring claims" in told
    assert "2/6, S14, claim 3 of 5," in told
    for seed, done in ((1, 3), (2, 4), (3, 5)):
        assert f"{done}/6, S14, claim 4 of 5, seed {seed} of 3" in told
    assert "6/6" in told


def test_claims_are_there_as_json(dse: Dse) -> None:
    shown = dse("study", "run", "S22", "--json", "--seeds", "2")
    (found,) = json.loads(shown.out)
    assert shown.err == ""
    verdicts = {one["verdict"] for one in found["claims"]}
    assert verdicts == {"holds", "not run", "not run here"}
    replayed = found["claims"][1]
    assert replayed["seeds"] == 2
    assert replayed["conditions"][0] == {
        "what": "changes", "wanted": "3", "found": "3", "holds": True,
    }  # fmt: skip


def test_a_claim_that_does_not_hold_ends_in_1(
    dse: Dse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dse.systems import load  # noqa: PLC0415

    text = (load.FOLDER / "S03.yaml").read_text(encoding="utf-8")
    assert "value: 0.5, within: 0}" in text
    changed = text.replace("value: 0.5, within: 0}", "value: 0.6, within: 0}")
    (tmp_path / "S03.yaml").write_text(changed, encoding="utf-8")
    monkeypatch.setattr(load, "FOLDER", tmp_path)
    shown = dse("study", "run", "S03")
    assert shown.code == 1
    assert "does not hold: " in shown.out
    assert "no: second / first: 0.5, expected 0.6" in shown.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["study", "run", "S99"], "unknown system 'S99'"),
        (["study", "run", "S09", "--seeds", "0"], "greater than or equal to 1"),
        (["study", "rnu", "S09"], "did you mean 'run'"),
        (["study", "show", "coat"], "see: dse studies"),
        (["stduies"], "did you mean 'studies'"),
    ],
)
def test_a_wrong_line_is_refused_in_words(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    assert words in capsys.readouterr().err


def test_a_system_is_shown_with_its_evidence(dse: Dse) -> None:
    shown = dse("study", "show", "S14")
    assert "arXiv 2410.19313" in shown.out
    assert "[seconds; published]" in shown.out
    found = json.loads(dse("study", "show", "S14", "--json").out)
    assert found["uses"]["methods"] == ["coat"]
    assert found["claims"][0]["evidence"] == "published"
