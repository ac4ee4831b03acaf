"""Every value of the axes that published low-precision systems need is data, and runs."""

from __future__ import annotations

import json

import pytest
import torch

from dse.numerics import QuantizerState, calibrated_state, quantize
from hwmodels.formats.catalog import quantizer
from hwmodels.formats.names import quantizer_object

ELEMENTS = {
    "float ieee": "e5m2", "float fn": "e4m3", "float none": "e2m1", "float any": "e3m3",
    "float16": "fp16", "bfloat16": "bf16", "tf32": "tf32", "int symmetric": "int4",
    "int affine": "uint4", "int2": "int2_channel", "fixed": "fixed8_4", "posit": "posit8_2",
    "nf4": "nf4_g64", "dynamic8": "dynamic8_g256", "udynamic8": "udynamic8_g256",
    "quantile": "quantile4@g64", "dynamic exponent": "dynexp4@g64",
    "bits kept of bf16": "e8m3:zero", "exponent masked": "e7m7:zero", "logarithmic": "lns8_3",
    "binary": "binary@channel", "ternary": "ternary@channel",
}  # fmt: skip
SCALES = {
    "tensor": "e4m3_tensor", "channel": "int8_channel", "token": "int8_token",
    "head": "int8@head", "group": "int4_g64", "block": "e4m3@b128x128",
    "two levels": "e2m1@g32/ue5m3+fp32", "zero points": "uint4@g64/fp16~uint4",
    "absmax": "int8:absmax", "minmax": "uint8:minmax", "mse": "int4_channel:mse",
    "output mse": "int4_channel:output_mse", "percentile": "int8:percentile99.9",
    "learned": "int2_channel:learned:static", "mean channel range": "int8:mean_channel_range",
    "dynamic": "int8", "delayed": "e4m3_tensor:delayed", "delayed by 32": "int8:delayed32",
    "static": "int8:static", "two stages": "e4m3_tensor:two_stage",
    "fp32": "int4@g64/fp32", "fp16": "int4@g64/fp16", "bf16": "int4@g64/bf16",
    "e8m0": "mxfp4", "e4m3": "nvfp4", "ue5m3": "e2m1@g16/ue5m3",
    "powers of two (M1)": "e2m1@g256/e8m0-rceil",
    "ratios of powers of two (M2)": "e2m1@g256/fp32-ratio32",
    "smallest factor of all": "e4m3@tensor/fp32-global_min",
}  # fmt: skip
ROUNDINGS = {
    "nearest even": "e4m3", "nearest away": "e4m3:nearest_away",
    "nearest zero": "e4m3:nearest_zero",
    "toward zero": "e4m3:zero", "up": "e4m3:up", "down": "e4m3:down", "odd": "e4m3:odd",
    "stochastic": "e4m3:stochastic", "stochastic of 8 bits": "e4m3:stochastic8",
    "stochastic, even odds": "e4m3:stochastic_equal", "random direction": "e4m3:random_directed",
    "double rounding": "int4_channel:requant8", "dropped bits": "int4_channel:requant_floor8",
}  # fmt: skip
TRANSFORMS = {
    "hadamard": "mxfp4:hadamard(32)", "random hadamard": "mxfp4:random_hadamard(32,7)",
    "power": "e4m3@g128:power(2)", "square root": "e4m3@g128:power(0.5)",
    "range expansion": "e4m3@g128:expand(128)", "outlier split": "int8_channel:outlier_split(1)",
    "low rank": "e2m1@g256/fp32-ratio32:low_rank(8)", "clamp": "int8_token:clamp(99.9)",
    "a chain": "mxfp4:clamp(99.9):hadamard(32)",
}  # fmt: skip
VALUES = [
    pytest.param(spec, id=f"{axis}: {what}")
    for axis, table in (
        ("element", ELEMENTS), ("scale", SCALES),
        ("rounding", ROUNDINGS), ("transform", TRANSFORMS),
    )
    for what, spec in table.items()
]  # fmt: skip


@pytest.mark.parametrize("spec", VALUES)
def test_an_axis_value_is_data_and_runs(spec):
    chosen = quantizer(spec)
    assert quantizer(json.loads(json.dumps(quantizer_object(chosen)))) == chosen
    assert quantizer(chosen.name) == chosen
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    state = None if chosen.is_dynamic else calibrated_state(x, chosen, axes=(1,))
    values = quantize(x, chosen, axes=(1,), state=state)
    assert values.shape == x.shape
    assert torch.cosine_similarity(values.flatten(), x.flatten(), dim=0) > 0.5


