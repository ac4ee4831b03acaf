"""ONNX files for TensorRT: its rules, its own operator, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dse.errors import ExportError
from dse.export import deliver, exporter
from tests.export.recipes import mlp_recipe

STATIC = {
    "int8": ("int8_channel", "int8:static"),
    "fp8": ("e4m3_tensor", "e4m3_tensor:static"),
    "int4": ("int4_g32", None),
    "nvfp4 weights": ("nvfp4", "fp16"),
}


@pytest.mark.parametrize("case", STATIC)
def test_what_every_runtime_knows_is_run_by_one(case: str, tmp_path: Path) -> None:
    recipe = mlp_recipe(tmp_path, *STATIC[case])
    checks = deliver(recipe, "tensorrt", tmp_path / "m.onnx", verify=True)
    assert any(check.compared.endswith("constants") and check.difference == 0 for check in checks)
    rules = next(check for check in checks if check.checker == "TensorRT's rules")
    assert rules.note == "TensorRT itself was not run"
    model = onnx.load(tmp_path / "m.onnx")
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.metadata_props


def test_dynamic_fp4_is_marked_as_what_only_tensorrt_runs(tmp_path: Path) -> None:
    recipe = mlp_recipe(tmp_path, "nvfp4", "nvfp4:static")
    checks = deliver(recipe, "tensorrt", tmp_path / "m.onnx", verify=True)
    assert any("2 activations are quantized by its own operator" in one.note for one in checks)
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {one.key: one.value for one in model.metadata_props}["dse.needs"] == "TensorRT"
    assert {one.domain: one.version for one in model.opset_import}["trt"] == 1
    dynamic = [node for node in model.graph.node if node.domain == "trt"]
    assert [node.op_type for node in dynamic] == ["TRT_FP4DynamicQuantize"] * 2
    given = {one.name: onnx.helper.get_attribute_value(one) for one in dynamic[0].attribute}
    assert given == {"axis": 1, "block_size": 16, "scale_type": onnx.TensorProto.FLOAT8E4M3FN}
    levels = {one.name: float(numpy_helper.to_array(one)) for one in model.graph.initializer
              if one.name in dynamic[0].input}  # fmt: skip
    samples = recipe.samples
    assert samples is not None
    absmax = float(samples["x"].abs().max())
    assert levels[dynamic[0].input[1]] == pytest.approx(absmax / (6 * 448))
    readers = [node for node in model.graph.node if dynamic[0].output[0] in node.input]
    assert [node.op_type for node in readers] == ["DequantizeLinear"]


def test_no_scale_is_zero(tmp_path: Path) -> None:
    recipe = mlp_recipe(tmp_path, "int8_channel", "int8:static")
    weight = recipe.constant("first/in1")
    assert weight is not None
    weight[:, 3] = 0
    deliver(recipe, "tensorrt", tmp_path / "m.onnx", verify=True)
    model = onnx.load(tmp_path / "m.onnx")
    scales = [
        numpy_helper.to_array(one) for one in model.graph.initializer if "_scale" in one.name
    ]
    assert all((scale > 0).all() for scale in scales)


@pytest.mark.parametrize(
    ("weight", "activation", "message"),
    [
        ("int8_channel", "uint8:static", "to int8, e4m3 and e2m1, not uint8"),
        ("uint8_channel", None, "symmetrically, without zero points"),
        ("int4", None, "int4 matrices have scales in blocks"),
        ("int8_g32", None, "no blocks of int8"),
        ("mxfp4", None, "e4m3 scales for 16 elements"),
        ("mxfp8", None, "no blocks of float8_e4m3fn"),
        ("int16_channel", None, "weights in int8, int4, e4m3 and e2m1, not int16"),
        ("nvfp4", "nvfp4", "worked out while the network runs"),
    ],
)
def test_what_tensorrt_has_not_is_refused_and_leaves_nothing(
    weight: str, activation: str | None, message: str, tmp_path: Path
) -> None:
    recipe = mlp_recipe(tmp_path, weight, activation)
    with pytest.raises(ExportError) as caught:
        deliver(recipe, "tensorrt", tmp_path / "out" / "m.onnx")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_file_that_breaks_a_rule_does_not_pass(tmp_path: Path) -> None:
    recipe = mlp_recipe(tmp_path, "int8_channel", "int8:static")
    out = tmp_path / "m.onnx"
    deliver(recipe, "tensorrt", out)
    model = onnx.load(out)
    zero = next(one for one in model.graph.initializer if one.name.endswith("_zero_point"))
    zero.CopyFrom(numpy_helper.from_array(np.array(3, np.int8), zero.name))
    onnx.save(model, out)
    with pytest.raises(ExportError, match="has a zero point"):
        exporter("tensorrt").verify(recipe, out)
