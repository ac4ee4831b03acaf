"""`--check`: predictions beside what a user measured, and the device file that is made of it."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import onnx.parser
import pandas as pd
import pytest

from hwmodels.devices.load import load_device
from tests.cli.conftest import Dse
from tests.cli.test_errors import assert_refused
from tests.cli.test_measure import MEASURED


def _table(path: Path, *, every: int = 14, times: pd.Series | None = None) -> pd.DataFrame:
    """Every so many rows of the measured table, with other times if there are any."""
    frame = pd.read_csv(MEASURED).iloc[::every].reset_index(drop=True)
    if times is not None:
        frame["median_us"] = times
    frame.to_csv(path, index=False)
    return frame


def _predicted(dse: Dse, ops: Path, device: str) -> pd.DataFrame:
    out = ops.with_name("pred.csv")
    assert dse("predict-ops", ops, "--device", device, "-o", out).code == 0
    return pd.read_csv(out)


def test_errors_of_operators_are_those_of_the_predictions(dse: Dse, tmp_path: Path) -> None:
    ops = tmp_path / "ops.csv"
    _table(ops)
    found = _predicted(dse, ops, "b200-sxm")
    error = (found["predicted_us"] / found["median_us"] - 1).abs()
    missed = (found["predicted_us"] - found["median_us"]).abs()
    outcome = dse("predict-ops", ops, "--device", "b200-sxm", "--check", "--json")
    answer = json.loads(outcome.out)
    assert answer["errors"]["rows"] == len(found)
    assert answer["errors"]["mape"] == pytest.approx(error.mean(), rel=1e-6)
    assert answer["errors"]["median"] == pytest.approx(error.median(), rel=1e-6)
    by_operator = {one["operator"]: one for one in answer["by_operator"]}
    for name, rows in found.groupby("op"):
        assert by_operator[name]["rows"] == len(rows)
        assert by_operator[name]["mape"] == pytest.approx(error[rows.index].mean(), rel=1e-6)
        share = missed[rows.index].sum() / missed.sum()
        assert by_operator[name]["share_of_error"] == pytest.approx(share, rel=1e-6)
    assert {one["regime"] for one in answer["by_regime"]} >= {"launch", "memory", "compute"}


def test_the_group_that_a_unit_is_wrong_in_is_the_biggest_source(dse: Dse, tmp_path: Path) -> None:
    """Times as predicted, but fp8 GEMMs that are bound by memory take twice as long."""
    ops = tmp_path / "ops.csv"
    _table(ops, every=3)
    found = _predicted(dse, ops, "h100-sxm")
    answer = json.loads(dse("predict-ops", ops, "--device", "h100-sxm", "--check", "--json").out)
    assert answer["errors"]["rows"] == len(found)
    slow = (found["op"] == "gemm") & (found["dtype"] == "fp8")
    times = found["predicted_us"].where(~slow, 2 * found["predicted_us"])
    _table(ops, every=3, times=times)
    outcome = dse("predict-ops", ops, "--device", "h100-sxm", "--check")
    assert "The biggest source of error is gemm in fp8" in outcome.out
    assert "predictions are 50 % too short there" in outcome.out
    answer = json.loads(dse("predict-ops", ops, "--device", "h100-sxm", "--check", "--json").out)
    fp8 = next(one for one in answer["by_format"] if one["format"] == "fp8")
    assert fp8["share_of_error"] == pytest.approx(1, abs=1e-4)
    assert fp8["bias"] == pytest.approx(-0.5 * slow.sum() / fp8["rows"], abs=1e-4)


def test_a_checked_device_becomes_an_adapted_one(dse: Dse, tmp_path: Path) -> None:
    """A B200 that turns out to be an H100, whose rows were measured under another name."""
    ops, new = tmp_path / "ops.csv", tmp_path / "new.yaml"
    frame = _table(ops)
    frame.rename(columns={"median_us": "measured_us"}).to_csv(ops, index=False)
    line = ("predict-ops", ops, "--device", "b200-sxm", "--check", "-o", new, "--json")
    answer = json.loads(dse(*line).out)
    assert answer["samples"] == len(frame) == len(load_device(new).measurements)
    assert answer["median_error_left_out"] < 0.6 * answer["errors"]["median"]
    again = dse("predict-ops", ops, "--device", new, "--check")
    assert f"{len(frame)} of the rows are in the device's file" in again.out
    known = json.loads(dse("predict-ops", ops, "--device", new, "--check", "--json").out)
    assert known["rows_known"] == len(frame)
    assert known["errors"]["mape"] < answer["median_error_left_out"]


def test_a_check_may_write_the_predictions_too(dse: Dse, tmp_path: Path) -> None:
    ops, out = tmp_path / "ops.csv", tmp_path / "pred.csv"
    frame = _table(ops, every=100)
    outcome = dse("predict-ops", ops, "--device", "h100-sxm", "--check", "-o", out)
    assert outcome.code == 0
    assert list(pd.read_csv(out)["median_us"]) == list(frame["median_us"])


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("--device l4", ["-o PRED.csv is needed, or --check"]),
        ("--device l4 -o new.yaml", ["-o PRED.csv is needed, or --check"]),
        ("--device h100-sxm --check -o new.txt", ["new.txt", "NEW.yaml", "PRED.csv"]),
        ("--device t4 --check", ["physical limit of t4", "check the unit of the column"]),
        ("--device h100 --check", ["unknown device 'h100'", "h100-sxm"]),
    ],
)
def test_wrong_checks_of_operators_are_refused(
    dse: Dse, tmp_path: Path, line: str, parts: list[str]
) -> None:
    ops = tmp_path / "ops.csv"
    _table(ops, every=100)
    assert_refused(dse("predict-ops", ops, *line.split()), *parts)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"median_us": "time"}, ["columns missing: median_us"]),
        ({"median_us": "median_ms"}, ["columns missing: median_us", "did you mean 'median_ms'"]),
        ({"min_us": "measured_us"}, ["has the columns median_us and measured_us", "keep one"]),
    ],
)
def test_wrong_columns_of_operators_are_named(
    dse: Dse, tmp_path: Path, change: dict[str, str], parts: list[str]
) -> None:
    ops = tmp_path / "ops.csv"
    _table(ops, every=100).rename(columns=change).to_csv(ops, index=False)
    assert_refused(dse("predict-ops", ops, "--device", "h100-sxm", "--check"), "ops.csv", *parts)


BYTE_GPT = ("zoo:byte-gpt", "--device", "h100-sxm")


def _times(dse: Dse, path: Path, factor: float = 1.0) -> list[dict[str, object]]:
    """A table of calls that take `factor` times what is predicted, and its rows."""
    rows: list[dict[str, object]] = []
    for batch in (1, 8, 64):
        for name in ("bf16", "w8a8_fp8"):
            outcome = dse("predict", *BYTE_GPT, "--dim", f"batch={batch}", "--dim", "sequence=64",
                          "--format", name, "--json")  # fmt: skip
            seconds = json.loads(outcome.out)[0]["latency_s"]
            rows.append({"latency_ms": 1e3 * factor * seconds, "format": name, "batch": batch})
    pd.DataFrame(rows).to_csv(path, index=False)
    return rows


def _checked(dse: Dse, path: Path, *more: object) -> dict[str, object]:
    outcome = dse("predict", *BYTE_GPT, "--dim", "sequence=64", "--check", path, "--json", *more)
    assert outcome.code == 0, outcome.err
    answer: dict[str, object] = json.loads(outcome.out)
    return answer


def test_networks_that_take_what_is_predicted_have_no_error(dse: Dse, tmp_path: Path) -> None:
    _times(dse, tmp_path / "t.csv")
    answer = _checked(dse, tmp_path / "t.csv")
    errors = answer["errors"]
    assert isinstance(errors, dict)
    assert errors["rows"] == 6
    assert errors["mape"] == pytest.approx(0, abs=1e-9)
    assert errors["in_interval"] == 1
    assert "ask for no correction" in str(answer["biggest_kernels"])


def test_an_adapted_device_meets_the_networks(dse: Dse, tmp_path: Path) -> None:
    """Everything takes a quarter longer: errors are 1/1.25 - 1, and the others tell each row."""
    table, new = tmp_path / "t.csv", tmp_path / "new.yaml"
    _times(dse, table, 1.25)
    answer = _checked(dse, table, "-o", new)
    assert answer["mean_error_before"] == pytest.approx(0.2)
    left = answer["mean_error_left_out"]
    assert isinstance(left, float)
    assert left < 0.08
    assert load_device(new).corrections
    outcome = dse("predict", "zoo:byte-gpt", "--device", new, "--dim", "sequence=64", "--check",
                  table, "--json")  # fmt: skip
    assert json.loads(outcome.out)["errors"]["mape"] < 0.05


def test_operators_drop_what_networks_corrected_and_say_so(dse: Dse, tmp_path: Path) -> None:
    table, ops, networks, both = (
        tmp_path / name for name in ("t.csv", "o.csv", "n.yaml", "b.yaml")
    )
    _times(dse, table, 1.25)
    _checked(dse, table, "-o", networks)
    count = len(load_device(networks).corrections)
    _table(ops, every=100)
    outcome = dse("predict-ops", ops, "--device", networks, "--check", "-o", both)
    assert f"corrections dropped       {count}" in outcome.out
    assert load_device(both).corrections == ()
    assert (
        "corrections dropped"
        not in dse("predict-ops", ops, "--device", "h100-sxm", "--check", "-o", both).out
    )


def test_people_read_errors_kernels_and_what_was_left_out(dse: Dse, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    _times(dse, table, 1.25)
    frame = pd.read_csv(table).assign(note="mine")
    frame.loc[0, "latency_ms"] = None
    frame.to_csv(table, index=False)
    outcome = dse("predict", *BYTE_GPT, "--dim", "sequence=64", "--check", table)
    for part in (
        "The biggest source of error is zoo:byte-gpt in", "20 % too short", "kernels",
        "As far as whole networks tell kernels apart", "rows without a time, left out: 1",
        "columns that were not read: note",
    ):  # fmt: skip
        assert part in outcome.out


def test_rows_say_model_runtime_and_assignment(dse: Dse, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"sites": {}}))
    (tmp_path / "t.csv").write_text(
        "model,measured_us,batch,sequence,runtime,assignment\n"
        "zoo:byte-gpt,600,8,128,torch-eager,\n"
        "zoo:byte-gpt,300,8,128,torch-compile,a.json\n"
        "zoo:fashion-resnet,100,16,,,\n"
    )
    outcome = dse("predict", *BYTE_GPT, "--check", tmp_path / "t.csv", "--json")
    answer = json.loads(outcome.out)
    assert {one["model"] for one in answer["by_model"]} == {"zoo:byte-gpt", "zoo:fashion-resnet"}
    assert {one["runtime"] for one in answer["by_runtime"]} == {"torch-eager", "torch-compile"}
    assert {one["format"] for one in answer["by_format"]} == {"bf16", "a"}


def test_a_table_of_operators_is_taken_for_what_it_is(dse: Dse, tmp_path: Path) -> None:
    ops = tmp_path / "ops.csv"
    _table(ops, every=100)
    answer = json.loads(dse("predict", *BYTE_GPT, "--check", ops, "--json").out)
    assert answer == json.loads(
        dse("predict-ops", ops, "--device", "h100-sxm", "--check", "--json").out
    )
    outcome = dse("predict", *BYTE_GPT, "--check", ops)
    assert "a table of operators: zoo:byte-gpt is not looked at" in outcome.out


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("latency,batch\n1,8\n", ["with the measured time and its unit", "call it latency_ms"]),
        ("batch\n8\n", ["with the measured time and its unit", "(it has batch)"]),
        ("latency_ms,time_us,batch\n1,2,8\n", ["latency_ms and time_us", "keep one"]),
        ("latency_ms,batch\n", ["no rows"]),
        ("latency_ms,batch\n,8\n", ["latency_ms: every row is empty"]),
        ("latency_ms,batch\n-1,8\n", ["line 2: latency_ms: expected a positive number of ms"]),
        ("latency_ms,batch\n1,8\nfast,8\n", ["line 3: latency_ms", "got 'fast'"]),
        ("latency_ms,batch\n1,x\n", ["line 2: batch: expected a positive whole number, got 'x'"]),
        ("latency_ms,bach\n1,8\n", ["unknown column 'bach'", "did you mean 'batch'"]),
        ("latency_ms,fromat,batch\n1,bf16,8\n", ["unknown column 'fromat'", "'format'"]),
        ("latency_ms\n1\n", ["line 2: batch: the size is missing", "--dim batch=N"]),
        ("latency_ms,batch,format\n1,8,fp9\n", ["line 2:", "fp9"]),
        ("latency_ms,batch,runtime\n1,8,vlm\n", ["line 2:", "did you mean 'vllm'"]),
        ("latency_ms,batch,model\n1,8,no.onnx\n", ["line 2: model:", "no.onnx: no such file"]),
        ("latency_ms,batch,assignment\n1,8,no.json\n", ["line 2:", "no.json: cannot be read"]),
        ("latency_ms,batch,format,assignment\n1,8,bf16,a.json\n", ["a format and an assignment"]),
        ("latency_ms,batch,device\n.5,8,l4\n.5,8,t4\n", ["has times of l4, t4"]),
        ("latency_us,batch\n.0005,8\n", ["expected microseconds: check the unit"]),
        ("latency_s,batch\n500,8\n", ["expected seconds: check the unit"]),
        ("", ["not a CSV table"]),
    ],
)
def test_a_wrong_table_of_networks_gets_one_clear_message(
    dse: Dse, tmp_path: Path, content: str, parts: list[str]
) -> None:
    table, new = tmp_path / "t.csv", tmp_path / "new.yaml"
    table.write_text(content)
    outcome = dse("predict", *BYTE_GPT, "--dim", "sequence=64", "--check", table, "-o", new)
    assert_refused(outcome, "t.csv", *parts)
    assert not new.exists()


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("-o new.yaml", ["--check TABLE.csv", "--sweep", "add one of them"]),
        ("--check none.csv", ["none.csv: no such file"]),
        ("--check t.csv --device l4", ["takes one --device"]),
        ("--check t.csv --format bf16 --format int8", ["takes one --format"]),
        ("--check t.csv --prompt 64", ["leave out --prompt"]),
        ("--check t.csv -o new.csv", ["expected a device file"]),
    ],
)
def test_options_that_do_not_fit_a_check_are_refused(
    dse: Dse, line: str, parts: list[str]
) -> None:
    assert_refused(dse("predict", *BYTE_GPT, *line.split()), *parts)


@pytest.fixture
def block(tmp_path: Path) -> Path:
    """A block that can follow itself."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[batch, 256] x) => (float[batch, 256] y)'
        "{ [product] p = MatMul (x, weight) [sum] y = Add (p, x) }"
    )
    weight = onnx.helper.make_tensor("weight", onnx.TensorProto.FLOAT, (256, 256), [0.5] * 65536)
    model.graph.initializer.append(weight)
    onnx.save(model, tmp_path / "block.onnx")
    return tmp_path / "block.onnx"


