"""The fit of energies finds constants again, and shares a call's time among its kernels."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from hwmodels.devices.load import load_device
from hwmodels.estimators.gpu.energy import EnergyConstants
from hwmodels.fit.energy import Calls, EnergyFit, calls_of, fit_energy

H100 = load_device("h100-sxm")
TRUTH = EnergyFit(
    constants=EnergyConstants(
        active_share=0.3, cache_energy_j=2e-11, core_bytes=3e4, core_rows=3.0
    ),
    dram_j=7e-11,
    op_j={"e4m3": 0.4e-12, "int8": 0.8e-12, "bf16": 0.8e-12, "tf32": 2.6e-12, "fp32": 17e-12},
)


def _calls(entries: list[tuple[str, str, Mapping[str, int]]]) -> Calls:
    table = pd.DataFrame({
        "op": [op for op, _, _ in entries], "dtype": [dtype for _, dtype, _ in entries],
        "shape": [json.dumps(dict(shape)) for *_, shape in entries],
        "runtime": "torch-eager", "calls": np.nan, "seconds": 1e-4,
    })  # fmt: skip
    return calls_of(table, H100)


def test_constants_are_found_again() -> None:
    random = np.random.default_rng(0)
    entries: list[tuple[str, str, Mapping[str, int]]] = []
    for _ in range(60):
        m, n, k = (int(2 ** random.uniform(6, 12)) for _ in range(3))
        entries.append(("gemm", str(random.choice(["bf16", "fp8"])), {"M": m, "N": n, "K": k}))
        entries.append(("add", "bf16", {"rows": m, "cols": n}))
    calls = _calls(entries)
    slow = 2 * calls.predicted_s  # far from the limit
    truth = TRUTH.joules(calls, H100, slow)
    seconds = np.bincount(calls.row, slow, len(calls.table))
    measured = Calls(
        table=calls.table.assign(seconds=seconds, joules=truth), kernels=calls.kernels,
        terms=calls.terms, row=calls.row, predicted_s=calls.predicted_s,
    )  # fmt: skip
    found = fit_energy(measured)
    errors = found.joules(measured, H100, measured.measured_s) / truth - 1
    assert np.abs(errors).mean() < 0.02
    assert found.constants.active_share == pytest.approx(0.3, rel=0.15)
    assert found.op_j["bf16"] == pytest.approx(0.8e-12, rel=0.15)
    assert found.dram_j == pytest.approx(7e-11, rel=0.2)


def test_a_call_s_time_is_shared_as_predicted() -> None:
    calls = _calls([("gemm", "fp8_dynamic", {"M": 512, "N": 512, "K": 4096}),
                    ("add", "bf16", {"rows": 64, "cols": 64})])  # fmt: skip
    assert len(calls.kernels) > 2
    first = calls.row == 0
    assert calls.measured_s[first].sum() == pytest.approx(1e-4)
    assert calls.measured_s[first] / calls.predicted_s[first] == pytest.approx(
        np.full(first.sum(), 1e-4 / calls.predicted_s[first].sum())
    )
    assert calls.take(np.array([1])).kernels == calls.kernels[-1:]


def test_a_loop_whose_operands_fit_the_cache_finds_them_there() -> None:
    entry = {"op": "add", "dtype": "bf16", "shape": json.dumps({"rows": 64, "cols": 1024}),
             "runtime": "torch-eager", "seconds": 1e-6}  # fmt: skip
    few, many = (calls_of(pd.DataFrame([{**entry, "calls": calls}]), H100) for calls in (10, 500))
    assert few.terms.dram_bytes[0] == 0
    assert many.terms.dram_bytes[0] == 3 * 64 * 1024 * 2
