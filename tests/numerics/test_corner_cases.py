"""Bad values have a documented result or a clear error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from dse.errors import DseError
from dse.numerics import QuantizerState, calibrated_state, quantize
from dse.numerics.grids.defaults import kernel_quantizer
from dse.numerics.grids.layout import layout_of
from dse.numerics.on_device import quantize_on_device
from hwmodels.formats.catalog import quantizer
from tests.numerics.comparison import quantized

SCALED = [
    "int8",
    "e4m3_token",
    "mxfp4",
    "nvfp4",
    "int4_g32",
    "uint8_channel",
    "nf4_g64",
    "mxfp8:mse",
]


@pytest.mark.parametrize("name", [*SCALED, "e4m3", "posit8_1"])
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 4, 5)])
def test_an_empty_tensor_comes_back_empty(name, shape):
    assert quantize(torch.empty(shape), quantizer(name), axes=(-1,)).shape == shape


@pytest.mark.parametrize("name", SCALED)
def test_a_scalar_is_a_group_of_one(name):
    got = quantize(torch.tensor(3.0), quantizer(name), axes=())
    assert got.shape == ()
    assert got.item() == pytest.approx(3.0, rel=0.01)


@pytest.mark.parametrize("name", SCALED)
def test_zero_blocks_stay_zero(name):
    x = np.zeros((2, 64), np.float32)
    x[1, 40] = 5
    got = quantized(x, name)
    assert np.array_equal(got[0], x[0])
    assert np.isfinite(got).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["e4m3_token", "mxfp4", "int4_g32", "int8_channel", "nf4_g64"])
def test_a_group_with_nan_or_inf_is_nan_and_others_are_not(name, bad):
    x = np.ones((2, 64), np.float32)
    x[1, 3] = bad
    got = quantized(x, name)
    assert np.isfinite(got[0]).all()
    assert np.isnan(got[1, :32]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("path", ["compiled", "torch"])
def test_rows_without_a_value_leave_the_second_level_to_the_others(bad, path):
    """Padding that is NaN costs its own blocks; the rest is rounded as without it."""
    x = np.random.default_rng(0).standard_normal((6, 64)).astype(np.float32)
    spoilt = x.copy()
    spoilt[2] = bad
    spoilt[4, 3] = bad
    kept = np.ones(x.shape, bool)
    kept[2], kept[4, :16] = False, False
    clean = np.where(kept, x, 0).astype(np.float32)
    got: Any
    expected: Any
    if path == "compiled":
        got, expected = quantized(spoilt, "nvfp4"), quantized(clean, "nvfp4")
    else:
        chosen, layout = kernel_quantizer(quantizer("nvfp4")), layout_of(torch.from_numpy(x), (1,))
        got, expected = (
            quantize_on_device(
                torch.from_numpy(one), chosen, layout, QuantizerState(), out=None, seed=0
            )
            for one in (spoilt, clean)
        )
    assert np.isnan(np.asarray(got)[~kept]).all()
    assert np.array_equal(np.asarray(got)[kept], np.asarray(expected)[kept])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["int8", "e4m3_tensor", "uint8", "posit8_1", "int4:mse"])
@pytest.mark.parametrize("path", ["compiled", "torch"])
def test_the_scale_of_a_tensor_is_that_of_its_numbers(name, bad, path):
    x = np.random.default_rng(0).standard_normal((6, 64)).astype(np.float32)
    spoilt, kept = x.copy(), np.ones(x.shape, bool)
    spoilt[2], kept[2] = bad, False
    clean = np.where(kept, x, 0).astype(np.float32)
    chosen, layout = kernel_quantizer(quantizer(name)), layout_of(torch.from_numpy(x), (1,))
    got, expected = (
        quantized(one, name)
        if path == "compiled"
        else quantize_on_device(
            torch.from_numpy(one), chosen, layout, QuantizerState(), out=None, seed=0
        ).numpy()
        for one in (spoilt, clean)
    )
    assert np.array_equal(got[kept], expected[kept])
    # Posits have no infinity: it is not a real.
    assert np.isnan(got[2]).all() == (np.isnan(bad) or name.startswith("posit"))


def test_static_scales_saturate_infinities_and_keep_nan():
    state = QuantizerState(scales=torch.full((1, 1), 0.5))
    got = quantized(
        np.array([np.inf, -np.inf, np.nan, 1e9], np.float32), "int8:static", state=state
    )
    assert got[[0, 1, 3]].tolist() == [63.5, -63.5, 63.5]
    assert math.isnan(got[2])


@pytest.mark.parametrize("depth", [1, 31, 33, 100])
@pytest.mark.parametrize("name", ["mxfp4", "int4_g32", "nf4_g64"])
def test_short_and_oversized_groups_are_groups_of_their_own(name, depth):
    x = np.random.default_rng(depth).standard_normal((3, depth)).astype(np.float32)
    group = quantizer(name).format.group
    pieces = [quantized(x[:, i : i + group], name) for i in range(0, depth, group)]
    assert np.array_equal(quantized(x, name), np.concatenate(pieces, axis=1))


def test_subnormal_scales_flush_to_zero_or_work():
    x = np.array([[1e-45, -2e-45, 0.0, 3e-45]], np.float32)
    assert np.isfinite(quantized(x, "int8_channel")).all()
    assert np.isfinite(quantized(x, "mxfp4")).all()


@pytest.mark.parametrize("name", ["e2m1@g16/e4m3", "int4_g32"])
def test_a_scale_that_underflows_leaves_zeros(name):
    """E4M3 block scales without a tensor scale flush small gradients (arXiv 2509.17791)."""
    x = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32) * np.float32(1e-9)
    assert not quantized(x, name).any()


def test_static_without_state_is_refused():
    with pytest.raises(DseError, match="int8:static: static scales need a state"):
        quantized(np.ones(4, np.float32), "int8:static")


def test_a_state_of_another_shape_is_refused():
    state = calibrated_state(torch.ones(4, 64), quantizer("int4_g32:static"), axes=(1,))
    with pytest.raises(DseError, match=r"scales \(4, 2\), the tensor needs \(5, 2\)"):
        quantized(np.ones((5, 64), np.float32), "int4_g32:static", state=state)


def test_integer_tensors_are_refused():
    with pytest.raises(DseError, match=r"expected float32, bfloat16 or float16, got torch\.int64"):
        quantize(torch.arange(4), quantizer("int8"), axes=())


def test_out_of_another_shape_is_refused():
    with pytest.raises(DseError, match=r"out must be \(4,\)"):
        quantize(torch.ones(4), quantizer("e4m3"), axes=(), out=torch.ones(5))


def test_calibrating_on_nothing_is_refused():
    with pytest.raises(DseError, match="no values to calibrate on"):
        calibrated_state([], quantizer("int8:static"), axes=())
