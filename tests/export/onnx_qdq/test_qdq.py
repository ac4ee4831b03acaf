"""Exported models under ONNX Runtime against the emulator that they came from."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from dse.errors import ExportError
from dse.evaluate.evaluator import Evaluator
from dse.evaluate.setup import build_evaluator
from dse.execute.emulate import Emulator
from dse.export import deliver
from dse.export.onnx_qdq import verify
from dse.graph.ir.assignment import Assignment
from dse.graph.patterns.analysis import Analysis
from dse.model import open_model
from dse.space.schema import Data
from dse.space.uniform import uniform_assignment
from hwmodels.formats.catalog import quantizer
from hwmodels.formats.encodings import float_encoding
from hwmodels.formats.quantizer import Quantizer
from tests.export.recipes import mlp_recipe, recipe_of

IMAGES = 8


@pytest.fixture(scope="module")
def model():
    return open_model("zoo:fashion-resnet")


def evaluator_of(model, assignment: Assignment) -> Evaluator:
    data = Data(source="zoo:fashion-resnet", calibration=IMAGES, search=2, report=IMAGES)
    by_key = Analysis(model.graph).by_key
    return build_evaluator(Analysis(model.graph), data, by_key, tuple(assignment))


def outputs(path: Path, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    # Optimised, ONNX Runtime multiplies integers where the file says floats.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0]


def mixed(model, weights: list[str], activation: str) -> Assignment:
    """Weights by turns in the given formats, activations all in one."""
    found = {}
    number = 0
    for site in Analysis(model.graph).sites:
        if site.role == "weight":
            found[site.key] = quantizer(weights[number % len(weights)])
            number += 1
        elif site.role == "activation":
            found[site.key] = quantizer(activation)
    return Assignment.of(found)


@pytest.mark.parametrize(
    ("weights", "activation"),
    [
        (["int8_channel"], "int8:static"),
        (["int4_channel", "int8_channel", "int8", "int4_channel:mse"], "int8:static"),
        (["int4_channel:bias_corrected", "int8_channel:bias_corrected"], "int8:static"),
        (["int4_channel:gptq"], "int8:static"),
        (["e4m3_tensor", "e5m2_tensor"], "e4m3_tensor:static"),
        (["int16_channel"], "int16:static"),
        (["uint8_channel"], "uint8:static"),
        (["bf16"], "fp16"),
    ],
)
def test_onnxruntime_computes_what_was_emulated(model, weights, activation, tmp_path):
    assignment = mixed(model, weights, activation)
    evaluator = evaluator_of(model, assignment)
    bound = evaluator.bound(assignment)
    path = tmp_path / "quantized.onnx"
    deliver(recipe_of(evaluator, assignment), "onnx-qdq", path)
    onnx.checker.check_model(str(path))
    images = evaluator.splits.report.inputs["image"].astype(np.float32)
    with torch.inference_mode():
        emulated = evaluator.program.run({"image": torch.from_numpy(images)}, bound).outputs
    wanted = next(iter(emulated.values())).numpy()
    plain = outputs(model.graph.path, images)
    noise = np.square(plain - wanted).mean()
    assert noise > 0
    # Sums in another order put a few values on the other side of a tie.
    assert np.square(outputs(path, images) - wanted).mean() < 0.02 * noise


def test_one_pair_serves_all_readers_of_a_value(model, tmp_path):
    assignment = mixed(model, ["int8_channel"], "int8:static")
    evaluator = evaluator_of(model, assignment)
    deliver(recipe_of(evaluator, assignment), "onnx-qdq", tmp_path / "quantized.onnx")
    nodes = onnx.load(tmp_path / "quantized.onnx").graph.node
    read = Counter(node.input[0] for node in nodes if node.op_type == "QuantizeLinear")
    assert max(read.values()) == 1
    weights = sum(site.role == "weight" for site in Analysis(model.graph).sites)
    pairs = sum(node.op_type == "DequantizeLinear" for node in nodes)
    assert pairs == weights + len(read)


def test_weights_are_stored_narrow(model, tmp_path):
    assignment = uniform_assignment(Analysis(model.graph).regions, "w8a8_int8_static")
    evaluator = evaluator_of(model, assignment)
    deliver(recipe_of(evaluator, assignment), "onnx-qdq", tmp_path / "quantized.onnx")
    assert (tmp_path / "quantized.onnx").stat().st_size < 0.3 * model.graph.path.stat().st_size


def test_blocks_along_the_contraction_axis_need_opset_21(tmp_path):
    model = open_model("zoo:byte-gpt")
    keys = [site.key for site in Analysis(model.graph).sites if site.role == "weight"][:4]
    assignment = Assignment.of({key: quantizer("int4_g32") for key in keys})
    data = Data(source="zoo:byte-gpt", calibration=2, search=2, report=2, sequence=64)
    by_key = Analysis(model.graph).by_key
    evaluator = build_evaluator(Analysis(model.graph), data, by_key, tuple(assignment))
    bound = evaluator.bound(assignment)
    path = tmp_path / "quantized.onnx"
    deliver(recipe_of(evaluator, assignment), "onnx-qdq", path)
    assert onnx.load(path).opset_import[0].version >= 21
    tokens = evaluator.splits.report.inputs
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    found = session.run(None, dict(tokens))[0]
    with torch.inference_mode():
        feeds = {name: torch.from_numpy(values) for name, values in tokens.items()}
        wanted = next(iter(evaluator.program.run(feeds, bound).outputs.values())).numpy()
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_what_has_no_qdq_is_refused_with_all_its_sites(model, tmp_path):
    assignment = mixed(model, ["posit8_1", "nf4_g64", "int8_channel"], "e4m3_token")
    evaluator = evaluator_of(model, assignment)
    with pytest.raises(ExportError) as refused:
        deliver(recipe_of(evaluator, assignment), "onnx-qdq", tmp_path / "quantized.onnx")
    message = str(refused.value)
    assert all(name in message for name in ("posit8_1", "nf4_g64", "e4m3_token"))
    assert "ONNX has no type for posit8_1" in message
    assert "e2m1" in message.split("posit8_1; ")[1], "what would work"
    assert not list(tmp_path.iterdir())


NARROW = {
    "e2m1@channel": 23, "e2m1@g16/fp16": 23, "nvfp4": 23, "nvfp4:mse": 23, "nvfp4:gptq": 23,
    "e2m1@g32/e4m3": 23, "mxfp4": 24, "mxfp8": 24, "mxfp8_e5m2": 24, "mxfp6": 28,
    "mxfp6_e3m2": 28, "int2_channel": 25, "uint4_g32": 21, "e4m3@b16x16": 21,
}  # fmt: skip
"""Weights, and the first opset that says them."""


@pytest.mark.parametrize("weight", NARROW)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_narrow_weights_are_read_bit_for_bit_by_the_reference_evaluator(weight, dtype, tmp_path):
    recipe = mlp_recipe(tmp_path, weight, None, dtype=dtype)
    checks = deliver(recipe, "onnx-qdq", tmp_path / "quantized.onnx", verify=True)
    assert checks[0].compared == "structure"
    assert checks[1].difference == 0
    opset = onnx.load(tmp_path / "quantized.onnx").opset_import[0].version
    assert opset == max(17, NARROW[weight])


@pytest.mark.parametrize(
    "weight", ["nvfp4", "mxfp4", "mxfp8", "int4_g32", "uint4_g32", "int8_channel"]
)
def test_files_have_the_bytes_that_the_cost_model_counts(weight, tmp_path):
    recipe = mlp_recipe(tmp_path, weight, None)
    deliver(recipe, "onnx-qdq", tmp_path / "quantized.onnx")
    stored = onnx.load(tmp_path / "quantized.onnx").graph.initializer
    bits = sum(
        math.prod(tensor.dims) * ir.DataType(tensor.data_type).bitwidth
        for tensor in stored
        if tensor.name.endswith(("_codes", "_scale", "_level", "_zero_point"))
        and not (weight == "int8_channel" and tensor.name.endswith("_zero_point"))
    )
    wanted = 0
    for key, emulator in recipe.bound.items():
        if key.endswith("/in1"):
            constant = recipe.constant(key)
            assert constant is not None
            assert isinstance(emulator, Emulator)
            shape = tuple(constant.shape)
            wanted += quantizer(weight).format.storage_bytes(shape, emulator.axes)
    assert bits // 8 == wanted


def test_two_levels_of_scales_are_two_nodes_of_narrow_constants(tmp_path):
    recipe = mlp_recipe(tmp_path, "nvfp4", None)
    deliver(recipe, "onnx-qdq", tmp_path / "quantized.onnx")
    graph = onnx.load(tmp_path / "quantized.onnx").graph
    kinds = {tensor.data_type for tensor in graph.initializer}
    assert {onnx.TensorProto.FLOAT4E2M1, onnx.TensorProto.FLOAT8E4M3FN} <= kinds
    nodes = [node for node in graph.node if node.op_type == "DequantizeLinear"]
    inner = {node.output[0] for node in nodes}
    assert sum(node.input[1] in inner for node in nodes) == 2


@pytest.mark.parametrize("opset", [13, 17, 19, 21])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    ("weight", "activation"),
    [("int8_channel", "int8:static"), ("int8_channel", None), ("int4_g32", None),
     ("e4m3_channel", "e4m3_tensor:static"), ("bf16", "fp16"),
     ("int4_channel:bias_corrected", "uint8:static")],
)  # fmt: skip
def test_16_bit_models_give_valid_models(weight, activation, dtype, opset, tmp_path):
    recipe = mlp_recipe(tmp_path, weight, activation, dtype=dtype, opset=opset)
    checks = deliver(recipe, "onnx-qdq", tmp_path / "quantized.onnx", verify=True)
    assert [check.compared for check in checks[:1]] == ["structure"]
    assert checks[1].difference == 0
    if dtype == "float16":  # ONNX Runtime has no bfloat16 products on the CPU
        assert checks[2].compared == "outputs"


def test_a_format_that_the_model_has_already_adds_nothing(tmp_path):
    recipe = mlp_recipe(tmp_path, "fp16", "fp16", dtype="float16")
    deliver(recipe, "onnx-qdq", tmp_path / "quantized.onnx")
    before = [node.op_type for node in onnx.load(recipe.graph.path).graph.node]
    assert [node.op_type for node in onnx.load(tmp_path / "quantized.onnx").graph.node] == before


def test_an_encoding_that_only_has_the_name_is_no_onnx_type(tmp_path):
    other = float_encoding("e4m3", 4, 3, bias=11, specials="fn")
    format = replace(quantizer("e4m3_channel").format, name="e4m3_channel", element=other)
    recipe = mlp_recipe(tmp_path, Quantizer(format=format), None)
    with pytest.raises(ExportError, match="no type for e4m3"):
        deliver(recipe, "onnx-qdq", tmp_path / "quantized.onnx")


@pytest.mark.parametrize("weight", ["e2m1@channel", "e2m1@g32", "nvfp4", "mxfp4", "int4_g32"])
def test_openvino_computes_four_bit_weights(weight, tmp_path):
    pytest.importorskip("openvino")
    recipe = mlp_recipe(tmp_path, weight, None)
    checks = deliver(recipe, "onnx-qdq", tmp_path / "quantized.onnx", verify=True)
    found = next(check for check in checks if check.checker.startswith("OpenVINO"))
    assert found.difference is not None
    assert found.difference < 1e-6


def below(path: Path, feeds: dict[str, np.ndarray]) -> int:
    """How many codes of -128 ONNX Runtime's QuantizeLinear nodes write."""
    model = onnx.load(path)
    codes = [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    for name in codes:
        model.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT8, None)
        )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return sum(int((found == -128).sum()) for found in session.run(codes, feeds))


