"""ONNX Runtime's attention with packed weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from dse.errors import GraphError
from dse.execute.program.program import Program
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis

TEXT = """
<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
g (float[2, 6, 32] x, int32[2, 6] mask) => (float[2, 6, SIZE] y) {
    [att] a = com.microsoft.Attention <num_heads = 4 ATTRIBUTES> (x, w, b INPUTS)
    [out] y = MatMul (a, o)
}
"""


def save(folder: Path, attributes: str, inputs: str, sizes: tuple[int, int, int]) -> Path:
    text = TEXT.replace("ATTRIBUTES", attributes).replace("INPUTS", inputs)
    proto = onnx.parser.parse_model(text.replace("SIZE", str(sizes[2])))
    rng = np.random.default_rng(0)
    for name, shape in (("w", (32, sum(sizes))), ("b", (sum(sizes),)), ("o", (sizes[2],) * 2)):
        values = rng.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.save(proto, folder / "m.onnx")
    return folder / "m.onnx"


CASES = {
    "plain": ("", "", (32, 32, 32)),
    "causal": (", unidirectional = 1", "", (32, 32, 32)),
    "padded": ("", ", mask", (32, 32, 32)),
    "scaled": (", scale = 0.3", "", (32, 32, 32)),
    "narrow": (", qkv_hidden_sizes = [16, 16, 48]", "", (16, 16, 48)),
}


@pytest.mark.parametrize("case", CASES)
def test_values_agree_with_onnxruntime(case: str, tmp_path: Path) -> None:
    path = save(tmp_path, *CASES[case])
    x = np.random.default_rng(1).standard_normal((2, 6, 32)).astype(np.float32)
    mask = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]], np.int32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {"x": x, "mask": mask}
    used = {value.name for value in session.get_inputs()}
    (expected,) = session.run(None, {k: v for k, v in feeds.items() if k in used})
    execution = Program(load(path)).run({k: torch.from_numpy(v) for k, v in feeds.items()})
    np.testing.assert_allclose(execution.outputs["y"].numpy(), expected, rtol=1e-4, atol=1e-4)


def test_packed_weights_are_a_site_of_a_projection(tmp_path: Path) -> None:
    graph = load(save(tmp_path, *CASES["plain"]))
    found = {region.role: region for region in Analysis(graph).regions}
    roles = {site.role: site.shape for site in found["qkv"].sites}
    assert roles["weight"] == (32, 96)
    assert {"q", "k_cache", "v_cache"} <= {site.role for site in found["attention"].sites}
    assert found["o"].nodes == ("out",)


@pytest.mark.parametrize(
    ("attributes", "inputs", "fault"),
    [
        (", do_rotary = 1", "", "att (a rotation inside)"),
        ("", ", mask, past", "att (a packed key-value cache)"),
    ],
)
def test_what_cannot_be_unpacked_is_named(
    attributes: str, inputs: str, fault: str, tmp_path: Path
) -> None:
    path = save(tmp_path, attributes, inputs, (32, 32, 32))
    proto = onnx.load(path)
    kind = onnx.TensorProto.FLOAT
    proto.graph.input.append(onnx.helper.make_tensor_value_info("past", kind, (2, 2, 4, 3, 8)))
    onnx.save(proto, path)
    with pytest.raises(GraphError, match=r"com\.microsoft\.Attention") as caught:
        load(path)
    assert fault in str(caught.value)
