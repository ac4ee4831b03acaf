"""Files with equal places of rounding, for tools that round at different ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from studies.vision_recipes.attention import attends, read_by_products
from studies.vision_recipes.places import everywhere, products_alone

ROUNDED = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 4] x) => (float[N, 4] y)
<float[4, 4] weight, float fine = {0.01}, float coarse = {0.5}, uint8 middle = {128},
 uint8 zero = {0}, float top = {2.0}> {
  xq = QuantizeLinear(x, fine, middle)
  xd = DequantizeLinear(xq, fine, middle)
  m = Gemm(xd, weight)
  mq = QuantizeLinear(m, coarse, middle)
  md = DequantizeLinear(mq, coarse, middle)
  nq = QuantizeLinear(m, coarse, zero)
  nd = DequantizeLinear(nq, coarse, zero)
  s = Add(md, nd)
  sq = QuantizeLinear(s, coarse, middle)
  y = DequantizeLinear(sq, coarse, middle)
}
"""


@pytest.fixture
def rounded(tmp_path: Path) -> Path:
    """A product of rounded inputs, plus what is left of it above zero, all rounded coarsely."""
    model = onnx.parser.parse_model(ROUNDED)
    weight = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "weight"))
    onnx.save(model, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def _run(path: Path, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    found: np.ndarray = onnxruntime.InferenceSession(str(path), options).run(None, {"x": x})[0]
    return found


def _weight(path: Path) -> np.ndarray:
    tensors = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    return onnx.numpy_helper.to_array(tensors["weight"])


def test_only_operands_of_products_stay_rounded_and_cuts_at_zero_stay(rounded, tmp_path):
    x = np.random.default_rng(1).uniform(-1, 1, (50, 4)).astype(np.float32)
    products_alone(rounded, tmp_path / "out.onnx")
    product = (np.rint(x / 0.01) * 0.01).astype(np.float32) @ _weight(rounded)
    wanted = product + np.maximum(product, 0)
    np.testing.assert_allclose(_run(tmp_path / "out.onnx", x), wanted, atol=1e-5)
    assert np.abs(_run(rounded, x) - wanted).max() > 0.2


def test_sums_and_outputs_are_rounded_over_the_range_of_the_images(rounded, tmp_path):
    x = np.random.default_rng(1).uniform(-1, 1, (50, 4)).astype(np.float32)
    products_alone(rounded, tmp_path / "alone.onnx")
    everywhere(tmp_path / "alone.onnx", x, tmp_path / "out.onnx")
    before, after = (_run(tmp_path / f"{name}.onnx", x) for name in ("alone", "out"))
    step = (before.max() - before.min()) / 255
    assert 0 < np.abs(after - before).max() < 2 * step
    codes = (after - after.min()) / step
    np.testing.assert_allclose(codes, np.rint(codes), atol=0.01)


NORMED = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 4] x) => (float[N, 4] y)
<float[4] gain = {1.0, 2.0, 3.0, 4.0}, float[4, 4] weight, float coarse = {0.5},
 uint8 middle = {128}> {
  n = LayerNormalization(x, gain)
  nq = QuantizeLinear(n, coarse, middle)
  nd = DequantizeLinear(nq, coarse, middle)
  m = MatMul(nd, weight)
  p = Softmax(m)
  y = Add(p, nd)
}
"""


def test_a_sum_behind_a_norm_reads_what_the_product_beside_it_reads_rounded(tmp_path):
    """Blocks that end in a norm, as BERT's: the residual stream is not rounded."""
    model = onnx.parser.parse_model(NORMED)
    weight = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "weight"))
    onnx.save(model, tmp_path / "m.onnx")
    products_alone(tmp_path / "m.onnx", tmp_path / "out.onnx")
    x = np.random.default_rng(1).standard_normal((50, 4)).astype(np.float32)
    centred = x - x.mean(1, keepdims=True)
    norm = centred / np.sqrt(np.square(centred).mean(1, keepdims=True) + 1e-5) * [1, 2, 3, 4]
    logits = np.rint(norm / 0.5) * 0.5 @ weight
    wanted = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) + norm
    found = _run(tmp_path / "out.onnx", x)
    # A value between two codes may go either way.
    assert np.mean(np.abs(found - wanted) < 1e-4) > 0.95
    assert np.abs(_run(tmp_path / "m.onnx", x) - found).max() > 0.2


def test_networks_with_attention_are_known_by_their_softmax_and_weights_by_who_reads_them():
    graph = onnx.parser.parse_model(NORMED).graph
    assert attends(graph)
    assert read_by_products(graph) == {"nd", "weight"}
    assert not attends(onnx.parser.parse_model(ROUNDED).graph)