@pytest.mark.parametrize("activation", ["int8:percentile90:static", "int8:static"])
def test_values_below_a_symmetric_range_are_counted(tmp_path: Path, activation: str) -> None:
    recipe = mlp_recipe(tmp_path, "int8_channel", activation)
    path = tmp_path / "q.onnx"
    (said,) = [check for check in deliver(recipe, "onnx-qdq", path, verify=True)
               if "symmetric" in check.compared]  # fmt: skip
    assert recipe.samples is not None
    expected = below(path, {"x": recipe.samples["x"].numpy()})
    assert bool(expected) is ("percentile" in activation)
    assert said.note.startswith(f"{expected} of " if expected else "no value")


def test_a_file_is_not_refused_for_values_below_a_symmetric_range(tmp_path: Path) -> None:
    """A few of them can be all that a small network's outputs differ by."""
    recipe = mlp_recipe(tmp_path, "int8_channel", "int8:static")
    first = recipe.bound["first/in0"]
    assert isinstance(first, Emulator)
    assert first.fixed is not None
    assert first.fixed.scales is not None
    assert recipe.samples is not None
    lowest = -128 * first.fixed.scales.item()
    low = replace(recipe, samples={"x": torch.full_like(recipe.samples["x"], lowest)})
    checks = deliver(low, "onnx-qdq", tmp_path / "q.onnx", verify=True)
    # OpenVINO adds such products in 16 bits on CPUs without VNNI.
    (ran,) = [one for one in checks if one.compared == "outputs" and "ONNX R" in one.checker]
    assert ran.difference is not None
    assert ran.difference < 1e-5
    (said,) = [check for check in checks if "symmetric" in check.compared]
    assert "values fall below it" in said.note