@pytest.mark.parametrize("word", ["gptq", "discquant"])
def test_learned_roundings_are_data_and_want_their_state(word):
    chosen = quantizer(f"int3_g32:{word}")
    assert quantizer(quantizer_object(chosen)) == chosen
    assert chosen.is_learned
    x = torch.randn(4, 64)
    with pytest.raises(ValueError, match="the rounding is learned, and needs a state"):
        quantize(x, chosen, axes=(1,))
    assert torch.equal(quantize(x, chosen, axes=(1,), state=QuantizerState(values=-x)), -x)


def test_a_random_direction_is_up_or_down_with_even_odds():
    """CADNA's rounding: E = the middle of the neighbours, wherever the value lies between them."""
    x = torch.full((200_000,), 1.01)
    values = quantize(x, quantizer("e4m3:random_directed"), axes=(0,), seed=3)
    assert set(values.unique().tolist()) == {1.0, 1.125}
    assert abs((values == 1.125).double().mean().item() - 0.5) < 4 * 0.5 / 200_000**0.5


def test_ratio_scales_are_the_largest_over_powers_of_two():
    """ZeroQuant-FP's M2, arXiv 2307.09782, among 32 rows; never below the scale asked for."""
    weight = torch.randn(64, 512, generator=torch.Generator().manual_seed(0))
    free, ratio = (
        calibrated_state(weight, quantizer(f"e2m1@g256/fp32{rule}"), axes=(1,)).scales
        for rule in ("", "-ratio32")
    )
    assert free is not None
    assert ratio is not None
    assert (ratio >= free).all()
    assert (ratio < 2 * free).all()
    for rows in ratio.split(32):
        exponents = torch.log2(rows.amax() / rows)
        assert torch.equal(exponents, exponents.round())


def test_range_expansion_lowers_the_error_of_adams_moments():
    """COAT, arXiv 2410.19313: E4M3 in groups of 128, half the squared error or less."""
    generator = torch.Generator().manual_seed(0)
    moment = torch.randn(64, 1024, generator=generator) * torch.exp(
        torch.randn(64, 1024, generator=generator)
    )
    plain, expanded = (
        (quantize(moment, quantizer(name), axes=(1,)) - moment).square().mean()
        for name in ("e4m3@g128", "e4m3@g128:expand(128)")
    )
    assert expanded < plain
    zeros = torch.zeros(2, 200)
    assert torch.equal(quantize(zeros, quantizer("e4m3@g128:expand(128)"), axes=(1,)), zeros)


def test_one_scale_of_several_workers_is_the_largest():
    """FP8-LM, arXiv 2310.18313: the smallest factor, so that the sum stays in one format."""
    chosen = quantizer("e4m3@tensor/fp32-global_min:static")
    workers = [torch.randn(100) * size for size in (1, 5, 2)]
    state = calibrated_state(workers, chosen, axes=(0,))
    largest = max(worker.abs().max().item() for worker in workers)
    assert state.scales is not None
    assert state.scales.item() == pytest.approx(largest / 448)


def test_mean_channel_range_is_the_mean_of_the_slices():
    x = torch.tensor([[1.0, -2.0], [0.5, 4.0]])
    state = calibrated_state(x, quantizer("int8:mean_channel_range:static"), axes=(1,))
    assert state.scales is not None
    assert state.scales.item() == pytest.approx((1 + 4) / 2 / 127)


def test_double_rounding_keeps_the_scale_of_the_wide_codes():
    """Codes of int8 taken to int4: values are multiples of 16 steps of the wide scale."""
    x = torch.linspace(-1.27, 1.27, 255)[None]
    values = quantize(x, quantizer("int4_channel:requant8"), axes=(1,))
    codes = values / (0.01 * 16)
    torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-5)
    assert codes.abs().max().round() == 7
    floor = quantize(x, quantizer("int4_channel:requant_floor8"), axes=(1,))
    assert (values - x).square().mean() < (floor - x).square().mean()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("e4m3_channel:requant8", "only scaled signed integers"),
        ("int4_channel:requant3", "from 3 bits, expected 5 to 16"),
    ],
)
def test_requantisation_that_cannot_be_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        quantize(torch.ones(2, 2), quantizer(spec), axes=(1,))
