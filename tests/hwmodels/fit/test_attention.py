from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hwmodels.errors import MeasurementError
from hwmodels.estimators.gpu.paged_attention import PagedConstants
from hwmodels.fit.attention import (
    Rows,
    fit_phase,
    intervals,
    measured_kernels,
    read_attention,
)
from hwmodels.fit.left_out import Errors

TRUTH = PagedConstants(efficiency=0.6, ramp_cycles=15000.0, dram_efficiency=0.7)


def _table(rows: int, seed: int) -> pd.DataFrame:
    """Calls on two devices that take what `TRUTH` says, a quarter more on one of them."""
    random = np.random.default_rng(seed)
    groups = 2 ** random.integers(0, 4, rows)
    heads = 2 ** random.integers(0, 4, rows)
    table = pd.DataFrame({
        "device": random.choice(["h100-sxm", "a100-sxm-80gb"], rows), "runtime": "vllm",
        "table": "generation", "dtype": "bf16", "B": 2 ** random.integers(0, 9, rows),
        "H": heads * groups, "HK": heads, "S": 1, "L": 2 ** random.integers(5, 16, rows),
        "D": 128, "window": 0, "causal": False, "latency_s": 1.0,
    })  # fmt: skip
    found = Rows.of(table, "decode")
    seconds, _, _ = found.account(TRUTH, ())
    slower = np.where(found.table["device"] == "a100-sxm-80gb", 1.25, 1.0)
    return found.table.assign(latency_s=seconds * slower)


def test_trees_learn_what_a_kernel_takes_beyond_the_skeleton() -> None:
    kernels = tuple(measured_kernels(_table(20, 2)))
    assert kernels == ("flash-attention-2", "flash-attention-3")
    model = fit_phase(_table(600, 0), "decode", kernels, constants=TRUTH)
    new = Rows.of(_table(200, 1), "decode")
    assert np.abs(model.log_errors(new, 1.0)).max() < 0.03
    without = model.log_errors(new, 0.0)[new.table["device"] == "a100-sxm-80gb"]
    assert np.allclose(without, np.log(1.25))


def test_constants_are_found_again() -> None:
    table = _table(300, 0)
    table = table[table["device"] == "h100-sxm"].reset_index(drop=True)
    model = fit_phase(table, "decode", ("flash-attention-3",))
    assert np.abs(model.log_errors(Rows.of(table, "decode"), 0.0)).mean() < 0.05
    assert 12000 < model.constants.ramp_cycles < 19000


def test_a_sibling_lies_half_way() -> None:
    def errors(logs: np.ndarray) -> Errors:
        return Errors(table=pd.DataFrame(), log=logs, weights=np.ones(len(logs)))

    steps = np.linspace(-1, 1, 2001)
    found = intervals(errors(0.2 * steps), errors(0.6 * steps + 0.1))
    assert found["seen"] == pytest.approx((-0.18, 0.18), abs=1e-3)
    assert found["unseen"] == pytest.approx((-0.44, 0.64), abs=1e-3)
    assert found["sibling"] == pytest.approx((-0.31, 0.41), abs=1e-3)


def test_tables_are_read_by_what_they_time(tmp_path: Path) -> None:
    common = {"batch_size": 2, "num_heads": 8, "head_dim": 64, "latency": 0.5,
              "kernel_source": "vllm_flash_attn_fa3"}  # fmt: skip
    _write(tmp_path, "attention", "context", [{**common, "isl": 512, "step": 0,
           "num_key_value_heads": 4, "kv_cache_dtype": "fp8", "window_size": 128}])  # fmt: skip
    decode = {**common, "isl": 1, "step": 1023, "num_key_value_heads": 4,
              "kv_cache_dtype": "bfloat16", "window_size": 0}  # fmt: skip
    _write(tmp_path, "attention", "generation", [decode, {**decode, "step": 7, "latency": 0.0},
           {**decode, "step": 63, "kernel_source": "vllm_triton_attn"}])  # fmt: skip
    _write(tmp_path, "encoder_attention", "encoder", [{**common, "isl": 100}])
    table = read_attention(tmp_path).set_index("table")
    assert len(table) == 3
    context, generation, encoder = (
        table.loc[name] for name in ("context", "generation", "encoder")
    )
    assert (context["S"], context["L"], context["window"]) == (512, 512, 128)
    assert (context["dtype"], context["causal"]) == ("bf16_kv_fp8", True)
    assert (generation["S"], generation["L"], generation["HK"]) == (1, 1024, 4)
    assert (encoder["S"], encoder["L"], encoder["HK"], encoder["causal"]) == (100, 100, 8, False)
    assert set(table["latency_s"]) == {0.5e-3}


def _write(folder: Path, family: str, name: str, rows: list[dict[str, object]]) -> None:
    where = folder / "h100_sxm" / family / "vllm" / "0.24.0"
    where.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(where / f"{name}_attention_perf.parquet")


def test_a_folder_without_tables_is_named(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="no <system>/attention/"):
        read_attention(tmp_path)
