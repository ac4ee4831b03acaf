"""The compiled and the torch path, every layout and every dtype give the same bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dse.numerics import QuantizerState, calibrated_state, quantize
from dse.numerics.grids.defaults import kernel_quantizer
from dse.numerics.grids.layout import layout_of
from dse.numerics.on_device import quantize_on_device
from hwmodels.formats.catalog import FORMATS, quantizer
from tests.numerics.comparison import mismatches

MODES = ("nearest_even", "zero", "up", "odd", "stochastic", "stochastic8", "stochastic_equal")
NAMES = [
    "bf16", "tf32", "e4m3", "e2m1", "e8m3", "ue5m3", "fixed8_4", "posit8_1", "posit16_1", "nf4",
    "takum16", "e4m3_tensor", "int8", "int8_channel", "e4m3_token", "int4_g32", "uint4_g32",
    "uint8", "uint8_channel", "mxfp8", "mxfp4", "mxint8", "nvfp4", "nf4_g64", "int6@g7/fp32-ratio",
    "e2m1@g16/ue5m3+fp32", "e2m1@g32/e8m0-nearest", "e4m3@b8x16",
]  # fmt: skip
CHANNELS = "uint4@channel/fp16-fitted~~fp16"
FITTED = [
    "q4_0", "q4_1", "q4_k", "iq4_nl", "uint3@g24/fp16-fitted~~fp16", "nf4@g32/fp16-fitted~~fp16",
    CHANNELS, "uint4@tensor/fp16-fitted~~fp16",
]  # fmt: skip


@pytest.fixture(scope="module")
def x():
    x = torch.randn(11, 100, generator=torch.Generator().manual_seed(0)) * 3
    x[3], x[5, 7], x[6, 40:80] = 0, -0.0, 1e-42
    return x


def _by_torch(x, quantizer, axes, seed):
    layout = layout_of(x, axes, logical=quantizer.rounding.startswith("stochastic"))
    quantizer = kernel_quantizer(quantizer)
    return quantize_on_device(x, quantizer, layout, QuantizerState(), out=None, seed=seed)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_torch_and_compiled_agree(name, mode, x):
    chosen = quantizer(f"{name}:{mode}")
    for values in (x, x.t()):
        for axes in ((1,), (0,), (0, 1)):
            got = quantize(values, chosen, axes=axes, seed=3)
            expected = _by_torch(values, chosen, axes, 3)
            assert mismatches(got.contiguous().numpy(), expected.contiguous().numpy()) == 0


@pytest.mark.parametrize("mode", ["nearest_even", "stochastic8"])
@pytest.mark.parametrize("name", FITTED)
def test_torch_and_compiled_agree_where_scales_are_fitted(name, mode, x):
    test_torch_and_compiled_agree(name, mode, x)


@pytest.mark.parametrize(
    "name",
    [
        "bf16", "e4m3", "posit8_1", "int8", "mxfp4", "nvfp4", "e4m3:stochastic",
        "mxfp4:stochastic", "q5_1",
        *(f"e2m1@g32/e8m0-{rule}" for rule in ("ceil", "even", "rceil")),
    ],
)  # fmt: skip
def test_torch_and_compiled_agree_on_all_bit_patterns(name, fewer_patterns):
    values = torch.from_numpy(fewer_patterns).reshape(-1, 64)
    got = quantize(values, quantizer(name), axes=(1,))
    assert mismatches(got.numpy(), _by_torch(values, quantizer(name), (1,), 0).numpy()) == 0


@pytest.mark.parametrize("axes", [(0,), (1,)])
@pytest.mark.parametrize("name", ["q5_0", "q5_1", "q4_k", "iq4_nl", CHANNELS])
def test_torch_and_compiled_agree_on_given_scales_and_offsets(name, axes, fewer_patterns):
    """Zeros, infinities and NaN among them, and offsets of zeros of both signs."""
    values = torch.from_numpy(fewer_patterns[:48000]).reshape(160, 300)
    generator = torch.Generator().manual_seed(4)
    plain = torch.randn(160, 300, generator=generator)
    chosen = quantizer(f"{name}:mse")
    state = calibrated_state(plain, chosen, axes=axes)
    special = torch.tensor([0.0, -0.0, torch.inf, torch.nan, -1.0])

    def among(part):
        if part is None:
            return None
        drawn = torch.randint(0, 40, part.shape, generator=generator)
        return torch.where(drawn < len(special), special[drawn.clamp(max=4)], part)

    state = replace(state, scales=among(state.scales), offsets=among(state.offsets))
    assert state.scales is not None
    one = QuantizerState(
        scales=state.scales[:1, :1], offsets=None if state.offsets is None else state.offsets[:1]
    )
    for x in (values, values * 1e-3, plain):
        for given in (state, one):
            got = quantize(x, chosen, axes=axes, state=given)
            layout = layout_of(x, axes)
            kernels = kernel_quantizer(chosen)
            expected = quantize_on_device(x, kernels, layout, given, out=None, seed=0)
            assert mismatches(got.contiguous().numpy(), expected.contiguous().numpy()) == 0


def _plainly(x, name, axes):
    """Contraction axes moved last and copied; moved back afterwards."""
    axes = sorted(axis % x.dim() for axis in axes)
    kept = [axis for axis in range(x.dim()) if axis not in axes]
    moved = x.permute(*kept, *axes).contiguous()
    flat = moved.reshape(*moved.shape[: len(kept)], -1)
    result = quantize(flat, quantizer(name), axes=(-1,)).reshape(moved.shape)
    inverse = [(*kept, *axes).index(axis) for axis in range(x.dim())]
    return result.permute(inverse)


@pytest.mark.parametrize("name", ["int8_channel", "int4_g32", "mxfp4", "nvfp4", "e4m3_tensor"])
@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (3,), (1, 2, 3), (0, 2), (0, 3), (2, 3)])
def test_any_contraction_axes_and_strides(name, axes):
    x = torch.randn(5, 6, 7, 34, generator=torch.Generator().manual_seed(1))
    for values in (x, x.to(memory_format=torch.channels_last), x[:, ::2], x.transpose(1, 3)):
        expected = _plainly(values, name, axes)
        assert torch.equal(quantize(values, quantizer(name), axes=axes), expected)


@pytest.mark.parametrize("name", ["e4m3", "int8_channel", "mxfp4", "int8"])
def test_out_is_written_whatever_its_strides(name, x):
    expected = quantize(x, quantizer(name), axes=(1,))
    for out in (torch.empty(11, 100), torch.empty(100, 11).t(), torch.empty(11, 200)[:, ::2]):
        assert quantize(x, quantizer(name), axes=(1,), out=out) is out
        assert torch.equal(out, expected)
    again = x.clone()
    quantize(again, quantizer(name), axes=(1,), out=again)
    assert torch.equal(again, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["e4m3", "int8_channel", "mxfp4", "nvfp4"])
def test_narrow_dtypes_are_rounded_once_more(name, dtype, x):
    narrow = x.to(dtype)
    got = quantize(narrow, quantizer(name), axes=(1,))
    assert got.dtype == dtype
    assert torch.equal(got, quantize(narrow.float(), quantizer(name), axes=(1,)).to(dtype))


def test_threads_do_not_change_results():
    x = torch.randn(700, 1031, generator=torch.Generator().manual_seed(2))
    before = torch.get_num_threads()
    names = ("e4m3", "int8", "nvfp4", "mxfp4:stochastic", "int4_g128")
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append([quantize(x, quantizer(n), axes=(0,), seed=9) for n in names])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


@pytest.mark.parametrize("name", FORMATS)
def test_every_catalogue_format_runs_and_keeps_what_is_on_its_grid(name):
    x = torch.tensor([[-1.0, 0.0, 1.0, 0.5], [0.25, 2.0, -0.5, 1.5]])
    chosen = quantizer(name)
    got = quantize(x, chosen, axes=(1,))
    assert got.shape == x.shape
    assert torch.isfinite(got).all()
    if chosen.format.scale is None and chosen.format.element.kind == "float":
        representable = np.abs(x.numpy()) <= chosen.format.element.max
        assert representable.any()