def test_a_repeated_block_is_priced_so_often_and_may_be_checked(dse: Dse, block: Path) -> None:
    line = ("predict", block, "--device", "l4", "--dim", "batch=8", "--json")
    (once,), (thrice,) = (json.loads(dse(*line, "--repeat", n).out) for n in (1, 3))
    assert thrice["weight_bytes"] == 3 * once["weight_bytes"] == 3 * 2 * 256 * 256
    assert thrice["latency_s"] == pytest.approx(3 * once["latency_s"])
    assert [one["region"] for one in thrice["regions"]] == [
        one["region"] for one in once["regions"]
    ]
    assert "3 copies in a chain: y into x" in dse(*line[:-1], "--repeat", 3).out
    table = block.with_name("t.csv")
    table.write_text(f"latency_s,batch,repeat\n{3 * once['latency_s']},8,3\n")
    answer = json.loads(dse("predict", block, "--device", "l4", "--check", table, "--json").out)
    assert answer["errors"]["mape"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("count", [0, -1, "x", 5000])
def test_a_number_of_copies_is_a_number(dse: Dse, block: Path, count: object) -> None:
    assert_refused(dse("predict", block, "--device", "l4", "--repeat", count), "--repeat")


def test_corrections_that_do_not_carry_over_are_said(dse: Dse, tmp_path: Path) -> None:
    """A decoder that takes longer than predicted, and a convolutional network that does not."""
    rows = []
    for model, dims, factor in (
        ("zoo:byte-gpt", {"batch": 4, "sequence": 32}, 1.4),
        ("zoo:fashion-resnet", {"batch": 4}, 0.7),
    ):
        sizes = [text for name, size in dims.items() for text in ("--dim", f"{name}={size}")]
        found = json.loads(dse("predict", model, "--device", "h100-sxm", *sizes, "--json").out)
        rows.append({"model": model, "latency_s": factor * found[0]["latency_s"], **dims})
    table = tmp_path / "t.csv"
    frame = pd.DataFrame(rows)
    frame["sequence"] = frame["sequence"].astype("Int64")
    frame.to_csv(table, index=False)
    outcome = dse("predict", *BYTE_GPT, "--check", table, "-o", tmp_path / "new.yaml")
    assert outcome.code == 0, outcome.err
    assert "mean error models left out" in outcome.out
    assert "do not carry over from one model of the table to another" in outcome.out
