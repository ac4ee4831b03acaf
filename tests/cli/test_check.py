"""`--check`: predictions beside what a user measured, and the device file that is made of it."""

from __future__ import annotations

import json
from pathlib import Path

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
