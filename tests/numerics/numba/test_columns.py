"""Groups that lie apart in memory, and results written over their inputs: the same bits."""

from __future__ import annotations

import pytest
import torch

from dse.numerics import QuantizerState, calibrated_state, quantize
from dse.numerics.grids.layout import layout_of
from dse.numerics.on_device import quantize_on_device
from hwmodels.formats.catalog import quantizer
from tests.numerics.comparison import mismatches

STRIDED = ("e4m3_token", "int8_token", "mxfp8", "mxfp4", "mxint8", "nvfp4", "int4_g32", "e2m1@g7")

OTHERS = (
    "bf16", "e4m3", "e4m3:zero", "e4m3:stochastic", "int4_g32:up", "posit8_1", "posit16_1",
    "nf4_g64", "int8_channel", "uint4_g32",
)  # fmt: skip
"""At least one for each kernel that writes results over values."""


@pytest.fixture(scope="module")
def features():
    """(2, 70, 9, 37): groups, columns and tiles that all end early, and bad values."""
    x = torch.randn(2, 70, 9, 37, generator=torch.Generator().manual_seed(0)) * 3
    x[0, :, 0, 0], x[0, 3, 1, 1], x[1, 5, 2, 2], x[1, 64, 3, 3] = 0, torch.nan, torch.inf, -1e-42
    return x


@pytest.mark.parametrize("name", STRIDED)
def test_channels_of_a_feature_map_agree_with_torch(name, features):
    chosen = quantizer(name)
    layout = layout_of(features, (1,))
    expected = quantize_on_device(features, chosen, layout, QuantizerState(), out=None, seed=0)
    got = quantize(features, chosen, axes=(1,))
    assert mismatches(got.numpy(), expected.contiguous().numpy()) == 0


@pytest.mark.parametrize("axes", [(1,), (3,)])
@pytest.mark.parametrize("name", [*STRIDED, *OTHERS])
def test_in_place_is_the_same(name, axes, features):
    expected = quantize(features, quantizer(name), axes=axes)
    again = features.clone()
    assert quantize(again, quantizer(name), axes=axes, out=again) is again
    assert mismatches(again.numpy(), expected.numpy()) == 0


def test_static_scales_in_place_are_the_same(features):
    chosen = quantizer("int8:static")
    finite = torch.nan_to_num(features, posinf=3.0)
    state = calibrated_state(finite, chosen, axes=(1,))
    expected = quantize(finite, chosen, axes=(1,), state=state)
    assert torch.equal(quantize(finite, chosen, axes=(1,), state=state, out=finite), expected)