def test_outputs_in_bfloat16_are_read_from_openvino_as_such(tmp_path: Path) -> None:
    """Its arrays of them are of numpy's float16, with other values for the same bits."""
    pytest.importorskip("openvino")
    table = torch.arange(1, 9).reshape(4, 2).to(torch.bfloat16) / 7
    stored = onnx.helper.make_tensor(
        "t",
        onnx.TensorProto.BFLOAT16,
        [4, 2],
        table.view(torch.uint16).numpy().tobytes(),
        raw=True,
    )
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (int64[n] i) => (bfloat16[n, 2] y)'
        "{ y = Gather (t, i) }"
    )
    model.graph.initializer.append(stored)
    onnx.save(model, tmp_path / "g.onnx")
    _, found = verify.RUNTIMES["openvino"](tmp_path / "g.onnx", {"i": np.array([3, 0, 2])})
    assert not isinstance(found, str), found
    assert found["y"].tolist() == table[[3, 0, 2]].float().tolist()


def test_openvino_is_fed_and_read_whatever_names_say(tmp_path: Path) -> None:
    """Behind a cast of nothing an output has two names; `file` is one of numpy's own."""
    pytest.importorskip("openvino")
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 2] file) => (float[n, 2] z)'
        "{ a = Relu (file) z = Cast <to = 1> (a) }"
    )
    onnx.save(model, tmp_path / "g.onnx")
    x = np.array([[1, -2], [-3, 4]], np.float32)
    _, found = verify.RUNTIMES["openvino"](tmp_path / "g.onnx", {"file": x})
    assert isinstance(found, dict)
    assert found["z"].tolist() == [[1, 0], [0, 4]]


