"""Small sound inputs that hostile ones are made from, built here."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RANDOM = np.random.default_rng(0)
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def _weight(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(RANDOM.standard_normal(shape).astype(np.float32), name)


def _integers(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def _model(
    nodes: list[onnx.NodeProto],
    tensors: list[onnx.TensorProto],
    shape: list[int | str],
    functions: tuple[onnx.FunctionProto, ...] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "seed",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        tensors,
    )
    imports = [helper.make_opsetid(name, version) for name, version in
               (("", 21), ("com.microsoft", 1), ("own", 1))]  # fmt: skip
    return helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=10)


def _mlp() -> onnx.ModelProto:
    node = helper.make_node
    nodes = [
        node("Gemm", ["x", "w1", "b1"], ["h"], "fc1", transB=1),
        node("Relu", ["h"], ["r"], "relu"),
        node("MatMul", ["r", "w2"], ["m"], "fc2"),
        node("Softmax", ["m"], ["y"], "softmax", axis=-1),
    ]
    tensors = [_weight("w1", 16, 8), _weight("b1", 16), _weight("w2", 16, 4)]
    return _model(nodes, tensors, ["batch", 8])


def _conv() -> onnx.ModelProto:
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "k"], ["c"], "conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("MaxPool", ["c"], ["p"], "pool", kernel_shape=[2, 2]),
        node("Shape", ["p"], ["s"], "shape"),
        node("Gather", ["s", "zero"], ["n"], "gather"),
        node("Concat", ["n", "rest"], ["sizes"], "sizes", axis=0),
        node("Reshape", ["p", "sizes"], ["y"], "reshape"),
    ]
    tensors = [_weight("k", 4, 3, 3, 3), _integers("zero", 0), _integers("rest", -1)]
    return _model(nodes, tensors, ["batch", 3, 8, 8])


def _attention() -> onnx.ModelProto:
    node = helper.make_node
    nodes = [node("MatMul", ["x", f"w{n}"], [n], f"{n}_proj") for n in "qkv"]
    nodes += [
        node("Transpose", ["k"], ["kt"], "turn", perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["scores"], "scores"),
        node("Softmax", ["scores"], ["p"], "softmax"),
        node("Einsum", ["p", "v"], ["mix"], "mix", equation="bij,bjk->bik"),
        node("Add", ["mix", "x"], ["y"], "add"),
    ]
    return _model(nodes, [_weight(f"w{n}", 8, 8) for n in "qkv"], ["batch", "sequence", 8])


def _flow() -> onnx.ModelProto:
    node = helper.make_node
    scalar = helper.make_tensor_value_info("i", INT64, [])
    goes = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    inner = helper.make_tensor_value_info("a", FLOAT, ["batch", 8])
    body = helper.make_graph(
        [node("MatMul", ["a", "w"], ["b"], "step"), node("Identity", ["c"], ["c2"], "keep")],
        "body", [scalar, goes, inner],
        [helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
         helper.make_tensor_value_info("b", FLOAT, ["batch", 8])],
    )  # fmt: skip
    branches = {
        f"{name}_branch": helper.make_graph(
            [node(kind, ["l"], [f"{name}_y"], name)], name, [],
            [helper.make_tensor_value_info(f"{name}_y", FLOAT, ["batch", 8])],
        )
        for name, kind in (("then", "Relu"), ("else", "Neg"))
    }  # fmt: skip
    nodes = [
        node("Loop", ["trips", "", "x"], ["l"], "loop", body=body),
        node("ReduceMax", ["l"], ["peak"], "peak", keepdims=0),
        node("Greater", ["peak", "limit"], ["test"], "test"),
        node("If", ["test"], ["y"], "if", **branches),
    ]
    limit = numpy_helper.from_array(np.array(0, np.float32), "limit")
    trips = numpy_helper.from_array(np.array(3), "trips")
    return _model(nodes, [_weight("w", 8, 8), limit, trips], ["batch", 8])


def _packed() -> onnx.ModelProto:
    packed = numpy_helper.from_array(RANDOM.integers(0, 256, (4, 2, 8), np.uint8), "b")
    node = helper.make_node(
        "MatMulNBits", ["x", "b", "s"], ["y"], "nbits", domain="com.microsoft",
        K=32, N=4, bits=4, block_size=16,
    )  # fmt: skip
    return _model([node], [packed, _weight("s", 8)], ["batch", 32])


def _function() -> onnx.ModelProto:
    body = [helper.make_node("MatMul", ["a", "m"], ["h"], "inner"),
            helper.make_node("Tanh", ["h"], ["b"], "tanh")]  # fmt: skip
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    function = helper.make_function("own", "Layer", ["a", "m"], ["b"], body, imports)
    nodes = [helper.make_node("Layer", ["x", "w"], ["h"], "one", domain="own"),
             helper.make_node("Layer", ["h", "w"], ["y"], "two", domain="own")]  # fmt: skip
    return _model(nodes, [_weight("w", 8, 8)], ["batch", 8], (function,))


MODELS: Mapping[str, Callable[[], onnx.ModelProto]] = {
    "mlp": _mlp, "conv": _conv, "attention": _attention, "flow": _flow, "packed": _packed,
    "function": _function,
}  # fmt: skip

SPACE: Mapping[str, object] = {
    "model": "mlp.onnx",
    "data": {"source": "mlp.npz", "calibration": 4, "search": 8, "report": 8, "batch": 4},
    "scenario": {"phases": {"call": {"dims": {"batch": 2}}}},
    "targets": ["h100-sxm:free"],
    "candidates": [{"match": {"name": "*"}, "use": ["bf16", "w8a8_fp8", "w4a16"]}],
    "ties": [{"match": {"role": "linear"}, "name": "first"}],
    "constraints": ["weight_bytes<=1e9"],
    "objectives": ["quality_loss", "weight_bytes"],
    "search": {"trials": 3, "seed": 1, "method": "random", "solver_budgets": 4},
}
"""A space that is searched in half a second."""

INTEGER = {**SPACE, "candidates": [{"match": {"name": "*"}, "use": ["w8a8_int8_static"]}]}
"""The same for runtimes that take integers alone."""

TABLE = """op,shape,dtype,median_us
gemm,"{""M"": 64, ""K"": 64, ""N"": 64}",fp32,12.5
gemm,"{""M"": 128, ""K"": 64, ""N"": 64}",fp32,20
"""
"""Operators with times."""

SCORES = """variable,choice,loss,stderr,samples
fc1,bf16,0,0,8
fc1,w4a16,0.25,0.01,8
"""
"""Sensitivities, as a run folder has them."""


def arrays() -> dict[str, np.ndarray]:
    """Samples of the network `mlp`, with labels."""
    return {"x": RANDOM.standard_normal((40, 8)).astype(np.float32),
            "labels": RANDOM.integers(0, 4, 40)}  # fmt: skip


def npz(named: Mapping[str, np.ndarray]) -> bytes:
    """An archive of arrays."""
    stream = io.BytesIO()
    np.savez(stream, **named)  # type: ignore[arg-type]
    return stream.getvalue()
