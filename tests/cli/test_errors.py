"""Whatever is wrong with the input: one message on stderr, exit code 2, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Dse

BAD_SPACE = """\
# What?
model: zoo:byte-gpt
data: {source: zoo:byte-gpt}
targets: [{device: b200-sxm, runtme: vllm}]
candidates:
  - use: [w4a4_nvpf4]
"""


def assert_refused(outcome: object, *parts: str) -> None:
    code, out, err = outcome.code, outcome.out, outcome.err  # type: ignore[attr-defined]
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    assert err.startswith("dse: ")
    for part in parts:
        assert part in err


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("serach x.yaml", ["No such command 'serach'", "did you mean 'search'?"]),
        ("search", ["give a space or a model", "--from RUN", "dse search --help"]),
        ("search x.yaml --trails 3", ["No such option", "--trails", "--trials"]),
        ("search x.yaml --trials 0", ["--trials"]),
        ("search x.yaml --compute tpu", ["--compute", "cpu"]),
        (
            "predict zoo:fashion-resnet --device h100-sxm --dim batch=1 --kv int8",
            ["--kv int8", "no attention"],
        ),
        ("evaluate zoo:byte-gpt --format nvfp4 --memory 12Gx", ["--memory", "GiB", "'12Gx'"]),
        ("evaluate zoo:byte-gpt --format nvfp4 --memory 1KB", ["byte-gpt", "within --memory"]),
        ("search nothing.yaml", ["nothing.yaml: no such space file"]),
        ("search nothing.onnx --data zoo:byte-gpt", ["nothing.onnx: no such file"]),
        ("search zoo:byte-gpt", ["--data"]),
        ("search README.md", ["expected a space (.yaml), a model (.onnx)", "zoo:NAME"]),
        ("search spaces/smoke.yaml --out /proc/run", ["/proc/run"]),
        ("search spaces/fp4.yaml --constraint weight_bytes<1", ["constraints.1"]),
        ("search spaces/smoke.yaml --objective quality_loss --objective latncy_s", ["did you"]),
        ("search zoo:byte-gtp --data zoo:byte-gpt", ["did you mean 'byte-gpt'?"]),
        ("search spaces/smoke.yaml --resume", ["--out"]),
        ("search --out nowhere --resume", ["nowhere: no run is there", "without --resume"]),
        ("predict zoo:byte-gpt --device h100-sxm --price -1", ["--price", "above 0", "-1"]),
        ("predict zoo:byte-gpt --device h100-sxm --price nan", ["--price", "above 0", "nan"]),
        (
            "search spaces/smoke.yaml --objective quality_loss",
            ["two columns or more", "quality_loss"],
        ),
        ("profile --device-name x -o x.csv --minutes inf", ["--minutes", "above 0", "inf"]),
        ("check nothing.yaml", ["nothing.yaml: no such space file"]),
        ("report nothing", ["nothing: no such folder"]),
        ("compare spaces", ["at least two"]),
        ("formats w4a4_nvpf4", ["w4a4_nvpf4", "did you mean"]),
        ("devices b20-sxm", ["did you mean 'b200-sxm'?"]),
        ("runtimes vlm", ["did you mean 'vllm'?"]),
        ("zoo byte-gtp", ["did you mean 'byte-gpt'?"]),
        ("predict byte-gpt --device h100-sxm", ["did you mean 'zoo:byte-gpt'?"]),
        ("predict zoo:byte-gpt", ["--device"]),
        ("predict zoo:byte-gpt --device h100-sxm", ["--dim batch=N --dim sequence=N"]),
        ("predict zoo:byte-gpt --device h100-sxm --dim batch", ["--dim batch: expected NAME=N"]),
        ("predict zoo:byte-gpt --device l4 --dim batch=1 --dim batch=2", ["batch is 1 already"]),
        ("predict zoo:byte-gpt --device h100-sxm --dim bacth=1", ["did you mean 'batch'?"]),
        ("predict zoo:byte-gpt --device h100-sxm:vlm", ["--dim"]),
        ("legal zoo:byte-gpt --device h100-sxm:vlm", ["runtime 'vlm'; did you mean 'vllm'?"]),
        ("legal zoo:byte-gpt --device h10-sxm:vllm", ["device 'h10-sxm'; did you mean"]),
        ("legal zoo:byte-gpt --device h100-sxm:", ["expected DEVICE or DEVICE:RUNTIME"]),
        ("legal zoo:byte-gpt --device no/where.yaml:vllm", ["no/where.yaml: no such device"]),
        ("search spaces/smoke.yaml --target h100-sxm: --out x", ["expected DEVICE or"]),
        ("init zoo:byte-gpt -o x.yaml --target h10-sxm", ["device 'h10-sxm'; did you mean"]),
        ("evaluate zoo:byte-gpt", ["either --format or --assignment"]),
        ("evaluate zoo:byte-gpt --format w4a4_nvpf4", ["w4a4_nvpf4"]),
        ("evaluate zoo:llama-3-8b --format w4a16", ["no weights"]),
        ("evaluate zoo:byte-gpt --assignment nothing.json", ["nothing.json"]),
    ],
)
def test_one_clear_message(dse: Dse, line: str, parts: list[str]) -> None:
    assert_refused(dse(*line.split()), *parts)


def test_every_wrong_field_of_a_space_is_named_at_once(dse: Dse, tmp_path: Path) -> None:
    space = tmp_path / "bad.yaml"
    space.write_text(BAD_SPACE + "seach: {trials: 3}\n")
    assert_refused(
        dse("check", space), "targets.0.runtme: unknown key; did you mean 'runtime'?", "seach"
    )


def test_an_unknown_scheme_in_a_space_names_the_nearest(dse: Dse, tmp_path: Path) -> None:
    space = tmp_path / "bad.yaml"
    space.write_text(BAD_SPACE.replace("runtme", "runtime"))
    assert_refused(dse("check", space), "did you mean 'w4a4_nvfp4'?")


def test_a_corrupt_yaml_is_named_by_line(dse: Dse, tmp_path: Path) -> None:
    space = tmp_path / "torn.yaml"
    space.write_text("model: [zoo:byte-gpt\ndata: {")
    assert_refused(dse("search", space), "torn.yaml: line")


def test_an_unreadable_model_leaves_no_run_folder(dse: Dse, tmp_path: Path) -> None:
    model = tmp_path / "torn.onnx"
    model.write_bytes(b"this is no protobuf")
    out = tmp_path / "run"
    outcome = dse("search", model, "--data", "zoo:byte-gpt", "--out", out)
    assert_refused(outcome, "torn.onnx")
    assert not out.exists()


def test_init_does_not_overwrite(dse: Dse, tmp_path: Path) -> None:
    space = tmp_path / "mine.yaml"
    space.write_text("mine")
    assert_refused(dse("init", "zoo:fashion-resnet", "-o", space), "exists already")
    assert space.read_text() == "mine"


def test_debug_shows_where_it_happened(tmp_path: Path, dse: Dse) -> None:
    from dse.cli.app import run  # noqa: PLC0415
    from dse.errors import RunError  # noqa: PLC0415

    with pytest.raises(RunError):
        run(["--debug", "report", str(tmp_path / "nothing")])
