"""`dse devices --new`, with settings and with answers."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from hwmodels.devices.load import load_device
from tests.cli.conftest import Dse
from tests.cli.test_errors import assert_refused

ANSWERS = ("my-gpu", "gpu", "sm 8.9", "", "My GPU", "", "", "2027", "sheet 1.0", "120", "2400 MHz",
           "350", "fast", "700 @ table 2", "none", "", "none", "", "", "32 GB", "0.9 TB/s", "",
           "", "300 W", "", "", "", "")  # fmt: skip
"""The third of the rates is no number, and is asked for again."""


def test_settings_make_a_file_that_predict_takes(dse: Dse, tmp_path: Path) -> None:
    new = tmp_path / "mine.yaml"
    settings = ("--set", "cores=160", "--set", "memory.bandwidth=1.2 TB/s @ page 2")
    made = dse("devices", "mine", "--new", "--like", "l40s", *settings, "--source", "sheet",
               "-o", new, "--json")  # fmt: skip
    answer = json.loads(made.out)
    assert answer["device_file"] == str(new)
    assert answer["like"] == "l40s"
    device = load_device(new)
    assert answer["assumed"] == sum(one.kind == "assumed" for one in device.figures)
    assert answer["figures"] - answer["assumed"] == 3
    assert device.unit("matrix").count.source == "sheet"
    assert device.main_memory.bandwidth_bytes_per_s.source == "page 2"
    assert dse("predict", "zoo:byte-gpt", "--device", new, "--dim", "batch=1", "--dim",
               "sequence=64").code == 0  # fmt: skip
    assert "page 2" in dse("devices", new).out


def test_questions_are_answered_line_by_line(
    dse: Dse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(ANSWERS) + "\n"))
    outcome = dse("devices", "--new")
    assert outcome.code == 0, outcome.err
    assert "Known device that it is most like [l40s]" in outcome.out
    assert "fp8=fast: expected a number" in outcome.out
    assert "sheets like to print twice as much" in outcome.out
    device = load_device("my-gpu.yaml")
    assert (device.title, device.vendor, device.year) == ("My GPU", "nvidia", 2027)
    assert device.unit("matrix").count.value == 120
    fp8 = device.rate("e4m3", "e4m3")
    assert fp8 is not None
    assert (fp8.ops_per_s.value, fp8.ops_per_s.source) == (700e12, "table 2")
    assert device.rate("int4", "int4") is None
    assert device.main_memory.bandwidth_bytes_per_s.value == 0.9e12
    assert device.main_memory.bandwidth_bytes_per_s.source == "sheet 1.0"
    assert device.power.limit_w.kind == "datasheet"
    assert device.launch_s.kind == "assumed"


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("x --new --set cores=1", ["Give --like DEVICE"]),
        ("x --new --like h100", ["unknown device 'h100'", "h100-sxm"]),
        ("--new --like l4", ["name: missing"]),
        ("x --new --like l4 --set bf16", ["expected KEY=VALUE"]),
        ("x --new --like l4 --set cores=1 --set cores=2", ["cores: given twice"]),
        ("x --new --like l4 --set bf16=400", ["no unit"]),
        ("l4 --new --like l4", ["is a known device"]),
        ("x --like l4", ["are of --new; add it"]),
        ("x --new --like l4 -o no/where.yaml", ["cannot be written"]),
        ("x --new --like l4 --ask", ["the input ended before"]),
    ],
)
def test_wrong_lines_are_refused_and_nothing_is_written(
    dse: Dse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, parts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    outcome = dse("devices", *line.split())
    assert outcome.code == 2
    for part in parts:
        assert part in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_not_overwritten(
    dse: Dse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert dse("devices", "mine", "--new", "--like", "l4").code == 0
    assert_refused(dse("devices", "mine", "--new", "--like", "l4"), "mine.yaml exists", "-o")
