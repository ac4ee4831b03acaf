"""Sums of a network's products in an accumulator, against sums one product after the other."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from dse.errors import AssignmentError
from dse.execute.accumulate import summations
from dse.execute.emulate import emulators
from dse.execute.program.program import Program
from dse.execute.weights.calibrate import observe
from dse.graph.ir.assignment import Assignment
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis
from hwmodels.formats.accumulator import accumulator
from hwmodels.formats.catalog import quantizer

HEADER = '<ir_version: 8, opset_import: ["" : 17]>\n'
LINEAR = (
    HEADER
    + """
linear (float[3, 40] x, float[40, 6] w) => (float[3, 6] y) { [product] y = MatMul(x, w) }
"""
)
GEMM = (
    HEADER
    + """
gemm (float[3, 40] x, float[6, 40] w, float[6] c) => (float[3, 6] y)
{ [product] y = Gemm <transB = 1, alpha = 0.5> (x, w, c) }
"""
)
CONV = (
    HEADER
    + """
conv (float[2, 4, 7, 6] x, float[6, 2, 3, 2] w, float[6] c) => (float[n, 6, h, v] y)
{ [product] y = Conv <group = 2, strides = [2, 1], dilations = [1, 2], pads = [1, 0, 0, 1]>
    (x, w, c) }
"""
)
PAIR = (
    HEADER
    + """
