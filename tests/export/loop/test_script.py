"""The script passes words on as they are, whatever stands in a path."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dse.export.loop.script import Section, Setting, script
from dse.export.loop.steps import Step

PORT = Setting(name="PORT", default="8000", meaning="a port")
TEXT = Setting(name="TEXT", default="", meaning="a text", is_path=True)


def written(where: Path, section: Section, *settings: Setting) -> Path:
    path = where / "measure.sh"
    path.write_text(script([section], settings, tell="dse tell 'a \"b'", remarks=["nothing else"]))
    return path


@pytest.mark.parametrize(
    "word", ["a b", "$x", "it's", 'a"b', "`id`", "a\\b", "$PORT/$HOME x", "*"]
)
def test_words_arrive_as_they_are(tmp_path: Path, word: str) -> None:
    step = Step(file="results/m/out.txt", command=("printf", "%s|", word, f"p=$PORT,{word}"),
                prints="output")  # fmt: skip
    path = written(tmp_path, Section(title="m", alone=(step,)), PORT)
    subprocess.run(["bash", path], check=True, capture_output=True)
    expected = f"{word}|p=$PORT,{word}|".replace("$PORT", "8000")
    assert (tmp_path / "results/m/out.txt").read_text() == expected


def test_a_file_gets_its_name_when_the_command_has_ended_well(tmp_path: Path) -> None:
    good = Step(file="results/m/good", command=("cp", "measure.sh", "{}"))
    bad = Step(file="results/m/bad", command=("sh", "-c", "echo half > {}; exit 3"))
    path = written(tmp_path, Section(title="m", alone=(bad, good)), PORT)
    ended = subprocess.run(["bash", path], check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "failed: results/m/bad (see logs/results_m_bad.log)" in ended.stderr
    assert [p.name for p in sorted((tmp_path / "results/m").iterdir())] == ["bad.partial", "good"]


def test_a_server_that_does_not_answer_ends_its_steps_and_not_the_others(tmp_path: Path) -> None:
    served = Step(file="results/m/served", command=("touch", "{}"))
    alone = Step(file="results/m/alone", command=("touch", "{}"))
    section = Section(title="m", name="m", serve=("false",), served=(served,), alone=(alone,))
    path = written(tmp_path, section, PORT)
    ended = subprocess.run(["bash", path], check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "m does not answer" in ended.stderr
    assert [p.name for p in (tmp_path / "results/m").iterdir()] == ["alone"]


def test_a_setting_without_a_default_is_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, Section(title="m"), TEXT)
    ended = subprocess.run(["bash", path], check=False, capture_output=True, text=True, env={})
    assert ended.returncode != 0
    assert "TEXT: set it to a text" in ended.stderr
