from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hwmodels.errors import MeasurementError
from hwmodels.fit.experts import (
    Layers,
    expert_layer,
    fit_trees,
    measured_kernels,
    read_experts,
    sampled,
)
from hwmodels.fit.left_out import Errors

SIZES = {
    "tokens": 64, "hidden": 1024, "inner": 512, "topk": 4, "experts": 32, "tensor_parts": 2,
    "expert_parts": 4, "skew": 0, "gated": 1,
}  # fmt: skip


def _table(rows: int, seed: int) -> pd.DataFrame:
    """Layers on two devices."""
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            **SIZES,
            "device": random.choice(["h100-sxm", "l40s"], rows), "runtime": "vllm",
            "dtype": "bfloat16", "tokens": 2 ** random.integers(0, 12, rows),
            "tensor_parts": 1, "expert_parts": 2 ** random.integers(0, 4, rows),
            "latency_s": 1.0,
        }
    )  # fmt: skip


def test_a_layer_is_its_part_of_experts_and_widths() -> None:
    """64 tokens x 4 choices over 4 devices: 64 rows on 8 experts; half of 512 inner columns."""
    up, down = expert_layer(SIZES)
    gate, _, activation = up.ops
    assert gate.sizes == {
        "E": 8, "M": 64, "topk": 1, "parts": 4, "skew": 0, "K": 1024, "N": 256,
    }  # fmt: skip
    assert activation.detail == "silu_mul"
    assert (down.ops[0].sizes["K"], down.ops[0].sizes["N"]) == (256, 1024)
    assert [operand.shape for operand in up.reads if not operand.is_weight] == [(64, 1024)]


def test_a_layer_without_gate_has_one_product_up() -> None:
    up, _ = expert_layer({**SIZES, "gated": 0})
    assert [op.name for op in up.ops] == ["up", "act"]


def test_trees_learn_what_a_layer_takes_beyond_the_skeleton() -> None:
    """A layer takes twice the skeleton on one device and three times on the other."""
    layers = Layers.of(_table(500, 0))
    slower = np.where(layers.table["device"] == "l40s", 3.0, 2.0)
    seconds = layers.summed(layers.seconds) * slower + layers.others
    layers.table["latency_s"] = seconds
    kernels = tuple(measured_kernels(layers))
    assert kernels == ("triton",)
    trees = fit_trees(layers, kernels)
    assert np.abs(layers.log_errors(trees, kernels, 1.0)).max() < 0.1
    assert np.allclose(np.exp(layers.target), slower[layers.layer])


def test_chosen_layers_keep_their_products() -> None:
    layers = Layers.of(_table(40, 1))
    rows = np.arange(len(layers.table)) % 3 == 0
    part = layers.chosen(rows)
    assert np.allclose(part.summed(part.seconds), layers.summed(layers.seconds)[rows])
    assert np.array_equal(np.bincount(part.layer), np.full(rows.sum(), 2))


def test_ends_hold_nine_in_ten_errors() -> None:
    steps = np.linspace(-1, 1, 2001)
    errors = Errors(table=pd.DataFrame(), log=0.2 * steps + 0.1, weights=np.ones(2001))
    assert errors.ends == pytest.approx((-0.08, 0.28), abs=1e-3)


def test_tables_are_read_by_device_and_runtime(tmp_path: Path) -> None:
    where = tmp_path / "h100_sxm" / "moe" / "vllm" / "0.24.0"
    where.mkdir(parents=True)
    row = {
        "moe_dtype": "fp8", "num_tokens": 8, "hidden_size": 64, "inter_size": 32, "topk": 2,
        "num_experts": 8, "moe_tp_size": 1, "moe_ep_size": 2, "distribution": "power_law_1.2",
        "latency": 0.5,
    }  # fmt: skip
    rows = [row, {**row, "latency": 0.0}, {**row, "moe_dtype": "unknown"}, {**row, "topk": 22}]
    pd.DataFrame(rows).to_parquet(where / "moe_perf.parquet")
    table = sampled(read_experts(tmp_path), 0)
    assert set(zip(table["topk"], table["gated"], strict=True)) == {(2, True), (22, False)}
    assert set(table["latency_s"]) == {0.5e-3}
    assert set(table["skew"]) == {120}
    assert set(table["device"]) == {"h100-sxm"}


def test_a_folder_without_tables_is_named(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="no <system>/moe/"):
        read_experts(tmp_path)
