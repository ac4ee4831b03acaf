"""`dse train`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dse.cli.app import run

QUICK = ("--steps", "8", "--seeds", "2")


def test_a_method_stands_beside_bf16(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    assert run(["train", "mxfp8", *QUICK, "--out", out]) == 0
    shown = capsys.readouterr()
    assert "gap to bf16" in shown.out
    assert "mxfp8" in shown.out
    assert "training steps" in shown.err
    assert run(["train", "fp32", *QUICK, "--out", out, "--resume", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["method"] for one in found["methods"]] == ["bf16", "fp32"]
    assert found["methods"][1]["gap"]["low"] <= found["methods"][1]["gap"]["mean"]
    assert len(found["methods"][1]["pairs"]) == 2
    assert found["methods"][1]["bytes_per_parameter"] == 16


def test_a_piece_stops_and_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    assert run(["train", "mxfp8", *QUICK, "--out", out, "--minutes", "1e-9"]) == 1
    assert f"--resume --out {out}" in capsys.readouterr().out
    assert run(["train", "mxfp8", *QUICK, "--out", out, "--resume"]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give a method"),
        (["nvfp5"], "did you mean 'nvfp4'"),
        (["bf16", "--workload", "digits"], "did you mean 'digits-mlp'"),
        (["bf16", "--resume"], "--out DIR"),
        (["bf16", "--minutes", "nan"], "finite number"),
        (["missing.yaml"], "no such method file"),
        (["bf16", "--learning-rates", "1,-3"], "expected positive numbers"),
        (["mxfp8", "--export", "torch"], "add -o FILE.py"),
        (["quartet_ii", "--export", "te", "-o", "x.py"], "Transformer Engine cannot express"),
    ],
)
def test_a_wrong_line_is_refused_in_words(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_divergence_is_told_over_learning_rates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["train", "bf16", *QUICK, "--learning-rates", "1,1e6", "--out", str(tmp_path / "run")]
    assert run(line) == 0
    assert "diverged at 1e+06 x" in " ".join(capsys.readouterr().out.split())
    assert run([*line, "--resume", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["methods"]
    assert found["learning_rates"]["1e+06"]["runs"] == 2
    assert found["learning_rates"]["1e+06"]["diverged"] == 2
    assert found["divergence_over_rates"]["low"] > 0
    assert found["intervals"]["sharpness"]["low"] <= found["sharpness"]


def test_a_folder_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "bf16", *QUICK, "--out", str(tmp_path)]) == 2
    assert "add --resume" in capsys.readouterr().err


def test_a_file_of_ones_own_has_its_errors_told_by_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("source: me\nroles: {wieght: nvfp4}\n")
    assert run(["train", str(path)]) == 2
    assert f"{path}: roles.wieght: no such role; did you mean 'weight'" in capsys.readouterr().err


def test_a_method_is_written_for_another_library(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.py"
    assert run(["train", "nvfp4", "--export", "te", "-o", str(path)]) == 0
    assert "not run: it needs a GPU" in capsys.readouterr().out
    assert "CustomRecipe(qfactory=factory)" in path.read_text()


def test_methods_and_workloads_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"quartet_ii", "byte-gpt"} <= {one["name"] for one in found}


def test_gates_that_choose_nowhere_are_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = [{"weight": "int4"}, {"weight": "int8"}]
    content = {
        "source": "a test",
        "roles": {"weight": "int8", "activation": "int8"},
        "schedule": {"kind": "gate", "stages": stages},
        "rules": [{"match": {"name": "*"}, "roles": {"*": "bf16"}}],
    }
    (tmp_path / "m.yaml").write_text(json.dumps(content))
    line = ["train", str(tmp_path / "m.yaml"), "--steps", "2", "--out", str(tmp_path / "run")]
    assert run(line) == 2
    assert "its stages differ at no site of this network" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_step_that_no_device_holds_is_priced_with_a_word(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = ["predict", "zoo:llama-3-8b", "--training", "mxfp8", "--device", "l4",
            "--dim", "batch=1", "--dim", "sequence=512", "--dim", "past=0"]  # fmt: skip
    assert run(line) == 0
    words = (
        r"mxfp8 on l4: weights, their copies, gradients, moments and activations take 1\d\d GB, "
        "dram holds"
    )
    assert re.search(words, capsys.readouterr().out)
    assert run([*line, "--json"]) == 0
    (_, found) = json.loads(capsys.readouterr().out)
    assert re.match(words, *found["lacks"])


def test_a_step_of_a_method_is_priced_beside_bf16(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["predict", "zoo:byte-gpt", "--training", "mxfp8", "--device", "b200-sxm",
            "--dim", "batch=8", "--dim", "sequence=512"]  # fmt: skip
    assert run(line) == 0
    shown = capsys.readouterr().out
    assert "speed-up" in shown
    assert "not compared with a measured step" in shown
    assert run([*line, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["method"] for one in found] == ["bf16", "mxfp8"]
    assert found[0]["latency_s"] == pytest.approx(
        sum(part["latency_s"] for part in found[0]["parts"].values())
    )
    assert found[0]["memory_bytes"]["weights"] == 4 * 3_673_344


def test_a_step_has_no_other_formats(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["predict", "zoo:byte-gpt", "--training", "mxfp8", "--device", "b200-sxm"]
    assert run([*line, "--format", "w8a8_fp8"]) == 2
    assert "names formats by method" in capsys.readouterr().err


def test_methods_that_do_not_fit_are_told_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = []
    for name, text in (
        ("cache", "roles: {k_cache: e4m3_tensor}"),
        ("images", "rules: [{match: {kind: convolution}, roles: {weight: nvfp4}}]"),
    ):
        paths.append(str(tmp_path / f"{name}.yaml"))
        Path(paths[-1]).write_text(f"source: mine\n{text}\n")
    out = tmp_path / "run"
    assert run(["train", *paths, *QUICK, "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert "cache on digits-mlp: roles.k_cache: the model has no scaled_dot_product" in told
    assert "images on digits-mlp: rules.0.match: no site of the model fits" in told
    assert "training steps" not in told
    assert not out.exists()


def test_a_method_file_is_checked_without_a_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("source: mine\nroles: {optimizer_v: udynamic8_g256, weight: nvfp4}\n")
    assert run(["check", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["roles"] == "optimizer_v, weight"
    assert found["bytes_per_parameter"] == pytest.approx(13 + 4 / 256, abs=1e-4)
    path.write_text("source: mine\nroles: {wieght: nvfp4}\n")
    assert run(["check", str(path)]) == 2
    assert "roles.wieght: no such role; did you mean 'weight'?" in capsys.readouterr().err


def test_a_check_says_the_numbers_of_functions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    said = {
        "{format: fp16, rewrites: [softplus]}": "fp16; otherwise written: softplus",
        "{format: bf16}": "bf16",
    }
    for functions, expected in said.items():
        path.write_text(f"source: mine\nfunctions: {functions}\n")
        assert run(["check", str(path), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["functions"] == expected


def test_a_price_says_what_of_a_method_it_leaves_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = ("mxfp8", "fp8_federated", "fractrain_pfq", "tetrajet_v2_reset")
    line = ["predict", "zoo:byte-gpt", *(part for one in names for part in ("--training", one)),
            "--device", "b200-sxm", "--dim", "batch=1", "--dim", "sequence=128"]  # fmt: skip
    assert run([*line, "--json"]) == 0
    found = {one["method"]: one["left_out"] for one in json.loads(capsys.readouterr().out)}
    assert found["mxfp8"] == found["bf16"] == []
    assert "2 bytes a parameter" in found["fp8_federated"][0]
    assert "stages are not priced" in found["fractrain_pfq"][0]
    assert "second rounding" in found["tetrajet_v2_reset"][0]
    assert run(line) == 0
    assert "fractrain_pfq: schedule: stages are not priced" in capsys.readouterr().out
