"""`dse devices --from-zigzag` and `--to-zigzag`, and predictions on what they write."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwmodels.devices.load import load_device
from hwmodels.estimators.array.process import area_by_part
from tests.cli.conftest import Dse
from tests.cli.test_errors import assert_refused
from tests.hwmodels.devices.test_zigzag import MAPPING, SMALL, written


@pytest.fixture(name="two_layers")
def two_layers_fixture(tmp_path: Path) -> Path:
    """Two products with a Relu between them."""
    weights = [
        numpy_helper.from_array(np.ones(shape, np.float32), name)
        for name, shape in (("a", (64, 96)), ("b", (96, 32)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "b"], ["y"], name="second"),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [16, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [16, 32])],
        initializer=weights,
    )
    path = tmp_path / "two.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


def test_an_accelerator_prices_a_network_level_by_level(
    dse: Dse, tmp_path: Path, two_layers: Path
) -> None:
    accelerator = written(tmp_path, SMALL)
    mapping = written(tmp_path, MAPPING, "mapping.yaml")
    chip = tmp_path / "chip.yaml"
    outcome = dse(
        "devices", "--from-zigzag", str(accelerator), "--mapping", str(mapping), "-o", str(chip)
    )
    assert outcome.code == 0, outcome.err
    assert "200 MHz, int8" in outcome.out
    asked = ("predict", two_layers, "--device", chip, "--format", "w8a8_int8")
    found = dse(*asked, "--json")
    assert found.code == 0, found.err
    (record,) = json.loads(found.out)
    spatial = record["spatial"]
    assert spatial["cycles"] == pytest.approx(
        sum(one["spatial"]["cycles"] for one in record["regions"] if "spatial" in one)
    )
    levels = {(one["level"], one["tensor"]): one for one in spatial["levels"]}
    assert levels["dram", "weight"]["read_bytes"] >= record["weight_bytes"] * 0.9
    assert {level for level, _ in levels} == {"reg", "sram", "dram"}
    assert 0 < spatial["utilisation"] <= 1
    assert record["area_mm2"] is None  # ZigZag's file has no process
    process = "process: {value: 28, unit: nm, kind: assumed, source: assumed}\n"
    chip.write_text(chip.read_text() + process)
    (made,) = json.loads(dse(*asked, "--json").out)
    parts = area_by_part(load_device(chip))
    assert set(parts) == {"mac_array", "reg", "sram"}
    assert made["area_mm2"] == pytest.approx(sum(parts.values()))
    shown = dse(*asked)
    assert "sram, input" in shown.out
    assert "computing" in shown.out


def test_a_shipped_array_is_printed_as_an_accelerator(dse: Dse) -> None:
    outcome = dse("devices", "gemmini", "--to-zigzag")
    assert outcome.code == 0
    assert "operational_array:" in outcome.out


def test_wrong_lines_are_refused(dse: Dse, tmp_path: Path) -> None:
    accelerator = written(tmp_path, SMALL)
    assert_refused(dse("devices", "--from-zigzag", str(accelerator)), "add -o FILE.yaml")
    assert_refused(dse("devices", "--to-zigzag"), "of which device?")
    assert_refused(dse("devices", "--mapping", str(accelerator)), "is of --from-zigzag")
    broken = written(tmp_path, SMALL.replace("r_cost: 800", "r_cost: 8e9"), "broken.yaml")
    out = tmp_path / "chip.yaml"
    outcome = dse("devices", "--from-zigzag", str(broken), "-o", str(out))
    assert_refused(outcome, "broken.yaml", "outside the physical limits")
    assert not out.exists()
