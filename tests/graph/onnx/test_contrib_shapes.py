"""Shapes of ONNX Runtime's own operators, where the file declares none: as it computes them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from dse.graph.onnx.load import load
from dse.graph.onnx.shapes import bound_types

HEADER = '<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>\n'
CASES = {
    "gelu of a sum": "h = com.microsoft.BiasGelu (x, b)",
    "fast gelu": "h = com.microsoft.FastGelu (x)",
    "gelu": "h = com.microsoft.Gelu (x)",
    "quick gelu": "h = com.microsoft.QuickGelu (x)",
    "norm of a sum": "h, m, i, s = com.microsoft.SkipLayerNormalization (x, x, b)",
    "rms norm of a sum": "h, m, i, s = com.microsoft.SkipSimplifiedLayerNormalization (x, x, b)",
    "product": "h = com.microsoft.FusedMatMul (x, w)",
    "product with a transposed weight": "h = com.microsoft.FusedMatMul <transB = 1> (x, v)",
    "product of transposed halves": "h = com.microsoft.FusedMatMul <transA = 1> (x, x)",
    "attention": "h = com.microsoft.MultiHeadAttention <num_heads = 2> (x, x, x)",
    "attention on narrower values": """p = MatMul (x, w)
        h = com.microsoft.MultiHeadAttention <num_heads = 2> (x, x, p)""",
    "codes": "h = com.microsoft.QuantizeLinear (x, f, z)",
    "numbers of codes": """c = com.microsoft.QuantizeLinear (x, f, z)
        h = com.microsoft.DequantizeLinear (c, f, z)""",
    "recurrent": """h, last, cell = com.microsoft.DynamicQuantizeLSTM
        <direction = "bidirectional", hidden_size = 4> (x, wi, wr, , , , , , ws, wz, rs, rz)""",
}  # fmt: skip
WEIGHTS = {
    "b": np.ones(8, np.float32), "w": np.ones((8, 6), np.float32),
    "v": np.ones((6, 8), np.float32),
    "f": np.array(0.1, np.float32), "z": np.array(7, np.uint8),
    "wi": np.ones((2, 8, 16), np.uint8), "wr": np.ones((2, 4, 16), np.uint8),
    "ws": np.ones(2, np.float32), "wz": np.zeros(2, np.uint8),
    "rs": np.ones(2, np.float32), "rz": np.zeros(2, np.uint8),
}  # fmt: skip


@pytest.mark.parametrize("nodes", CASES.values(), ids=CASES)
def test_undeclared_results_have_the_shapes_that_onnxruntime_computes(tmp_path, nodes):
    model = onnx.parser.parse_model(
        HEADER + f"g (float[batch, seq, 8] x) => (y) {{ {nodes}\n y = Identity (h) }}"
    )
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name)
        for name, array in WEIGHTS.items() if name in read
    )  # fmt: skip
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    names = [v for node in model.graph.node for v in node.output if v and v != "y"]
    types = bound_types(load(path), {"batch": 3, "seq": 4})

    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    results = session.run(names, {"x": np.ones((3, 4, 8), np.float32)})
    shown = {name: array for name, array in zip(names, results, strict=True) if array.size}
    assert "h" in shown
    for name, array in shown.items():
        assert types[name].shape == array.shape
        assert types[name].dtype == str(array.dtype)
