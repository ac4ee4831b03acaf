"""Tables of operators on the command line: predicted, fitted, profiled."""

from __future__ import annotations

import csv
import gzip
import json
from itertools import count
from pathlib import Path

import pytest

from hwmodels.devices.load import load_device
from tests.cli.conftest import Dse
from tests.cli.test_errors import assert_refused

MEASURED = Path(__file__).parents[1] / "data" / "h100_ops.csv.gz"
GEMM = '{"M": 64, "K": 4096, "N": 4096}'
GOOD = f'op,shape,dtype,median_us\ngemm,"{GEMM.replace(chr(34), chr(34) * 2)}",bf16,12.5\n'


def _rows(path: Path) -> list[dict[str, str]]:
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return list(csv.DictReader(text.splitlines()))


def _few(path: Path, count: int = 20) -> Path:
    """Every so many rows of the measured table."""
    header, *lines = gzip.decompress(MEASURED.read_bytes()).decode().splitlines()
    path.write_text("\n".join([header, *lines[:: len(lines) // count]]) + "\n")
    return path


def test_predict_ops_adds_columns_and_keeps_rows(dse: Dse, tmp_path: Path) -> None:
    ops, out = _few(tmp_path / "ops.csv"), tmp_path / "pred.csv"
    outcome = dse("predict-ops", ops, "--device", "h100-sxm", "-o", out)
    assert outcome.code == 0
    assert "median error" in outcome.out
    before, after = _rows(ops), _rows(out)
    assert [row["shape"] for row in before] == [row["shape"] for row in after]
    added = list(after[0])[len(before[0]) :]
    assert added == ["predicted_us", "low_us", "high_us", "energy_mj"]
    for row in after:
        assert float(row["low_us"]) <= float(row["predicted_us"]) <= float(row["high_us"])


def test_predict_ops_reads_and_writes_gzip(dse: Dse, tmp_path: Path) -> None:
    out = tmp_path / "pred.csv.gz"
    outcome = dse("predict-ops", MEASURED, "--device", "h100-sxm", "-o", out, "--json")
    answer = json.loads(outcome.out)
    assert answer["rows"] == len(_rows(out)) == len(_rows(MEASURED))
    assert 0 < answer["median_error"] < 0.3
    assert answer["median_high_over_low"] > 1


def test_predict_ops_needs_no_times_and_counts_their_absence(dse: Dse, tmp_path: Path) -> None:
    ops, out = tmp_path / "ops.csv", tmp_path / "pred.csv"
    ops.write_text(GOOD + GOOD.splitlines()[1].replace("12.5", "") + "\n")
    answer = json.loads(dse("predict-ops", ops, "--device", "l4", "-o", out, "--json").out)
    assert (answer["rows"], answer["distinct"], answer["rows_without_time"]) == (2, 1, 1)
    ops.write_text(GOOD.replace(",median_us", "").replace(",12.5", ""))
    assert dse("predict-ops", ops, "--device", "l4", "-o", out).code == 0


def test_a_device_that_was_not_validated_says_so(dse: Dse, tmp_path: Path) -> None:
    ops = _few(tmp_path / "ops.csv", 5)
    outcome = dse("predict-ops", ops, "--device", "rtx-3090", "-o", tmp_path / "pred.csv")
    assert "rtx-3090: not validated" in outcome.out


def test_fit_writes_a_device_that_predicts_better(dse: Dse, tmp_path: Path) -> None:
    ops, new = _few(tmp_path / "ops.csv", 120), tmp_path / "new.yaml"
    fitted = dse("fit", "--device", "b200-sxm", "--measurements", ops, "--samples", 30,
                 "-o", new, "--json")  # fmt: skip
    answer = json.loads(fitted.out)
    assert answer["samples"] == 30
    assert answer["not_used_median_error_after"] < answer["not_used_median_error_before"]
    errors = [
        json.loads(
            dse("predict-ops", ops, "--device", device, "-o", tmp_path / "p.csv", "--json").out
        )["median_error"]
        for device in ("b200-sxm", new)
    ]
    assert errors[1] < errors[0]


def test_fit_tells_people_what_it_gained(dse: Dse, tmp_path: Path) -> None:
    ops = _few(tmp_path / "ops.csv")
    outcome = dse("fit", "--device", "h100-pcie", "--measurements", ops, "-o", tmp_path / "n.yaml")
    assert "median error before" in outcome.out
    assert "median error left out" in outcome.out


def test_fit_suggests_what_profile_can_measure(dse: Dse, tmp_path: Path) -> None:
    """From the rows without a time where there are some, else from the standard ones."""
    new, ops = tmp_path / "new.yaml", _few(tmp_path / "ops.csv")
    fitted = dse("fit", "--device", "cpu-avx2", "--measurements", _on_processor(tmp_path),
                 "--suggest", 4, "-o", new)  # fmt: skip
    suggested = tmp_path / "new.next.csv"
    assert f"dse profile --ops {suggested}" in fitted.out
    assert [set(row) for row in _rows(suggested)] == [{"op", "shape", "dtype", "runtime"}] * 4
    with ops.open("a") as stream:
        stream.write(GOOD.splitlines()[1].replace("12.5", "") + "\n")
    dse("fit", "--device", "h100-sxm", "--measurements", ops, "--suggest", 4, "-o", new)
    (only,) = _rows(suggested)
    assert only["shape"] == GEMM


def test_a_profile_of_this_processor_fits_a_device_file(
    dse: Dse, tmp_path: Path, one_thread: None
) -> None:
    """Measured, continued, fitted, predicted: all on the machine that the tests run on."""
    wanted, table = _on_processor(tmp_path), tmp_path / "mine.csv"
    line = ("profile", "--device-name", "mine", "-o", table, "--compute", "cpu", "--ops", wanted,
            "--minutes", 1)  # fmt: skip
    first = dse(*line)
    assert first.code == 0, first.err
    count = len(_rows(wanted))
    assert len(_rows(table)) == count
    again = json.loads(dse(*line, "--json").out)
    assert (again["measured"], again["known_before"]) == (0, count)
    new = tmp_path / "mine.yaml"
    fitted = dse("fit", "--device", "cpu-avx2", "--measurements", table, "-o", new)
    assert fitted.code == 0, fitted.err
    assert len(load_device(new).measurements) == count
    out = tmp_path / "pred.csv"
    assert dse("predict-ops", table, "--device", new, "-o", out).code == 0


def test_a_standard_profile_begins_with_every_operator(
    dse: Dse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that every look moves by a tick, so that the machine's load does not count."""
    monkeypatch.setattr("dse.profile.run.monotonic", count(0, 0.06).__next__)
    table = tmp_path / "ops.csv"
    dse("profile", "--device-name", "mine", "-o", table, "--compute", "cpu", "--minutes", 0.03)
    assert {"gemm", "bmm"} <= {row["op"] for row in _rows(table)}


def _on_processor(folder: Path) -> Path:
    """Operators that take a processor a moment, with times that one could have."""
    path = folder / "wanted.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("op", "shape", "dtype", "median_us"))
        for rows in (1, 8, 64):
            gemm = {"M": rows, "K": 256, "N": 512}
            writer.writerow(("gemm", json.dumps(gemm), "fp32", 10 + 5 * rows))
            row_wise = {"rows": 16 * rows, "cols": 512}
            writer.writerow(("softmax", json.dumps(row_wise), "fp32", 5 + 6 * rows))
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a CSV table"),
        ("op,shape,dtype,median_us\n", "no rows"),
        (GOOD.replace("median_us", "median_ms"), "columns missing: median_us"),
        (GOOD.replace("12.5", "nan"), "line 2: median_us: expected a positive number"),
        (GOOD.replace("12.5", "0"), "line 2: median_us: expected a positive number"),
        (GOOD.replace("12.5", ""), "every row is empty"),
        (GOOD + GOOD.splitlines()[1] + "\n", "line 3: the same operator as in an earlier line"),
        (GOOD + GOOD.splitlines()[1].replace("64, ", "64,") + "\n", "line 3: the same operator"),
        (GOOD.replace("gemm", "gem"), "did you mean 'gemm'"),
        (GOOD.replace("bf16", "fp4"), "unknown number type 'fp4'"),
        (GOOD.replace("4096}", "4096"), "shape: not a JSON object"),
        (GOOD.replace("12.5", "0.0125"), "check the unit of the column"),
        (GOOD.replace("12.5", "12500"), "check the unit of the column"),
    ],
)
def test_a_wrong_table_gets_one_clear_message(
    dse: Dse, tmp_path: Path, content: str, message: str
) -> None:
    ops = tmp_path / "ops.csv"
    ops.write_text(content)
    new = tmp_path / "new.yaml"
    outcome = dse("fit", "--device", "h100-sxm", "--measurements", ops, "-o", new)
    assert_refused(outcome, "ops.csv", message)
    assert not new.exists()


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("predict-ops {ops} --device h100 -o {out}", ["unknown device 'h100'", "h100-sxm"]),
        ("predict-ops {ops} --device l4 --runtime vlm -o {out}", ["did you mean 'vllm'"]),
        (
            "predict-ops {ops} --device l4 -o {out}/no/where.csv",
            ["cannot be written"],
        ),
        ("predict-ops nothing.csv --device l4 -o {out}", ["nothing.csv: no such file"]),
        ("fit --device ethos-u55 --measurements {ops} -o {out}", ["adapts GPUs and processors"]),
        ("fit --device l4 --measurements {ops} --samples 0 -o {out}", ["--samples"]),
        ("profile --device-name x -o {out}.txt --compute cpu", ["a name that ends in .csv"]),
        ("profile --device-name x -o {ops} --compute cpu", ["not a table of dse profile"]),
        ("profile --device-name x -o {out}.csv --compute tpu", ["--compute", "cpu"]),
    ],
)
def test_wrong_lines_are_refused(dse: Dse, tmp_path: Path, line: str, parts: list[str]) -> None:
    ops = tmp_path / "ops.csv"
    ops.write_text(GOOD)
    outcome = dse(*line.format(ops=ops, out=tmp_path / "out").split())
    assert_refused(outcome, *parts)


def test_a_runtime_of_the_table_that_nobody_knows_names_its_line(dse: Dse, tmp_path: Path) -> None:
    ops = tmp_path / "ops.csv"
    lines = GOOD.splitlines()
    ops.write_text(f"{lines[0]},runtime\n{lines[1]},\n{lines[1]},vlm\n")
    outcome = dse("predict-ops", ops, "--device", "l4", "-o", tmp_path / "out.csv")
    assert_refused(outcome, "ops.csv: line 3: runtime", "did you mean 'vllm'")
