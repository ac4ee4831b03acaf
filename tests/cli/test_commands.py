"""Every command once, as the README and the help say."""

from __future__ import annotations

import io
import json
import logging
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from dse.model import open_model
from dse.sensitivity.table import Score, Sensitivity, warn_of_flat
from hwmodels.devices.load import device_names
from hwmodels.formats.catalog import FORMATS, SCHEMES, quantizer
from hwmodels.runtimes.load import runtime_names
from tests.cli.conftest import Dse

BYTE_GPT = ("zoo:byte-gpt", "--dim", "batch=1", "--dim", "sequence=128")


def test_version(dse: Dse) -> None:
    assert dse("--version").out.startswith("dse 0.")


def test_no_command_prints_the_help(dse: Dse) -> None:
    outcome = dse()
    assert "Usage: dse" in outcome.out + outcome.err


@pytest.mark.parametrize("command", ["devices", "runtimes", "zoo"])
def test_a_catalogue_lists_as_table_and_as_json(dse: Dse, command: str) -> None:
    rows = json.loads(dse(command, "--json").out)
    table = dse(command).out
    key = command.removesuffix("s") if command != "zoo" else "model"
    assert len(rows) > 3
    assert all(str(row[key]) in table for row in rows)


def test_all_formats_and_schemes_are_listed(dse: Dse) -> None:
    content = json.loads(dse("formats", "--json").out)
    assert [row["format"] for row in content["formats"]] == list(FORMATS)
    assert [row["scheme"] for row in content["schemes"]] == list(SCHEMES)
    assert all(row["source"] for row in content["schemes"])


@pytest.mark.parametrize("name", ["nvfp4", "int8:static", *FORMATS, *SCHEMES])
def test_a_format_is_described(dse: Dse, name: str) -> None:
    outcome = dse("formats", name)
    assert outcome.code == 0
    assert "bits per element" in outcome.out


def test_nvfp4_is_four_and_a_half_bits(dse: Dse) -> None:
    content = json.loads(dse("formats", "nvfp4", "--json").out)
    assert content["bits_per_element"] == 4.5
    assert content["largest"] == 6.0


@pytest.mark.parametrize("name", device_names())
def test_every_figure_of_a_device_has_kind_and_source(dse: Dse, name: str) -> None:
    rows = json.loads(dse("devices", name, "--json").out)
    assert len(rows) > 10
    assert all(row["kind"] and row["source"] for row in rows)


@pytest.mark.parametrize("name", runtime_names())
def test_every_mode_of_a_runtime_has_a_source(dse: Dse, name: str) -> None:
    outcome = dse("runtimes", name, "--json")
    assert outcome.code == 0
    assert all(row["source"] for row in json.loads(outcome.out))


def test_a_zoo_model_shows_its_card(dse: Dse) -> None:
    assert "byte-gpt" in dse("zoo", "byte-gpt").out.splitlines()[0]


def test_predict_has_what_programs_need(dse: Dse) -> None:
    outcome = dse("predict", *BYTE_GPT, "--device", "h100-sxm", "--format", "bf16",
                  "--format", "w8a8_fp8_dynamic", "--runtime", "vllm", "--json")  # fmt: skip
    rows = json.loads(outcome.out)
    needed = {"latency_s", "low_s", "high_s", "energy_j", "weight_bytes", "peak_bytes", "bound"}
    assert [row["format"] for row in rows] == ["bf16", "w8a8_fp8_dynamic"]
    assert all(needed <= row.keys() for row in rows)
    assert all(row["low_s"] <= row["latency_s"] <= row["high_s"] for row in rows)
    assert rows[0]["weight_bytes"] > rows[1]["weight_bytes"]
    assert [rows[0][key] for key in ("speedup_low", "speedup", "speedup_high")] == [1.0, 1.0, 1.0]
    faster = rows[0]["latency_s"] / rows[1]["latency_s"]
    assert rows[1]["speedup"] == pytest.approx(faster)
    apart = rows[0]["high_s"] / rows[1]["low_s"] / faster
    assert 1 < rows[1]["speedup_high"] / faster < apart
    assert rows[1]["speedup_low"] * rows[1]["speedup_high"] == pytest.approx(faster**2)


