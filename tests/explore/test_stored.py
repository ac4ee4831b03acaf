"""Searches for integer targets: sums between products are integers, too, and measured so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pandas as pd
import pytest

from dse.explore import run_search
from dse.model import open_model
from dse.predict import Usage, load_assignment, predict
from dse.report.answer import answer, caveats
from dse.run.read import read_run

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[batch, 64] x) => (float[batch, 64] logits) {
  a = MatMul(x, w1)
  b = Relu(a)
  c = MatMul(b, w2)
  s = Add(b, c)
  logits = MatMul(s, w3)
}
"""
SPACE = """
model: m.onnx
data: {{source: d.npz, calibration: 4, search: 16, report: 16}}
quality: {{kind: logits}}
scenario: {{phases: {{call: {{dims: {{batch: 1}}}}}}}}
targets: [{targets}]
candidates: [{{match: {{}}, use: [w8a8_int8_static, "int8:static", bf16]}}]
objectives: [quality_loss, weight_bytes]
search: {{trials: 4, seed: 0}}
"""
NPU = "{name: npu, device: ethos-u55}"
GPU = "{name: gpu, device: h100-sxm, runtime: free}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each target alone, and both."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(MODEL)
    for name in ("w1", "w2", "w3"):
        weight = rng.normal(size=(64, 64)).astype(np.float32) / 8
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.save(model, folder / "m.onnx")
    np.savez(folder / "d.npz", x=rng.normal(size=(40, 64)).astype(np.float32))
    for name, targets in (("npu", NPU), ("gpu", GPU), ("both", f"{NPU}, {GPU}")):
        (folder / f"{name}.yaml").write_text(SPACE.format(targets=targets))
        run_search(folder / f"{name}.yaml", out=folder / name)
    return folder


def losses(folder: Path, column: str) -> dict[str, float]:
    trials = pd.read_csv(folder / "trials.csv")
    found = trials[trials.source == "uniform"].set_index("name")[column]
    return {str(name): float(value) for name, value in found.items()}


def sites(folder: Path) -> dict[int, dict[str, str]]:
    """Formats by site of every point of the front."""
    front = json.loads((folder / "front.json").read_text())
    return {entry["trial"]: entry["assignment"]["sites"] for entry in front}


def test_sums_have_the_format_of_the_product_that_they_are_fused_into(runs: Path) -> None:
    choices = pd.read_csv(runs / "npu" / "choices.csv").set_index("trial")
    formats = {"w8a8_int8_static": "uint8:static", "int8:static": "int8:static"}
    found = sites(runs / "npu")
    regions = open_model(str(runs / "m.onnx")).analysis.regions
    (fused,) = [region.name for region in regions if "s" in region.nodes]
    assert found
    for trial, given in found.items():
        for key in ("s/in0", "s/in1"):
            assert given.get(key) == formats.get(str(choices.loc[trial, fused]))
    assert not any("s/in0" in given for given in sites(runs / "gpu").values())


def test_a_sum_of_integers_loses_more_than_one_in_16_bits(runs: Path) -> None:
    npu, gpu = (losses(runs / name, "report_quality_loss") for name in ("npu", "gpu"))
    assert npu["w8a8_int8_static"] > gpu["w8a8_int8_static"]
    assert npu["bf16"] == gpu["bf16"]


def test_targets_of_one_space_lose_what_they_lose_alone(runs: Path) -> None:
    npu, gpu = (losses(runs / name, "report_quality_loss") for name in ("npu", "gpu"))
    both = losses(runs / "both", "report_quality_loss")
    assert both == npu
    assert losses(runs / "both", "gpu.report_quality_loss") == gpu
    run = read_run(runs / "both")
    words = "gpu keeps sums and means between products in 16 bits"
    assert any(words in caveat for caveat in caveats(run))
    assert words in answer(run)


def test_formats_of_sums_are_in_the_price_of_an_integer_target_alone(runs: Path) -> None:
    graph = open_model(str(runs / "m.onnx")).graph
    trial = next(trial for trial, found in sites(runs / "npu").items() if "s/in0" in found)
    front = json.loads((runs / "npu" / "front.json").read_text())
    content = next(entry["assignment"] for entry in front if entry["trial"] == trial)
    (runs / "a.json").write_text(json.dumps(content))
    assignment = load_assignment(runs / "a.json", graph)
    usage = Usage(dims={"batch": 1})
    npu, gpu = predict(
        graph, ["ethos-u55", "h100-sxm:free"], [], usage=usage, assignment=assignment
    )
    assert not [remark for remark in npu.remarks if "not priced" in remark]
    (remark,) = [remark for remark in gpu.remarks if "not priced" in remark]
    assert "s/in0" in remark
    assert "logits/out0" not in remark
