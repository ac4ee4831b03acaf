"""Laws that every quantizer obeys, whatever its format."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dse.numerics import QuantizerState, quantize
from hwmodels.formats.catalog import ENCODINGS, FORMATS, quantizer
from hwmodels.formats.numbers import borders, sorted_values
from tests.numerics.comparison import quantized

ELEMENTS = [
    "bf16", "fp16", "e4m3", "e5m2", "e4m3fnuz", "p3109_8p4", "e3m2", "e2m1", "ue5m3", "posit8_1",
    "takum8", "lns8_3", "nf4", "dynamic8", "ternary", "fixed8_4",
]  # fmt: skip
FIXED = ["int8", "int4", "int3_channel", "e4m3_token"]
SCALED = ["mxfp4", "mxfp8", "nvfp4", "int4_g32", "uint4_g64", "int8_channel", "nf4_g64"]
DETERMINISTIC = ["nearest_even", "nearest_away", "nearest_zero", "zero", "up", "down", "odd"]

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = arrays.arrays(np.float32, st.integers(1, 80), elements=floats)
moderate = arrays.arrays(np.float32, (4, 70), elements=st.floats(-100, 100, width=32))


@pytest.mark.parametrize("mode", DETERMINISTIC)
@pytest.mark.parametrize("name", ELEMENTS)
@settings(max_examples=8, deadline=None)
@given(x=vectors)
def test_quantizing_twice_is_quantizing_once(name, mode, x):
    once = quantized(x, f"{name}:{mode}")
    assert np.array_equal(quantized(once, f"{name}:{mode}"), once, equal_nan=True)


@pytest.mark.parametrize("name", FIXED)
@settings(max_examples=20, deadline=None)
@given(x=moderate, exponent=st.integers(-6, 3))
def test_idempotent_with_the_scale_fixed(name, x, exponent):
    state = QuantizerState(scales=torch.full((1, 1), 2.0**exponent))
    once = quantized(x, f"{name}:static", state=state)
    assert np.array_equal(quantized(once, f"{name}:static", state=state), once)


@pytest.mark.parametrize("mode", DETERMINISTIC)
@pytest.mark.parametrize("name", ELEMENTS)
@settings(max_examples=8, deadline=None)
@given(x=vectors)
def test_order_is_kept(name, mode, x):
    got = quantized(np.sort(x), f"{name}:{mode}")
    assert not (got[1:] < got[:-1]).any()


@pytest.mark.parametrize("name", ["e4m3", "e2m1", "posit8_1", "nf4", "lns8_3", "int8", "ternary"])
@settings(max_examples=20, deadline=None)
@given(x=vectors)
def test_down_is_below_and_up_is_above(name, x):
    encoding = ENCODINGS[name]
    x = np.clip(x, np.float32(encoding.min), np.float32(encoding.max))
    state = QuantizerState(scales=torch.ones(1, 1))
    assert (quantized(x, f"{name}:down", state=state) <= x).all()
    assert (quantized(x, f"{name}:up", state=state) >= x).all()
    assert (np.abs(quantized(x, f"{name}:zero", state=state)) <= np.abs(x)).all()


@pytest.mark.parametrize("name", ["e4m3", "e2m1", "nf4", "fixed8_4", "fp16"])
@settings(max_examples=20, deadline=None)
@given(x=vectors)
def test_error_is_at_most_half_a_step(name, x):
    values, middle = sorted_values(ENCODINGS[name]), borders(ENCODINGS[name])
    inside = x[(x >= values[0]) & (x <= values[-1])]
    index = np.clip(np.searchsorted(values, inside), 1, len(values) - 1)
    half = (values[index] - values[index - 1]) / 2
    error = np.abs(quantized(inside, name).astype(np.float64) - inside)
    assert (error <= half).all()
    assert len(middle) == len(values) - 1


@pytest.mark.parametrize("name", [n for n in ELEMENTS if ENCODINGS[n].has_negative_zero])
def test_the_sign_of_zero_is_kept(name):
    got = quantized(np.array([0.0, -0.0, -1e-45, 1e-45], np.float32), name)
    assert np.signbit(got).tolist() == [False, True, True, False]


@pytest.mark.parametrize("name", [n for n in ELEMENTS if not ENCODINGS[n].has_negative_zero])
def test_formats_without_negative_zero_have_none(name):
    got = quantized(np.array([0.0, -0.0], np.float32), name)
    assert not np.signbit(got).any()


@pytest.mark.parametrize("name", SCALED)
@settings(max_examples=10, deadline=None)
@given(x=moderate, power=st.integers(-20, 20))
def test_scaling_by_a_power_of_two_scales_the_result(name, x, power):
    """Where scales are powers of two or float32; others round, and their range is finite."""
    scale = FORMATS[name].scale
    assert scale is not None
    if scale.encoding.name not in ("fp32", "e8m0") or name == "nvfp4":
        power = 0
    factor = np.float32(2.0**power)
    x = np.where(np.abs(x) < 1e-3, 0, x).astype(np.float32)
    assert np.array_equal(quantized(x * factor, name), quantized(x, name) * factor)


@pytest.mark.parametrize("name", SCALED)
@settings(max_examples=10, deadline=None)
@given(x=moderate)
def test_the_largest_of_a_group_is_nearly_kept(name, x):
    got = quantized(x[:, :16], name)
    largest = np.abs(x[:, :16]).max(1)
    assert (np.abs(got).max(1) <= largest * 1.34 + 1e-6).all()
    assert (np.abs(got).max(1) >= largest * 0.74 - 1e-6).all()


@pytest.mark.parametrize("name", [*ELEMENTS, *SCALED])
def test_negation_commutes_for_symmetric_formats(name):
    element = quantizer(name).format.element
    if element.min != -element.max or element.kind == "codebook":
        return
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    plus = quantize(x, quantizer(name), axes=(1,))
    assert torch.equal(quantize(-x, quantizer(name), axes=(1,)), -plus)