def test_predict_says_how_much_faster_each_format_is_and_how_surely(dse: Dse) -> None:
    several = ("--device", "h100-sxm:vllm", "--format", "bf16", "--format", "w8a8_fp8_dynamic")
    rows = json.loads(dse("predict", *BYTE_GPT, *several, "--json").out)
    table = dse("predict", *BYTE_GPT, *several).out
    ends = f"({rows[1]['speedup_low']:.2f} to {rows[1]['speedup_high']:.2f})"
    assert "speed-up" in table
    assert f"{rows[1]['speedup']:.2f}× {ends}" in table
    assert "speed-up" not in dse("predict", *BYTE_GPT, *several[:4]).out


def test_a_device_names_its_runtime_wherever_one_is_named(dse: Dse, tmp_path: Path) -> None:
    one = ("predict", *BYTE_GPT, "--json", "--device")
    apart = json.loads(dse(*one, "l4", "--runtime", "vllm").out)
    assert json.loads(dse(*one, "l4:vllm").out) == apart
    assert json.loads(dse(*one, "hwmodels/devices/l4.yaml:vllm").out) == apart
    by_kind = json.loads(dse(*one, "l4", "--device", "tpu-v4", "--target", "ethos-u55").out)
    assert [row["runtime"] for row in by_kind] == ["torch-eager", "free", "vela"]
    legal = ("legal", "zoo:byte-gpt", "--json", "--device")
    assert dse(*legal, "l4:vllm").out == dse(*legal, "l4", "--runtime", "vllm").out
    space = tmp_path / "space.yaml"
    dse("init", "zoo:fashion-resnet", "-o", space, "--device", "ethos-u55", "--device", "l4:vllm")
    assert "{device: ethos-u55, runtime: vela}" in space.read_text()
    assert "{device: l4, runtime: vllm}" in space.read_text()
    assert dse("check", space).code == 0


def test_predict_prices_each_region(dse: Dse) -> None:
    table = dse("predict", *BYTE_GPT, "--device", "h100-sxm", "--regions").out
    assert "blocks.5/gate_up" in table


def test_predict_takes_the_assignment_that_a_run_recommends(dse: Dse, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"sites": {}}))
    given = dse("predict", *BYTE_GPT, "--device", "h100-sxm", "--assignment", path, "--json")
    plain = dse("predict", *BYTE_GPT, "--device", "h100-sxm", "--json")
    assert json.loads(given.out)[0]["latency_s"] == json.loads(plain.out)[0]["latency_s"]


def test_legal_says_who_has_what_is_missing(dse: Dse) -> None:
    rows = json.loads(
        dse("legal", "zoo:byte-gpt", "--device", "h100-sxm", "--runtime", "vllm", "--json").out
    )
    status = {row["format"]: row for row in rows}
    assert status["w8a8_fp8_dynamic"]["status"] == "native"
    assert status["w4a4_nvfp4"]["status"] != "native"
    assert "b200-sxm" in status["w4a4_nvfp4"]["why"]


def test_init_check_and_annotate_follow_each_other(dse: Dse, tmp_path: Path) -> None:
    space, model, out = (tmp_path / name for name in ("a.yaml", "a.onnx", "b.onnx"))
    shutil.copy("dse/zoo/fashion-resnet/model.onnx", model)
    written = dse("init", model, "-o", space, "--data", "zoo:fashion-resnet", "--target",
                  "h100-sxm:free")  # fmt: skip
    assert written.code == 0
    assert "model: a.onnx" in space.read_text()
    checked = json.loads(dse("check", space, "--json").out)
    assert checked["variables"].startswith("16 ")
    assert {row["choice"] for row in checked["choices"]} >= {"bf16", "w8a8_fp8"}
    annotated = dse("annotate", model, "--space", space, "-o", out)
    assert annotated.code == 0
    from dse.graph.annotations import read_annotations  # noqa: PLC0415

    found = read_annotations(out)
    assert found is not None
    assert len(found.candidates) == checked["sites"]
    assert all(formats[0] == quantizer("bf16") for formats in found.candidates.values())
    again = json.loads(dse("check", out, "--target", "h100-sxm:free", "--json").out)
    assert (again["variables"], again["assignments"]) == (
        checked["variables"], checked["assignments"],
    )  # fmt: skip


def test_check_prints_for_people(dse: Dse) -> None:
    text = dse("check", "spaces/smoke.yaml").out
    assert "assignments" in text
    assert "w4a4_nvfp4" in text


def test_evaluate_measures_a_format(dse: Dse) -> None:
    outcome = dse("evaluate", "zoo:fashion-resnet", "--format", "w8a8_int8", "--samples", 16,
                  "--json")  # fmt: skip
    row = json.loads(outcome.out)[0]
    assert 0 < row["loss"] < 0.1
    assert row["stderr"] > 0
    assert row["samples"] == 16
    assert row["reference_accuracy"] > 0.8


