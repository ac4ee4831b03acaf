"""Folders for AIMET: encodings by its specification, weights on their grids, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dse.errors import ExportError
from dse.export import deliver, exporter
from tests.export.litert import networks
from tests.export.recipes import mlp_recipe


def document(folder: Path) -> dict[str, dict[str, object]]:
    given = json.loads((folder / "model.encodings").read_text())
    assert given["version"] == "2.0.0"
    return {one["name"]: one for one in given["encodings"]}


@pytest.mark.parametrize(
    ("weight", "activation", "kind"),
    [
        ("int8_channel", "uint8:static", "int8"),
        ("int4_channel:gptq:uncorrected", "int16:static", "int4"),
        ("uint8_channel", "int8:static", "uint8"),
        ("int4_g32", None, "int4"),
        ("e4m3_tensor", "e4m3_tensor:static", "float8e4m3fn"),
    ],
)
def test_encodings_round_to_the_emulators_values(
    weight: str, activation: str | None, kind: str, tmp_path: Path
) -> None:
    recipe = mlp_recipe(tmp_path, weight, activation)
    checks = deliver(recipe, "aimet", tmp_path / "out", verify=True)
    assert checks[1].difference == 0.0
    found = document(tmp_path / "out")
    assert sum(one["output_dtype"] == kind for one in found.values()) >= 2
    assert len(found) == (4 if activation else 2)
    model = onnx.load(tmp_path / "out" / "model.onnx")
    assert not {"QuantizeLinear", "DequantizeLinear"} & {node.op_type for node in model.graph.node}
    for key in ("first/in1", "second/in1"):
        constant = recipe.constant(key)
        assert constant is not None
        node = next(one for one in model.graph.node if one.name == key.partition("/")[0])
        stored = next(one for one in model.graph.initializer if one.name == node.input[1])
        wanted = recipe.bound[key](constant).numpy()
        np.testing.assert_array_equal(numpy_helper.to_array(stored), wanted)
        assert stored.name in found


def test_corrected_means_are_in_the_model(tmp_path: Path) -> None:
    recipe = mlp_recipe(tmp_path, "int4_channel:bias_corrected", "uint8:static")
    deliver(recipe, "aimet", tmp_path / "out", verify=True)
    model = onnx.load(tmp_path / "out" / "model.onnx")
    assert [node.op_type for node in model.graph.node].count("Add") == 2


@pytest.mark.parametrize(
    ("weight", "activation", "message"),
    [
        ("mxfp4", None, "AIMET's encodings know no float4_e2m1fn"),
        ("int8_channel", "int8_token", "worked out while the network runs"),
        ("posit8_1", None, "no type for posit8_1"),
    ],
)
def test_what_encodings_cannot_say_is_refused_and_leaves_nothing(
    weight: str, activation: str | None, message: str, tmp_path: Path
) -> None:
    recipe = mlp_recipe(tmp_path, weight, activation)
    with pytest.raises(ExportError) as caught:
        deliver(recipe, "aimet", tmp_path / "made" / "out")
    assert message in str(caught.value)
    assert not (tmp_path / "made").exists()


def test_another_encoding_does_not_pass(tmp_path: Path) -> None:
    recipe = mlp_recipe(tmp_path, "int8_channel", "uint8:static")
    deliver(recipe, "aimet", tmp_path / "out")
    path = tmp_path / "out" / "model.encodings"
    given = json.loads(path.read_text())
    weight = next(one for one in given["encodings"] if "axis" in one)
    weight["y_scale"][0] *= 1.5
    path.write_text(json.dumps(given))
    with pytest.raises(ExportError, match=r"rounds .* with a difference"):
        exporter("aimet").verify(recipe, tmp_path / "out")
    weight["bitwidth"] = 8
    path.write_text(json.dumps(given))
    with pytest.raises(ExportError, match="has the fields"):
        exporter("aimet").verify(recipe, tmp_path / "out")


def test_a_tensor_that_is_rounded_for_some_readers_only_is_refused(tmp_path: Path) -> None:
    b = networks.Builder()
    x = b.node("Relu", "relu", b.conv("first", "image", (4, 3, 3, 3)))
    b.node("Add", "sum", x, b.conv("second", x, (4, 4, 3, 3)))
    model = b.saved(tmp_path / "n.onnx", "sum", ["batch", 4, networks.SIZE, networks.SIZE])
    formats = {"weight": "int8_channel", "activation": "uint8:static"}
    with pytest.raises(ExportError) as caught:
        deliver(networks.recipe(model, formats), "aimet", tmp_path / "out")
    assert "quantizes a tensor for all that read it, and relu is read otherwise by sum/in0" in str(
        caught.value
    )
