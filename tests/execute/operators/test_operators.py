"""Single operators against ONNX Runtime: old versions, contrib, what has no node test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from dse.execute.operators.dtype import to_numpy, to_torch
from dse.execute.program.program import Program
from dse.graph.onnx.convert import Source, graph_of

OLD = {
    "softmax-11": (11, "float[2,3,4] x", "y = Softmax <axis = 1> (x)"),
    "log-softmax-11": (11, "float[2,3,4] x", "y = LogSoftmax <axis = 2> (x)"),
    "hardmax-11": (11, "float[2,3,4] x", "y = Hardmax <axis = 1> (x)"),
    "reduce-mean-13": (13, "float[2,3,4] x", "y = ReduceMean <axes = [1, -1], keepdims = 0> (x)"),
    "reduce-sum-11": (11, "float[2,3,4] x", "y = ReduceSum <axes = [1]> (x)"),
    "reduce-l2-11": (11, "float[2,3,4] x", "y = ReduceL2 (x)"),
    "split-11": (11, "float[6,4] x", "a, y = Split <axis = 0, split = [2, 4]> (x)"),
    "squeeze-11": (11, "float[2,1,4] x", "y = Squeeze <axes = [1]> (x)"),
    "unsqueeze-11": (11, "float[2,4] x", "y = Unsqueeze <axes = [0, 3]> (x)"),
    "clip-6": (6, "float[2,4] x", "y = Clip <min = -0.5, max = 0.5> (x)"),
    "slice-1": (9, "float[6,4] x", "y = Slice <axes = [0], starts = [1], ends = [-1]> (x)"),
    "pad-2": (10, "float[2,4] x", 'y = Pad <pads = [0, 1, 0, 2], value = 1.5> (x)'),
    "top-k-1": (9, "float[2,9] x", "y, i = TopK <k = 3> (x)"),
    "dropout-10": (10, "float[2,4] x", "y = Dropout <ratio = 0.9> (x)"),
    "resize-10": (10, "float[1,2,3,3] x", "s = Constant <value = float[4] {1,1,2,3}> ()\n"
                  "y = Resize <mode = \"linear\"> (x, s)"),
    "upsample-9": (9, "float[1,2,3,3] x", "s = Constant <value = float[4] {1,1,2,2}> ()\n"
                   "y = Upsample <mode = \"nearest\"> (x, s)"),
    "batch-norm-9": (9, "float[2,3,4] x, float[3] g, float[3] b, float[3] m",
                     "v = Exp (m)\ny = BatchNormalization (x, g, b, m, v)"),
    "gemm-9": (9, "float[4,2] x, float[3,4] w, float[3] b",
               "y = Gemm <alpha = 0.5, beta = 2.0, transA = 1, transB = 1> (x, w, b)"),
    "scatter-10": (10, "float[3,3] x, float[1,2] u",
                   "i = Constant <value = int64[1, 2] {1, 2}> ()\n"
                   "y = Scatter <axis = 1> (x, i, u)"),
    "arg-max-11": (11, "float[3,5] x", "y = ArgMax <axis = -1, keepdims = 0> (x)"),
    "global-lp-pool": (17, "float[2,3,4,5] x", "y = GlobalLpPool <p = 3> (x)"),
    "simplified-layer-norm": (17, "float[2,3,8] x, float[8] g",
                              "y = SimplifiedLayerNormalization <epsilon = 1e-3> (x, g)"),
    "split-to-sequence": (17, "float[6,4] x", "n = Constant <value_int = 2> ()\n"
                          "s = SplitToSequence <axis = 1> (x, n)\n"
                          "k = Constant <value_int = 1> ()\n"
                          "a = SequenceAt (s, k)\nt = SequenceErase (s, k)\n"
                          "b = ConcatFromSequence <axis = 0> (t)\ny = Concat <axis = 0> (a, b)"),
    "cast-like": (19, "float[2,4] x, float16[1] t", "y = CastLike (x, t)"),
    "einsum-ellipsis": (17, "float[2,3,4] x, float[4,5] w",
                        'y = Einsum <equation = "...ij, jk -> ...ik"> (x, w)'),
    "average-pool-ceil": (17, "float[1,2,7,7] x", "y = AveragePool <kernel_shape = [3, 3], "
                          "strides = [2, 2], pads = [1, 1, 1, 1], count_include_pad = 1> (x)"),
    "conv-same": (17, "float[1,4,7,7] x, float[6,2,3,3] w",
                  'y = Conv <auto_pad = "SAME_LOWER", group = 2, strides = [2, 2]> (x, w)'),
}  # fmt: skip
"""(opset, inputs, nodes) by name."""

CONTRIB = {
    "bias-gelu": ("float[2,5,8] x, float[8] b", "y = com.microsoft.BiasGelu (x, b)"),
    "fast-gelu": ("float[2,5,8] x, float[8] b", "y = com.microsoft.FastGelu (x, b)"),
    "quick-gelu": ("float[2,5,8] x", "y = com.microsoft.QuickGelu <alpha = 1.5> (x)"),
    "gelu": ("float[2,5,8] x", "y = com.microsoft.Gelu (x)"),
    "fused-matmul": ("float[2,3,8,5] a, float[2,3,7,8] b",
                     "y = com.microsoft.FusedMatMul <alpha = 0.3, transA = 1, transB = 1> (a, b)"),
    "fused-matmul-batch": ("float[5,2,3,8] a, float[2,3,8,7] b",
                           "y = com.microsoft.FusedMatMul <transBatchA = 1> (a, b)"),
    "skip-layer-norm": ("float[2,5,8] x, float[2,5,8] r, float[8] g, float[8] b, float[8] c",
                        "z, m, v, s = com.microsoft.SkipLayerNormalization "
                        "<epsilon = 1e-5> (x, r, g, b, c)\ny = Concat <axis = 0> (z, s)"),
    "skip-rms-norm": ("float[2,5,8] x, float[2,5,8] r, float[8] g",
                      "z, m, v, s = com.microsoft.SkipSimplifiedLayerNormalization "
                      "<epsilon = 1e-5> (x, r, g)\ny = Concat <axis = 0> (z, s)"),
    "multi-head-attention": ("float[2,5,16] q, float[2,6,16] k, float[2,6,16] v",
                             "y = com.microsoft.MultiHeadAttention <num_heads = 4> (q, k, v)"),
    "multi-head-attention-bias": (
        "float[2,5,16] q, float[2,5,16] k, float[2,5,16] v, float[48] b, float[2,4,5,5] a",
        "y = com.microsoft.MultiHeadAttention <num_heads = 4, unidirectional = 1> "
        "(q, k, v, b, , a)"),
    "multi-head-attention-past": (
        "float[2,2,16] q, float[2,2,16] k, float[2,2,16] v, float[2,4,3,4] pk, float[2,4,3,4] pv",
        "z, c, d = com.microsoft.MultiHeadAttention <num_heads = 4, scale = 0.4> "
        "(q, k, v, , , , pk, pv)\nf = Flatten <axis = 0> (z)\ne = Flatten <axis = 0> (c)\n"
        "h = Flatten <axis = 0> (d)\ny = Concat <axis = 1> (f, e, h)"),
    "rotary": ("float[2,5,16] x, float[8,2] c, float[8,2] s",
               "p = Constant <value = int64[2,5] {0,1,2,3,4,2,3,4,5,6}> ()\n"
               "y = com.microsoft.RotaryEmbedding (x, p, c, s)"),
    "rotary-offset": ("float[2,3,16] x, float[8,2] c, float[8,2] s",
                      "p = Constant <value = int64[1] {2}> ()\n"
                      "y = com.microsoft.RotaryEmbedding <interleaved = 1> (x, p, c, s)"),
    "group-query": (
        "float[2,5,32] q, float[2,5,16] k, float[2,5,16] v",
        "n = Constant <value = int32[2] {4, 4}> ()\nt = Constant <value = int32[1] {5}> ()\n"
        "z, c, d = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2> "
        "(q, k, v, , , n, t)\ny = Identity (z)"),
    "group-query-decode": (
        "float[2,1,64] q, float[2,1,32] k, float[2,1,32] v, float[2,2,6,16] pk, "
        "float[2,2,6,16] pv, float[8,8] c, float[8,8] s",
        "n = Constant <value = int32[2] {6, 6}> ()\nt = Constant <value = int32[1] {7}> ()\n"
        "z, e, d = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2, "
        "do_rotary = 1> (q, k, v, pk, pv, n, t, c, s)\nf = Flatten <axis = 0> (z)\n"
        "g = Flatten <axis = 0> (e)\nh = Flatten <axis = 0> (d)\n"
        "y = Concat <axis = 1> (f, g, h)"),
    "group-query-local": (
        "float[2,5,64] q",
        "n = Constant <value = int32[2] {4, 4}> ()\nt = Constant <value = int32[1] {5}> ()\n"
        "y, c, d = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2, "
        "local_window_size = 2> (q, , , , , n, t)"),
    "quantize-wide": (
        "float[2,5] x",
        "s = Constant <value = float[5] {0.001, 0.002, 0.01, 0.1, 1}> ()\n"
        "z = Constant <value = int16[5] {3, -7, 0, 100, -1}> ()\n"
        "q = com.microsoft.QuantizeLinear <axis = 1> (x, s, z)\n"
        "y = com.microsoft.DequantizeLinear <axis = 1> (q, s, z)"),
    "quantize-wide-tensor": (
        "float[2,5] x",
        "s = Constant <value = float {0.001}> ()\nz = Constant <value = int16 {-9}> ()\n"
        "q = com.microsoft.QuantizeLinear (x, s, z)\n"
        "y = com.microsoft.DequantizeLinear (q, s, z)"),
}  # fmt: skip
"""(inputs, nodes) by name."""


def model(opset: int, inputs: str, nodes: str) -> onnx.ModelProto:
    text = f'<ir_version: 8, opset_import: ["": {opset}, "com.microsoft": 1]>\n'
    proto = onnx.parser.parse_model(f"{text}graph ({inputs}) => (float[] y) {{\n{nodes}\n}}")
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    return proto


def feeds_of(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    found = {}
    for value in proto.graph.input:
        kind = value.type.tensor_type
        shape = [dim.dim_value for dim in kind.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        found[value.name] = rng.standard_normal(shape).astype(dtype)
    return found


def compare(proto: onnx.ModelProto) -> None:
    output = onnx.TensorProto.FLOAT
    if proto.graph.node[-1].op_type in ("ArgMax", "CastLike"):
        kinds = {"ArgMax": onnx.TensorProto.INT64, "CastLike": onnx.TensorProto.FLOAT16}
        output = kinds[proto.graph.node[-1].op_type]
    proto.graph.output[0].type.tensor_type.elem_type = output
    feeds = feeds_of(proto)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (expected,) = session.run(None, feeds)
    opsets = {entry.domain: entry.version for entry in proto.opset_import}
    graph = graph_of(proto.graph, Source(path=Path("model.onnx"), opsets=opsets))
    result = Program(graph).run({k: to_torch(v) for k, v in feeds.items()}).outputs["y"]
    assert result.dtype == to_torch(expected).dtype
    np.testing.assert_allclose(to_numpy(result), expected, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("name", OLD)
def test_operator_agrees_with_onnxruntime(name: str) -> None:
    compare(model(*OLD[name]))


@pytest.mark.parametrize("name", CONTRIB)
def test_contrib_operator_agrees_with_onnxruntime(name: str) -> None:
    compare(model(17, *CONTRIB[name]))


QUANTIZED = {
    "int8": onnx.TensorProto.INT8,
    "uint8": onnx.TensorProto.UINT8,
    "int16": onnx.TensorProto.INT16,
    "uint16": onnx.TensorProto.UINT16,
    "int4": onnx.TensorProto.INT4,
    "uint4": onnx.TensorProto.UINT4,
    "e4m3fn": onnx.TensorProto.FLOAT8E4M3FN,
    "e5m2": onnx.TensorProto.FLOAT8E5M2,
}


@pytest.mark.parametrize("kind", QUANTIZED)
@pytest.mark.parametrize("layout", ["tensor", "axis", "block"])
def test_quantize_and_dequantize_agree_with_onnxruntime(kind: str, layout: str) -> None:
    """Scales of every granularity, blocks of 32, values beyond the range."""
    attributes = {
        "tensor": "", "axis": "axis = 0, ", "block": "axis = 1, block_size = 32, ",
    }[layout]  # fmt: skip
    shape = {"tensor": "", "axis": "[4]", "block": "[4, 2]"}[layout]
    nodes = (
        f"p = Abs (s)\n"
        f"q = QuantizeLinear <{attributes}output_dtype = {QUANTIZED[kind]}> (x, p)\n"
        f"y = DequantizeLinear <{attributes.rstrip(', ')}> (q, p)"
    ).replace("<>", "")
    scale = f"float{shape} s" if shape else "float[] s"
    proto = model(21, f"float[4, 64] x, {scale}", nodes)
    compare(proto)


def test_unsigned_integers_keep_their_type() -> None:
    """torch has no uint32 arithmetic; the result must still be one."""
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (uint32[3] x) => (uint32[3] y) '
        "{ [double] y = Add (x, x) }"
    )
    graph = graph_of(proto.graph, Source(path=Path("m"), opsets={"": 17}))
    fed = to_torch(np.array([1, 2, 2**31 - 1], dtype=np.uint32))
    result = Program(graph).run({"x": fed}).outputs["y"]
    assert result.dtype == torch.uint32
    assert to_numpy(result).tolist() == [2, 4, 2**32 - 2]