def test_an_affine_range_has_nothing_to_count(tmp_path: Path) -> None:
    recipe = mlp_recipe(tmp_path, "int8_channel", "uint8:static")
    checks = deliver(recipe, "onnx-qdq", tmp_path / "q.onnx", verify=True)
    assert not [check for check in checks if "symmetric" in check.compared]


@pytest.mark.parametrize(
    ("weight", "activation", "warned"),
    [("int8_channel", "uint8:static", True), ("int8_channel", None, False),
     ("uint8_channel", "uint8:static", False), ("int4_channel", "int8:static", False)],
)  # fmt: skip
def test_products_that_saturate_without_vnni_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, weight: str, activation: str, warned: bool
) -> None:
    deliver(mlp_recipe(tmp_path, weight, activation), "onnx-qdq", tmp_path / "q.onnx")
    assert ("2 products of 8-bit integers (first, second)" in caplog.text) is warned


@pytest.mark.parametrize(
    ("weight", "activation", "named"),
    [("int4_g32", None, "1 products with weights of integers alone (first)"),
     ("int8_channel", "fp16", "1 products with weights of integers alone (first)"),
     ("int4_g32", "uint8:static", ""), ("int16_channel", None, ""), ("e4m3_tensor", None, "")],
)  # fmt: skip
def test_inputs_that_onnxruntime_rounds_by_itself_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, weight: str, activation: str, named: str
) -> None:
    """It makes a MatMulNBits of the MatMul, not of the Gemm that transposes."""
    recipe = mlp_recipe(tmp_path, weight, activation)
    deliver(recipe, "onnx-qdq", tmp_path / "q.onnx")
    assert named in caplog.text
    assert ("alone" in caplog.text) is bool(named)
    feeds = recipe.samples or {}
    wanted = recipe.program.run(feeds, recipe.bound).outputs["y"].numpy()

    def off(level: str) -> float:
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", level)
        session = onnxruntime.InferenceSession(tmp_path / "q.onnx", options)
        found = session.run(None, {"x": feeds["x"].numpy()})[0]
        return float(np.abs(found - wanted).max() / np.abs(wanted).max())

    if named:
        assert off("4") > 1e-3
        assert off("1") < 1e-5