pair (float[2, 3, 4, 20] x, float[3, 20, 5] w) => (float[2, 3, 4, 5] y)
{ [product] y = MatMul(x, w) }
"""
)


def opened(folder: Path, text: str):
    path = folder / "model.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    graph = load(path)
    generator = torch.Generator().manual_seed(0)
    feeds = {
        name: torch.randn(
            [int(str(size)) for size in graph.types[name].shape or ()], generator=generator
        )
        for name in graph.inputs
    }
    return Program(graph), feeds


def bound(program, feeds, formats, name):
    """Emulators and sums of the one product, formats by input."""
    analysis = Analysis(program.graph)
    chosen = {f"product/{place}": quantizer(one) for place, one in formats.items()}
    calibration = observe(program, [feeds], [analysis.by_key[key] for key in chosen])
    at_sites = emulators(Assignment.of(chosen), analysis.by_key, calibration)
    sums, left = summations(program.graph.nodes, at_sites, accumulator(name))
    assert not left
    return at_sites, {**at_sites, **sums}


def codes(x, scale):
    return (x / scale).round()


def stopped(a, b, low, high):
    total = np.zeros((a.shape[0], b.shape[1]))
    for k in range(a.shape[1]):
        total = np.clip(total + np.multiply.outer(a[:, k], b[k]), low, high)
    return torch.tensor(total)


def halves(a, b):
    total = np.zeros((a.shape[0], b.shape[1]), np.float16)
    for k in range(a.shape[1]):
        total = (total.astype(np.float64) + np.multiply.outer(a[:, k], b[k])).astype(np.float16)
    return torch.tensor(total.astype(np.float64))


@pytest.mark.parametrize(("name", "added"), [
    ("int16:saturate", lambda a, b: stopped(a, b, -(2**15), 2**15 - 1)),
    ("int32", lambda a, b: torch.tensor(a @ b)),
    ("fp16", halves),
])  # fmt: skip
def test_codes_are_added_and_the_sum_is_scaled(tmp_path, name, added):
    """int8 with a scale a token and a scale a channel: what an integer product does."""
    program, feeds = opened(tmp_path, LINEAR)
    _, sums = bound(program, feeds, {"in0": "int8_token", "in1": "int8_channel"}, name)
    found = program.run(feeds, sums).outputs["y"]
    scale_x = feeds["x"].abs().amax(1, keepdim=True) / 127
    scale_w = feeds["w"].abs().amax(0, keepdim=True) / 127
    x, w = codes(feeds["x"], scale_x), codes(feeds["w"], scale_w)
    expected = added(x.double().numpy(), w.double().numpy()) * (scale_x * scale_w).double()
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-9)


def test_a_wide_accumulator_changes_nothing_but_the_order(tmp_path):
    for text, places in ((LINEAR, ("in0", "in1")), (GEMM, ("in0", "in1")), (CONV, ("in0", "in1")),
                         (PAIR, ("in0", "in1"))):  # fmt: skip
        program, feeds = opened(tmp_path, text)
        for one, name in itertools.product(("int8:static", "e4m3_tensor"), ("int32", "fp32")):
            if one.startswith("e4m3") and name == "int32":
                continue
            plain, sums = bound(program, feeds, dict.fromkeys(places, one), name)
            expected = program.run(feeds, plain).outputs["y"]
            found = program.run(feeds, sums).outputs["y"]
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_narrow_one_does(tmp_path):
    for text in (LINEAR, GEMM, CONV, PAIR):
        program, feeds = opened(tmp_path, text)
        plain, sums = bound(program, feeds, dict.fromkeys(("in0", "in1"), "int8:static"), "e5m3")
        expected = program.run(feeds, plain).outputs["y"]
        found = program.run(feeds, sums).outputs["y"]
        error = (found - expected).norm() / expected.norm()
        assert 0.005 < error < 0.5


def test_elements_of_floats_are_added_without_their_scale(tmp_path):
    """e4m3 with a scale: fp16 would overflow in codes of up to 448 and not in their values."""
    program, feeds = opened(tmp_path, LINEAR)
    feeds = {"x": torch.ones(3, 40), "w": torch.ones(40, 6)}
    formats = {"in0": "e4m3_tensor", "in1": "e4m3_tensor"}
    _, sums = bound(program, feeds, formats, "fp16")
    assert program.run(feeds, sums).outputs["y"].isinf().all()  # 448 * 448 > 65504
    _, sums = bound(program, feeds, formats, "bf16")
    assert torch.allclose(program.run(feeds, sums).outputs["y"], torch.tensor(40.0), rtol=0.05)


def test_block_scales_are_added_as_values(tmp_path):
    program, feeds = opened(tmp_path, LINEAR)
    plain, sums = bound(program, feeds, {"in0": "mxfp4", "in1": "mxfp4"}, "fp16:chunk32")
    x, w = plain["product/in0"](feeds["x"]), plain["product/in1"](feeds["w"])
    first = (x[:, :32].double() @ w[:32].double()).half()
    expected = (first.double() + x[:, 32:].double() @ w[32:].double()).half().float()
    assert torch.equal(program.run(feeds, sums).outputs["y"], expected)


def test_static_scales_are_the_calibrated_ones(tmp_path):
    """Codes of inputs smaller than calibration saw are small, and do not stop."""
    program, feeds = opened(tmp_path, LINEAR)
    plain, sums = bound(program, feeds, {"in0": "int8:static", "in1": "int8"}, "int16:saturate")
    small = {"x": feeds["x"] / 1000, "w": feeds["w"]}
    found = program.run(small, sums).outputs["y"]
    expected = program.run(small, plain).outputs["y"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_zero_points_are_subtracted_before(tmp_path):
    program, feeds = opened(tmp_path, LINEAR)
    feeds = {"x": feeds["x"] + 2, "w": feeds["w"]}
    plain, sums = bound(program, feeds, {"in0": "uint8", "in1": "int8"}, "int24:saturate")
    found = program.run(feeds, sums).outputs["y"]
    torch.testing.assert_close(found, program.run(feeds, plain).outputs["y"], rtol=1e-4, atol=1e-4)


def test_what_cannot_take_an_accumulator_is_named(tmp_path):
    program, feeds = opened(tmp_path, LINEAR)
    for formats, said in (
        ({"in0": "e4m3_token", "in1": "int8"}, "both operands are integers"),
        ({"in0": "int8", "in1": "int4_g32"}, "block scales"),
        ({"in0": "int8"}, "both operands are integers"),
    ):
        with pytest.raises(AssignmentError, match=f"int16: no product can take it.*{said}"):
            bound(program, feeds, formats, "int16")
    with pytest.raises(AssignmentError, match="quire"):
        bound(program, feeds, {"in0": "int8", "in1": "int8"}, "quire")
    with pytest.raises(AssignmentError, match="no products"):
        summations([], {}, accumulator("fp16"))


def test_a_rerun_starts_where_an_accumulator_stands(tmp_path):
    text = (
        HEADER
        + """
    two (float[3, 20] x, float[20, 20] w) => (float[3, 20] y)
    { [first] h = MatMul(x, w)
      [second] y = MatMul(h, w) }
    """
    )
    program, feeds = opened(tmp_path, text)
    key = Analysis(program.graph).by_key
    at_sites = emulators(
        Assignment.of({f"{n}/{p}": quantizer("int8") for n in ("first", "second")
                       for p in ("in0", "in1")}), key, observe(program, [feeds], []))  # fmt: skip
    sums, _ = summations(program.graph.nodes, at_sites, accumulator("fp16"))
    trace = program.trace(feeds, at_sites)
    found = program.rerun(trace, {**at_sites, **sums}).outputs["y"]
    assert torch.equal(found, program.run(feeds, {**at_sites, **sums}).outputs["y"])
    assert not torch.equal(found, trace.execution.outputs["y"])
    only = {**at_sites, "second/sum": sums["second/sum"]}
    assert torch.equal(
        program.rerun(trace, only).outputs["y"], program.run(feeds, only).outputs["y"]
    )
