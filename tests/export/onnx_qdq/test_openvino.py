"""Modes of the runtime `openvino` beside the graphs that OpenVINO executes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwmodels.devices.load import load_device
from hwmodels.formats import catalog
from hwmodels.runtimes.legality import find_mode
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.work import OpKind

pytest.importorskip("openvino")

EXECUTED = """
import json, sys, openvino
core = openvino.Core()
model = core.compile_model(sys.argv[1], "CPU").get_runtime_model()
found = {}
for node in model.get_ops():
    told = node.get_rt_info()
    found[told["layerType"].astype(str)] = told["runtimePrecision"].astype(str)
has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
print(json.dumps([found, has_bf16]))
"""
PRODUCTS = {"conv2d": "Convolution", "gemm": "FullyConnected"}
STORED = {"int8": TensorProto.INT8, "int4": TensorProto.INT4, "e4m3": TensorProto.FLOAT8E4M3FN,
          "e2m1": TensorProto.FLOAT4E2M1}  # fmt: skip
SAID = {"int8": {"i8", "u8"}, "int4": {"i4"}, "e2m1": {"f4e2m1"}}
"""OpenVINO's words for stored weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A product with its formats."""

    kind: OpKind
    weight: str
    input: str | None
    groups: int = 1
    """Of a convolution; as many as it has channels: each has its own kernel."""

    def __str__(self) -> str:
        return f"{self.kind}-{self.groups}-{self.weight}-{self.input}"


CASES = [
    *(Case(kind="conv2d", weight=weight, input=activation)
      for weight in ("int8_channel", "int8", "int4_channel", "e4m3_tensor")
      for activation in (None, "int8:static", "uint8:static", "e4m3_tensor:static")),
    *(Case(kind="conv2d", weight="int8_channel", input=activation, groups=16)
      for activation in (None, "uint8:static")),
    *(Case(kind="gemm", weight=weight, input=activation)
      for weight in ("int8_channel", "int8_g32", "int4_channel", "int4_g32", "e4m3_channel",
                     "mxfp4")
      for activation in (None, "int8:static", "uint8:static")),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_mode_says_what_openvino_executes(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(_model(case), path)
    done = subprocess.run(
        [sys.executable, "-c", EXECUTED, str(path)], capture_output=True, text=True, check=True
    )
    found, has_bf16 = json.loads(done.stdout)
    executed = found[PRODUCTS[case.kind]]
    mode = _mode(case.kind, case.weight, case.input)
    if mode == "int8":
        assert executed in ("i8", "u8")
        return
    alone = _mode(case.kind, case.weight, None)
    if alone is None:
        assert executed in ("bf16", "f32")
    elif has_bf16:
        element = catalog.uniform(case.weight).format.element.name
        assert executed in SAID[element]


def test_convolutions_have_integers_and_no_lone_weights() -> None:
    assert _mode("conv2d", "int8_channel", "uint8:static") == "int8"
    assert _mode("conv2d", "int8_channel", None) is None
    assert _mode("conv2d", "int4_channel", "uint8:static") is None
    assert _mode("gemm", "nf4_g64", None) == "nf4_weights"


def _mode(kind: OpKind, weight: str, activation: str | None) -> str | None:
    asked = {"weight": catalog.uniform(weight)}
    if activation is not None:
        asked["input"] = catalog.uniform(activation)
    sizes = {"M": 8, "K": 256, "N": 128}
    device, runtime = load_device("xeon-8480"), load_runtime("openvino")
    found = find_mode(kind, asked, sizes, device, runtime).mode  # type: ignore[arg-type]
    return found.name if found else None


def _model(case: Case) -> onnx.ModelProto:
    """A product whose weight and input are dequantized codes."""
    conv = case.kind == "conv2d"
    shape = (32, 16 // case.groups, 3, 3) if conv else (256, 128)
    size = [1, 16, 8, 8] if conv else [8, 256]
    nodes, stored = _weight(case.weight, shape, channel=0 if conv else 1)
    value = "x"
    if case.input is not None:
        value = "xd"
        zero = helper.make_tensor("xz", _code(case.input), [], [0])
        stored += [numpy_helper.from_array(np.float32(0.02), "xs"), zero]
        nodes += [
            helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
            helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        ]
    product = (
        helper.make_node("Conv", [value, "wd"], ["y"], group=case.groups)
        if conv
        else helper.make_node("MatMul", [value, "wd"], ["y"])
    )
    graph = helper.make_graph(
        [*nodes, product], "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, size)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], stored,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)


def _code(name: str) -> int:
    if name.startswith("e4m3"):
        return int(TensorProto.FLOAT8E4M3FN)
    return int(TensorProto.UINT8 if name.startswith("u") else TensorProto.INT8)


def _weight(
    name: str, shape: tuple[int, ...], *, channel: int
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    format = catalog.uniform(name).format
    most = {"int8": 60, "int4": 7, "e4m3": 8, "e2m1": 4}[format.element.name]
    codes = np.random.default_rng(0).integers(-most, most + 1, shape).astype(np.float32)
    scales: tuple[int, ...] = ()
    attributes: dict[str, int] = {}
    if format.granularity == "channel":
        scales, attributes = (shape[channel],), {"axis": channel}
    elif format.granularity == "group":
        groups = shape[0] // format.group
        scales, attributes = (groups, shape[1]), {"axis": 0, "block_size": format.group}
    scale = numpy_helper.from_array(np.full(scales, 0.01, np.float32), "ws")
    stored = helper.make_tensor("wq", STORED[format.element.name], shape, codes.flatten())
    node = helper.make_node("DequantizeLinear", ["wq", "ws"], ["wd"], **attributes)
    return [node], [stored, scale]