@pytest.mark.parametrize("element", ["e4m3", "e5m2"])
@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize("after", ["Relu", "Clip"])
def test_onnxruntime_optimises_nothing_away_before_8_bit_floats(
    tmp_path: Path, element: str, opset: int, after: str
) -> None:
    """It drops a Relu before a zero point that is no 8-bit integer, and throws at a Clip."""
    recipe = mlp_recipe(
        tmp_path, "e4m3_tensor", f"{element}_tensor:static", opset=opset, after=after
    )
    deliver(recipe, "onnx-qdq", tmp_path / "q.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "q.onnx")
    feeds = recipe.samples or {}
    found = session.run(None, {"x": feeds["x"].numpy()})[0]
    wanted = recipe.program.run(feeds, recipe.bound).outputs["y"].numpy()
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_scales_a_token_are_refused_with_what_would_work(tmp_path: Path) -> None:
    recipe = mlp_recipe(tmp_path, "int8_channel", "int8_token")
    with pytest.raises(ExportError, match="w8a8_int8_static") as caught:
        deliver(recipe, "onnx-qdq", tmp_path / "q.onnx")
    assert "int8_token at first/in0, second/in0: " in str(caught.value)
    assert "no scales a token or block" in str(caught.value)


@pytest.mark.parametrize("activation", [None, "int8:static", "int8:static:smooth(0.5)"])
def test_smoothing_is_refused_by_name_and_leaves_no_file(
    tmp_path: Path, activation: str | None
) -> None:
    """Factors of channels have no place between the codes of Q/DQ: no model without them."""
    recipe = mlp_recipe(tmp_path, "int8_channel:smooth(0.5)", activation)
    out = tmp_path / "q.onnx"
    with pytest.raises(ExportError, match="smooth computes around the codes") as caught:
        deliver(recipe, "onnx-qdq", out)
    assert "first/in1, second/in1" in str(caught.value)
    assert not out.exists()


def test_integers_without_a_scale_are_rounded_and_saturate(tmp_path: Path) -> None:
    """As a pair of scale 1; a Cast would cut fractions off, and wrap."""
    recipe = mlp_recipe(tmp_path, "int8_channel", "int4a")
    (ran,) = [check for check in deliver(recipe, "onnx-qdq", tmp_path / "q.onnx", verify=True)
              if "ONNX Runtime" in check.checker]  # fmt: skip
    assert ran.difference is not None
    assert ran.difference < 1e-5
