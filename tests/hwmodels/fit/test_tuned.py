"""The fit of tuned products reads one device's rows, and finds constants again."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hwmodels.errors import MeasurementError
from hwmodels.estimators.gpu.residual import load_artefact
from hwmodels.fit import tuned
from hwmodels.fit.tuned import (
    SOFTWARE_EFFICIENCY,
    TunedRows,
    fit_constants,
    intervals,
    read_aiter,
    sampled,
)

HEAD = "gfx,cu_num,M,N,K,q_dtype_w,dtype,libtype,us,kind,src"


def _write(path: Path, *lines: str) -> Path:
    with gzip.open(path, "wt") as file:
        file.write("\n".join([HEAD, *lines]) + "\n")
    return path


def test_other_devices_rows_are_not_read(tmp_path: Path) -> None:
    table = read_aiter(_write(
        tmp_path / "t.csv.gz",
        "gfx942,304,16,512,7168,,,ck,11.1,a8w8_blockscale,configs/one.csv",
        "gfx942,80,16,512,7168,,,ck,not read,unknown,configs/one.csv",
        "gfx950,256,16,512,7168,,,ck,not read,a4w4,configs/one.csv",
        "gfx942,304,64,5120,1280,torch.int8,,asm,7.7,a8w8,two.csv",
    ))  # fmt: skip
    assert table.to_dict("records") == [
        {"dtype": "fp8_block", "m": 16, "n": 512, "k": 7168, "latency_s": pytest.approx(11.1e-6),
         "file": "one.csv"},
        {"dtype": "w8a8_int8_dynamic", "m": 64, "n": 5120, "k": 1280,
         "latency_s": pytest.approx(7.7e-6), "file": "two.csv"},
    ]  # fmt: skip


def test_an_unknown_kind_of_product_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "t.csv.gz", "gfx942,304,16,512,7168,,,ck,11.1,a2w2,one.csv")
    with pytest.raises(MeasurementError, match=r"kinds \[\('a2w2', ''\)\]; expected .*a8w8"):
        read_aiter(path)
    with pytest.raises(MeasurementError, match="no rows with"):
        read_aiter(_write(path, "gfx942,80,16,512,7168,,,ck,11.1,a8w8,one.csv"))


def test_the_efficiency_of_block_scales_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuned, "SIMPLEXES", 1)
    monkeypatch.setattr(tuned, "EVALUATIONS", 180)
    random = np.random.default_rng(0)
    count = 40
    table = pd.DataFrame({
        "dtype": np.where(np.arange(count) % 4 > 0, "fp8_block", "w8a8_int8_dynamic"),
        "m": 2 ** random.integers(4, 16, count), "n": 2 ** random.integers(9, 14, count),
        "k": 2 ** random.integers(9, 13, count), "latency_s": 1.0, "file": "one.csv",
    })  # fmt: skip
    rows = TunedRows.of(sampled(table, 0))
    known = replace(load_artefact().constants, compute_efficiency=SOFTWARE_EFFICIENCY)
    truth, _ = rows.account(known, 0.4)
    measured = replace(rows, table=rows.table.assign(latency_s=truth.latency_s))
    found, block = fit_constants(measured)
    errors = measured.measured - np.log(measured.account(found, block)[0].latency_s)
    assert np.abs(errors).mean() < 0.03
    assert block == pytest.approx(0.4, rel=0.1)


def test_the_interval_of_another_type_lies_half_way() -> None:
    errors = np.linspace(-0.1, 0.1, 201)
    ends = intervals(errors, np.ones(201))
    assert ends["seen"] == pytest.approx((-0.09, 0.09), abs=2e-3)
    for place in (0, 1):
        middle = (ends["seen"][place] + ends["other device"][place]) / 2
        assert ends["other type"][place] == pytest.approx(middle)
