"""Scaled formats against torchao's own output, ONNX Runtime, and sums by hand."""

from __future__ import annotations

import dataclasses
import pathlib

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from dse.numerics import QuantizerState, calibrated_state, output_range, quantize
from hwmodels.formats.catalog import FORMATS, quantizer
from tests.numerics.comparison import mismatches, quantized

TORCHAO = np.load(pathlib.Path(__file__).parent / "data" / "torchao_0_18.npz")
RULES = ("floor", "ceil", "even", "rceil")


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(4).standard_normal((24, 96)).astype(np.float32) * 3


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("element", ["e4m3", "e5m2", "e2m3", "e3m2", "e2m1"])
def test_mx_scale_rules_are_those_of_torchao(element, rule):
    got = quantized(TORCHAO["x"], f"{element}@g32/e8m0-{rule}")
    assert np.array_equal(got, TORCHAO[f"{element}-{rule}"])


def test_named_mx_formats_use_the_floor_rule():
    got = quantized(TORCHAO["x"], "mxfp4")
    assert np.array_equal(got, TORCHAO["e2m1-floor"])


@pytest.mark.parametrize(("name", "source"), [("nvfp4", "x"), ("nvfp4_gauss", "gauss")])
def test_nvfp4_is_that_of_torchao(name, source):
    """Where no block scale is below 2^-6: torchao lets none be (`E4M3_EPS`), kernels do."""
    ours = quantizer("nvfp4")
    assert ours.format.scale is not None
    scale = dataclasses.replace(ours.format.scale, minimum=2.0**-6)
    theirs = ours.replaced(format=dataclasses.replace(ours.format, scale=scale))
    found = quantize(torch.from_numpy(TORCHAO[source]), theirs, axes=(-1,))
    assert np.array_equal(found.numpy(), TORCHAO[name])


def test_mxint8_is_ocp_fixed_point(x):
    """Section 5.3.4: two's complement times 2^-6, scale 2^(floor(log2 absmax) - 0)."""
    blocks = x.reshape(24, 3, 32).astype(np.float64)
    scale = np.exp2(np.floor(np.log2(np.abs(blocks).max(-1, keepdims=True))))
    codes = np.clip(np.rint(blocks / scale * 64), -127, 127)
    expected = (codes / 64 * scale).astype(np.float32).reshape(x.shape)
    assert np.array_equal(quantized(x, "mxint8"), expected)


def _round_trip(x, scale, zero_point, element, *, axis=0, block=0):
    """QuantizeLinear then DequantizeLinear in ONNX Runtime."""
    attributes = {"axis": axis, "block_size": block} if scale.ndim else {}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **attributes),
    ]
    point = helper.make_tensor(
        "z", element, scale.shape, np.broadcast_to(zero_point, scale.shape).ravel().tolist()
    )
    graph = helper.make_graph(
        nodes,
        "qdq",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
        [onnx.numpy_helper.from_array(scale.astype(np.float32), "s"), point],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {"x": x})[0]


def _absmax_scale(x, largest, axis, block=0):
    if block:
        x = x.reshape(x.shape[0], -1, block)
    return (np.abs(x).max(axis) / np.float32(largest)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "element", "largest"),
    [("int8", TensorProto.INT8, 127), ("e4m3_tensor", TensorProto.FLOAT8E4M3FN, 448)],
)
def test_per_tensor_is_onnx_quantize_linear(x, name, element, largest):
    scale = _absmax_scale(x, largest, None)
    assert np.array_equal(quantized(x, name), _round_trip(x, scale, 0, element))


@pytest.mark.parametrize(
    ("name", "element", "largest"),
    [
        ("int8_channel", TensorProto.INT8, 127),
        ("int4_channel", TensorProto.INT4, 7),
        ("e4m3_channel", TensorProto.FLOAT8E4M3FN, 448),
        ("e5m2_token", TensorProto.FLOAT8E5M2, 57344),
    ],
)
def test_per_channel_is_onnx_quantize_linear(x, name, element, largest):
    scale = _absmax_scale(x, largest, 1)
    assert np.array_equal(quantized(x, name), _round_trip(x, scale, 0, element))


@pytest.mark.parametrize(
    ("name", "element", "largest"),
    [
        ("int8@g32", TensorProto.INT8, 127),
        ("int4@g32", TensorProto.INT4, 7),
        ("e4m3@g32", TensorProto.FLOAT8E4M3FN, 448),
    ],
)
def test_groups_are_onnx_blocks(x, name, element, largest):
    scale = _absmax_scale(x, largest, 2, block=32)
    expected = _round_trip(x, scale, 0, element, axis=1, block=32)
    assert np.array_equal(quantized(x, name), expected)


def test_a_static_integer_uses_its_scale_and_zero_point(x):
    state = QuantizerState(scales=torch.tensor([[0.05]]), zero_points=torch.tensor([[100.0]]))
    got = quantized(x, "uint8:static", state=state)
    scale = np.array(0.05, np.float32)
    assert np.array_equal(got, _round_trip(x, scale, 100, TensorProto.UINT8))


