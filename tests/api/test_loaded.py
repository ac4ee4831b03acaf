"""`dse.load`: what a loaded model answers is what the commands print."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

import dse
from dse.errors import AssignmentError, DataError, GraphError
from dse.evaluate.model import evaluate_model
from dse.graph.assignment_json import to_json
from dse.predict import Usage, predict
from dse.space.schema import Data
from dse.space.uniform import uniform_assignment
from hwmodels.devices.load import load_device
from hwmodels.errors import UnknownFormatError
from hwmodels.formats import catalog

NET = "zoo:fashion-resnet"
SAMPLES = 8


@pytest.fixture(scope="module")
def model() -> dse.LoadedModel:
    return dse.load(NET)


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.random((40, 1, 28, 28), dtype=np.float32),
        "labels": rng.integers(0, 10, 40),
    }


def test_a_model_says_what_it_is_and_needs(model: dse.LoadedModel) -> None:
    assert model.dimensions == ("batch",)
    assert repr(model).startswith("<fashion-resnet: ")
    assert "batch" in repr(model)


def test_a_prediction_is_that_of_the_command(model: dse.LoadedModel) -> None:
    found = model.predict("h100-sxm", "w8a8_fp8", dims={"batch": 8}, runtime="vllm")
    (wanted,) = predict(
        model.model.graph, ["h100-sxm"], ["w8a8_fp8"], usage=Usage(dims={"batch": 8}),
        runtime="vllm",
    )  # fmt: skip
    assert found == wanted
    assert model.predict("h100-sxm:vllm", "w8a8_fp8", dims={"batch": 8}) == wanted
    device = load_device("h100-sxm")
    assert model.predict(device, "w8a8_fp8", dims={"batch": 8}, runtime="vllm") == wanted


def test_a_size_without_a_value_is_told(model: dse.LoadedModel) -> None:
    with pytest.raises(GraphError, match="batch"):
        model.predict("h100-sxm")


def test_every_way_to_say_formats_means_the_same(model: dse.LoadedModel, tmp_path: Path) -> None:
    whole = uniform_assignment(model.model.analysis.regions, "w8a8_int8")
    content = to_json(whole, model.model.graph)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    for said in ("w8a8_int8", content, path, str(path)):
        assert model.assignment(said) == whole
    everywhere = model.assignment(catalog.quantizer("e4m3_token"))
    assert {quantizer.name for _, quantizer in everywhere} == {"e4m3_token"}


def test_an_evaluation_is_that_of_the_command(model: dse.LoadedModel) -> None:
    found = model.evaluate("w4a4_nvfp4", samples=SAMPLES)
    whole = uniform_assignment(model.model.analysis.regions, "w4a4_nvfp4")
    wanted = evaluate_model(model.model.analysis, whole, Data(source=NET, report=SAMPLES))
    assert found.quantized.loss == wanted.quantized.loss
    assert found.reference.metric == wanted.reference.metric


def test_arrays_are_data(model: dse.LoadedModel, arrays: dict[str, np.ndarray]) -> None:
    found = model.evaluate("w8a8_fp8", data=arrays, samples=SAMPLES)
    assert found.quantized.samples == SAMPLES
    with pytest.raises(DataError, match="got nothing"):
        model.evaluate("w8a8_fp8", data={})


def test_sensitivities_are_those_of_the_formats_that_were_asked(
    model: dse.LoadedModel, arrays: dict[str, np.ndarray]
) -> None:
    own = catalog.quantizer("int3_channel")
    table = model.sensitivity(formats=["w8a8_fp8", own], data=arrays, method="gradient")
    assert {score.choice for score in table.scores} == {"bf16", "w8a8_fp8", "int3_channel"}
    assert table.ranked()[0].choice == "int3_channel"


def test_a_file_needs_data(model: dse.LoadedModel, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    shutil.copy(str(model.model.graph.path), path)
    with pytest.raises(DataError, match="net: needs data="):
        dse.load(path).evaluate("bf16")


def test_wrong_formats_are_refused(model: dse.LoadedModel) -> None:
    with pytest.raises(UnknownFormatError, match="did you mean 'w8a8_fp8'"):
        model.evaluate("w8a8_pf8")
    with pytest.raises(AssignmentError, match="unknown field 'site'"):
        model.evaluate({"site": {}})
    with pytest.raises(GraphError, match="did you mean 'zoo:fashion-resnet'"):
        dse.load("fashion-resnet")


def test_a_block_is_priced_as_often_as_it_is_repeated(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[8, 64] x) => (float[8, 64] y)'
        "{ p = MatMul (x, weight) y = Add (p, x) }"
    )
    weight = onnx.helper.make_tensor("weight", onnx.TensorProto.FLOAT, (64, 64), [0.5] * 4096)
    model.graph.initializer.append(weight)
    onnx.save(model, tmp_path / "block.onnx")
    block = dse.load(tmp_path / "block.onnx")
    assert block.predict("l4").cost.weight_bytes == 2 * 64 * 64
    assert block.predict("l4", repeat=5).cost.weight_bytes == 5 * 2 * 64 * 64
