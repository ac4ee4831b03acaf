"""Learned rounding beats rounding to nearest on what it optimises, and stays on the grid."""

from __future__ import annotations

import pytest
import torch

from dse.numerics import (
    DiscQuant,
    damped,
    discquant,
    gptq,
    held_out_damping,
    neighbours,
    output_range,
    quantize,
    requantized,
)
from hwmodels.formats.catalog import quantizer

NAMES = [
    "int3@g32/fp16", "int4_channel", "e2m1@g32/fp16", "nf4_g64", "uint3_g32", "nvfp4",
    "int4_g32:mse",
]  # fmt: skip


@pytest.fixture(scope="module")
def layer():
    """Weights, and correlated inputs of rank 48 for calibration and for the test."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 128, generator=generator)
    mixing = torch.randn(48, 128, generator=generator)
    train, test = (torch.randn(n, 48, generator=generator) @ mixing for n in (256, 512))
    return weight, train, test


def _output_error(weight, values, inputs):
    return ((values - weight) @ inputs.T).square().mean().item()


@pytest.mark.parametrize("name", NAMES)
def test_neighbours_enclose_the_weight_and_contain_the_nearest(name, layer):
    weight = layer[0]
    near = neighbours(weight, quantizer(name), axes=(1,))
    nearest = quantize(weight, quantizer(name), axes=(1,))
    inside = (near.down <= weight) & (weight <= near.up)
    at_the_end = near.down == near.up
    assert (inside | at_the_end).all()
    assert ((nearest == near.down) | (nearest == near.up)).all()


@pytest.mark.parametrize("name", NAMES)
def test_gptq_lowers_the_output_error(name, layer):
    weight, train, test = layer
    values = gptq(weight, train.T @ train, quantizer(name))
    nearest = quantize(weight, quantizer(name), axes=(1,))
    assert _output_error(weight, values, test) < 0.5 * _output_error(weight, nearest, test)


def test_gptq_without_correlation_is_rounding_to_nearest(layer):
    weight = layer[0]
    values = gptq(weight, torch.eye(128), quantizer("int4_channel"))
    assert torch.equal(values, quantize(weight, quantizer("int4_channel"), axes=(1,)))


@pytest.mark.parametrize(("samples", "expected"), [(16, True), (4096, False)])
def test_gptq_is_damped_where_few_inputs_are_known(samples, expected):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(32, 96, generator=generator)
    mixing = torch.randn(96, 96, generator=generator) * torch.logspace(0, -1, 96)
    train, test = (torch.randn(n, 96, generator=generator) @ mixing.T for n in (samples, 4096))
    second = [(part.T @ part).double() / len(part) for part in (*train.chunk(2), train)]
    share = held_out_damping(weight, (second[0], second[1]), quantizer("int4_channel"))
    assert (share > 0) is expected
    plain, found = (
        gptq(weight, damped(second[2], by), quantizer("int4_channel")) for by in (0.0, share)
    )
    assert _output_error(weight, found, test) <= _output_error(weight, plain, test)


def test_discquant_lowers_the_held_out_error_threefold():
    """Linear model, rank-deficient data, 3 bits in groups of 32 (arXiv 2501.06417)."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(1, 1024, generator=generator)
    mixing = torch.randn(64, 1024, generator=generator) / 8
    train, test = (torch.randn(64, 64, generator=generator) @ mixing for _ in range(2))
    chosen = quantizer("int3@g32/fp16")
    near = neighbours(weight, chosen, axes=(1,))
    target = weight @ train.T

    def loss(candidate):
        return (candidate @ train.T - target).square().mean()

    values = discquant(weight, near, loss, settings=DiscQuant(steps=400, rho=20.0))
    nearest = quantize(weight, chosen, axes=(1,))
    assert ((values == near.down) | (values == near.up)).all()
    assert _output_error(weight, values, test) < _output_error(weight, nearest, test) / 3


@pytest.mark.parametrize(
    ("low", "rounded", "floored"),
    [(6, 0.00119, 0.00238), (4, 0.0118, 0.0320), (3, 0.0405, 0.0994), (2, 0.149, 0.283)],
)
def test_double_rounding_costs_what_the_paper_says(low, rounded, floored):
    """arXiv 2502.01199 on Gaussian weights: the best shared step, narrow codes as they are.

    Codes that are cut instead of rounded (Bit-Mixer) err twice as much.
    """
    weight = torch.randn(100_000, generator=torch.Generator().manual_seed(2))
    best = {}
    for down in (False, True):
        errors = []
        for step in torch.linspace(0.01, 0.04, 25):
            codes = torch.clamp(torch.round(weight / step), -128, 127).to(torch.int16)
            narrow = requantized(codes, high_bits=8, low_bits=low, down=down)
            values = narrow * step * 2 ** (8 - low)
            errors.append((values - weight).square().mean().item())
        best[down] = min(errors)
    assert best[False] == pytest.approx(rounded, rel=0.05)
    assert best[True] == pytest.approx(floored, rel=0.1)


def test_requantized_codes_use_the_whole_narrow_range():
    codes = torch.arange(-128, 128)
    narrow = requantized(codes, high_bits=8, low_bits=4)
    assert narrow.unique().tolist() == list(range(-8, 8))


@pytest.mark.parametrize(
    "name",
    [
        "int3_channel",
        "int4",
        "int3_g32",
        "int3@g48/fp16",
        "uint3_g32",
        "int3@b8x32",
        "mxfp4",
        "nvfp4",
    ],
)
def test_the_range_of_least_output_error_is_no_worse_than_the_largest_magnitude(name, layer):
    """By itself in every group, so that correlations between groups can cost a little."""
    weight, train, _ = layer
    chosen = quantizer(name)
    state = output_range(weight, train.T @ train / len(train), chosen)
    fixed = chosen.replaced(timing="static")
    searched = quantize(weight, fixed, axes=(1,), state=state)
    largest = quantize(weight, chosen, axes=(1,))
    assert _output_error(weight, searched, train) <= 1.02 * _output_error(weight, largest, train)
    assert (searched.abs() <= largest.abs().max() * 1.001).all()