def test_dynamic_affine_is_onnx_dynamic_quantize_linear(x):
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])
    back = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"])
    graph = helper.make_graph(
        [node, back],
        "dynamic",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    assert np.array_equal(quantized(x + 1, "uint8"), session.run(None, {"x": x + 1})[0])


def test_int4_group_scales_are_fp16(x):
    blocks = x.reshape(24, 3, 32)
    scale = (np.abs(blocks).max(-1, keepdims=True) / np.float32(7)).astype(np.float16)
    scale = scale.astype(np.float32)
    expected = np.clip(np.rint(blocks / scale), -7, 7) * scale
    assert mismatches(quantized(x, "int4_g32"), expected.reshape(x.shape) + np.float32(0)) == 0


def test_ue5m3_scales_are_rounded_by_ml_dtypes_rules(x):
    """UE5M3 below 57,344 is E5M3, whose values ml_dtypes reaches through a doubled E4M3."""
    got = quantized(x, "e2m1@g16/ue5m3")
    blocks = x.reshape(24, 6, 16)
    wanted = np.abs(blocks).max(-1, keepdims=True) / np.float32(6)
    scale = wanted.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)  # 2^-6 < all < 448
    assert wanted.min() > 2.0**-6
    codes = np.clip(blocks / scale, -6, 6).astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
    assert np.array_equal(got, (codes * scale).reshape(x.shape))


def test_tiles_share_a_scale():
    x = np.random.default_rng(5).standard_normal((5, 7)).astype(np.float32)
    got = quantized(x, "int8@b2x3")
    for rows in (slice(0, 2), slice(2, 4), slice(4, 6)):
        for columns in (slice(0, 3), slice(3, 6), slice(6, 9)):
            tile = x[rows, columns]
            scale = np.abs(tile).max() / np.float32(127)
            expected = np.clip(np.rint(tile / scale), -127, 127) * scale
            assert np.array_equal(got[rows, columns], expected.astype(np.float32))


def test_ratio_rule_leaves_powers_of_two_between_scales():
    x = np.random.default_rng(6).standard_normal((8, 64)).astype(np.float32)
    x *= np.exp2(np.arange(8, dtype=np.float32))[:, None] / 3
    state = calibrated_state(torch.from_numpy(x), quantizer("e2m1@g32/fp32-ratio"), axes=(1,))
    exact = calibrated_state(torch.from_numpy(x), quantizer("e2m1@g32/fp32"), axes=(1,))
    assert state.scales is not None
    assert exact.scales is not None
    ratio = np.log2((state.scales.max() / state.scales).numpy())
    assert np.array_equal(ratio, np.round(ratio))
    assert (state.scales >= exact.scales).all()
    assert (state.scales < 2 * exact.scales).all()


def test_mse_clipping_never_loses_to_absmax():
    x = np.random.default_rng(7).standard_t(4, (16, 256)).astype(np.float32)
    for name in ("int4_channel", "int3_g64", "uint4_channel", "mxfp4", "int4"):
        plain = np.square(quantized(x, name) - x, dtype=np.float64).sum()
        searched = np.square(quantized(x, f"{name}:mse") - x, dtype=np.float64).sum()
        assert searched <= plain * (1 + 1e-6)
    assert searched < 0.8 * plain


@pytest.mark.parametrize("statistic", ["mse", "output_mse"])
def test_a_searched_range_of_e2m1_maps_its_largest_to_4_where_that_errs_less(statistic):
    """Eight 6 and eight 5: under 6 the error is 8, clipped 4 at the least, under 4 it is 8 / 4."""
    weight = torch.tensor([[6.0] * 8 + [5.0] * 8])
    chosen = quantizer(f"e2m1@g16/fp32:{statistic}")
    state = output_range(weight, torch.eye(16), chosen) if statistic == "output_mse" else None
    found = quantize(weight, chosen, axes=(1,), state=state)
    assert found.tolist() == [[6.0] * 8 + [4.5] * 8]


@pytest.mark.parametrize("statistic", ["mse", "output_mse"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_searched_range_of_every_code_reaches_both_ends(statistic, bits):
    highest = 2 ** (bits - 1) - 1
    rows = np.array([[-highest, *[highest] * 6, 0], [-highest - 1, *[highest] * 6, 0]], np.float32)
    weight, chosen = torch.from_numpy(rows), quantizer(f"int{bits}a@channel/fp32:{statistic}")
    state = output_range(weight, torch.eye(8), chosen) if statistic == "output_mse" else None
    assert torch.allclose(quantize(weight, chosen, axes=(1,), state=state), weight, rtol=1e-6)


def test_percentile_is_an_order_statistic():
    x = np.arange(1, 101, dtype=np.float32)
    state = calibrated_state(torch.from_numpy(x), quantizer("int8:percentile90.0:static"), axes=())
    assert state.scales is not None
    assert state.scales.item() == np.float32(90) / np.float32(127)


def test_published_sqnr_of_block_formats():
    """The case for 4-bit precision (arXiv 2212.09720): orders on Student-t(5) weights."""
    x = np.random.default_rng(0).standard_t(5, (256, 1024)).astype(np.float32)

    def sqnr(name):
        error = np.square(quantized(x, name) - x, dtype=np.float64).sum()
        return 10 * np.log10(np.square(x, dtype=np.float64).sum() / error)

    for group, int4, nf4 in ((64, 16.7, 19.6), (256, 13.9, 17.4), (1024, 11.2, 15.1)):
        assert sqnr(f"int4@g{group}/fp16") == pytest.approx(int4, abs=0.3)
        assert sqnr(f"nf4@g{group}/fp16") == pytest.approx(nf4, abs=0.3)
        assert sqnr(f"quantile4@g{group}/fp16") > sqnr(f"int4@g{group}/fp16")


PER_TENSOR = [n for n, f in FORMATS.items() if f.granularity == "tensor" and f.scale]


@pytest.mark.parametrize("name", PER_TENSOR)
def test_static_on_its_own_tensor_is_dynamic(name, x):
    values = torch.from_numpy(x)
    state = calibrated_state(values, quantizer(f"{name}:static"), axes=(1,))
    static = quantize(values, quantizer(f"{name}:static"), axes=(1,), state=state)
    assert torch.equal(static, quantize(values, quantizer(name), axes=(1,)))