def test_bf16_loses_almost_nothing(dse: Dse) -> None:
    outcome = dse("evaluate", "zoo:fashion-resnet", "--format", "bf16", "--samples", 16, "--json")
    assert json.loads(outcome.out)[0]["loss"] < 1e-3


def test_sensitivity_ranks_the_worst_first(dse: Dse, space: Path) -> None:
    outcome = dse("sensitivity", space, "--samples", 2, "--json")
    losses = [row["loss"] for row in json.loads(outcome.out)]
    assert len(losses) == 48
    assert losses == sorted(losses, reverse=True)


def test_a_saved_sensitivity_names_modules_for_other_tools(dse: Dse, tmp_path: Path) -> None:
    out = tmp_path / "s.csv"
    asked = ("sensitivity", "zoo:fashion-resnet", "--samples", 1, "-o", out)
    assert dse(*asked).code == 0
    table = pd.read_csv(out)
    nodes = {node.name for node in open_model("zoo:fashion-resnet").graph.nodes}
    named = {name for modules in table.modules for name in modules.split()}
    assert named
    assert named <= nodes
    assert len(Sensitivity.read(out).scores) == len(table)


def test_report_writes_and_prints(dse: Dse, finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "fp4")
    outcome = dse("report", folder)
    assert (folder / "report.html").is_file()
    assert f"report: {folder / 'report.html'}" in outcome.out
    assert dse("--quiet", "report", folder).out == f"{folder / 'report.html'}\n"
    assert dse("report", folder, "--quiet").out == f"{folder / 'report.html'}\n"
    assert json.loads(dse("report", folder, "--json").out)[0]["trial"] >= 0


def test_compare_writes_one_page(dse: Dse, finished: Path, tmp_path: Path) -> None:
    other = shutil.copytree(finished, tmp_path / "other")
    out = tmp_path / "both.html"
    assert dse("compare", finished, other, "-o", out).out == f"{out}\n"
    assert out.is_file()


def test_a_method_that_no_search_would_know_is_refused_by_check(dse: Dse, space: Path) -> None:
    space.write_text(space.read_text().replace("search: {", "search: {method: nsga4, "))
    outcome = dse("check", space)
    assert outcome.code == 2
    assert "search.method: unknown method 'nsga4'; did you mean 'nsga" in outcome.err


FLAT = "nothing can be chosen by it"


@pytest.mark.parametrize(("flags", "said"), [((), True), (("--quiet",), False)])
def test_quiet_silences_warnings_too(
    dse: Dse, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], said: bool, tmp_path: Path
) -> None:
    logger = logging.getLogger("dse")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", False)
    dse(*flags, "check", tmp_path / "none.yaml")
    (handler,) = logger.handlers
    assert isinstance(handler, logging.StreamHandler)
    stream = io.StringIO()
    handler.setStream(stream)
    table = Sensitivity(scores=tuple(
        Score(variable="v", choice=choice, loss=0.5, stderr=0.0, samples=4) for choice in "ab"
    ))  # fmt: skip
    warn_of_flat(table)
    assert (FLAT in stream.getvalue()) is said


def test_a_runtime_that_runs_nothing_on_a_device_is_said(dse: Dse, space: Path) -> None:
    text = space.read_text()
    target = re.search(r"targets:.*?(?=^\S)", text[1:], re.DOTALL | re.MULTILINE)
    assert target is not None
    other = "targets:\n  - {device: h100-sxm, runtime: vela}\n"
    space.write_text(text.replace(target.group(), other))
    assert "vela runs no candidate natively there" in dse("check", space).out


@pytest.mark.parametrize("bound", ["int8_share<=0.8", "bits_per_weight<=6"])
def test_budgets_in_units_of_bytes_are_checked_where_hardware_varies(
    dse: Dse, tmp_path: Path, bound: str
) -> None:
    text = Path("spaces/codesign.yaml").read_text()
    before = '"area_mm2<=1"'
    assert before in text
    path = tmp_path / "codesign.yaml"
    path.write_text(text.replace(before, f'{before}, "{bound}"'))
    outcome = dse("check", path)
    assert outcome.code == 0, outcome.err
    path.write_text(text.replace(before, '"int9_share<=0.8"'))
    assert "unknown column 'int9_share'" in dse("check", path).err


def test_variables_of_lines_need_lines(dse: Dse) -> None:
    found = dse("sensitivity", "zoo:byte-gpt", "--top", "3")
    assert found.code == 2
    assert "add --lines" in " ".join(found.err.split())
