"""Two ways to the scales of NVFP4's blocks: Four Over Six, and EDEN's corrections."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import Tensor

from dse.numerics import QuantizeError, QuantizerState, quantize
from dse.numerics.eden import eden
from dse.numerics.four_over_six import four_over_six
from dse.numerics.transforms import within
from hwmodels.formats.catalog import quantizer
from hwmodels.formats.quantizer import Quantizer

NVFP4 = quantizer("nvfp4")
ROOM = 17 / 16
"""Under E4M3 scales that are raised by so much stochastic rounding clips nothing."""


@pytest.fixture(scope="module")
def normal() -> Tensor:
    return torch.randn(4096, 1024, generator=torch.Generator().manual_seed(0))


def error(y: Tensor, x: Tensor) -> float:
    return float((y - x).square().sum() / x.square().sum())


def slope(y: Tensor, x: Tensor) -> float:
    return float((y * x).sum() / x.square().sum())


def roomy() -> Quantizer:
    format = NVFP4.format
    assert format.scale is not None
    return NVFP4.replaced(
        format=replace(format, scale=replace(format.scale, target=6 / ROOM)),
        rounding="stochastic",
    )


def test_errors_of_a_normal_tensor_are_those_of_the_oracle(normal: Tensor) -> None:
    """Those of an independent emulation in NumPy and ml_dtypes."""
    errors = {
        "nearest": error(quantize(normal, NVFP4, axes=(1,)), normal),
        "four_over_six": error(four_over_six(normal, NVFP4), normal),
        "stochastic": error(quantize(normal, roomy(), axes=(1,), seed=1), normal),
        "clipped": error(
            quantize(normal, NVFP4.replaced(rounding="stochastic"), axes=(1,), seed=1), normal
        ),
        "eden": error(eden(normal, NVFP4, seed=1), normal),
        "mxfp4": error(quantize(normal, quantizer("mxfp4"), axes=(1,)), normal),
    }
    expected = {
        "nearest": 9.04e-3,
        "four_over_six": 7.56e-3,
        "stochastic": 23.6e-3,
        "clipped": 18.9e-3,
        "eden": 9.59e-3,
        "mxfp4": 13.2e-3,
    }
    assert errors == pytest.approx(expected, rel=0.02)
    assert errors["stochastic"] / errors["eden"] >= 2.3


def test_eden_and_stochastic_rounding_are_unbiased_and_nearest_is_not(normal: Tensor) -> None:
    assert slope(quantize(normal, NVFP4, axes=(1,)), normal) == pytest.approx(0.9955, abs=5e-4)
    drawn = quantize(normal, roomy(), axes=(1,), seed=2)
    assert slope(drawn, normal) == pytest.approx(1, abs=5e-4)
    assert slope(eden(normal, NVFP4, seed=2), normal) == pytest.approx(1, abs=5e-4)


def test_eden_is_unbiased_over_rotations_of_any_tensor() -> None:
    """Values that nearest rounding would move always the same way."""
    x = torch.full((1, 128), 0.3)
    x[0, ::16] = 1.0
    total = torch.zeros_like(x)
    for seed in range(400):
        around = NVFP4.replaced(transforms=(f"random_hadamard(128, {seed})",))
        total += within(around, QuantizerState(), partial(eden, quantizer=NVFP4, seed=seed))(x)
    mean = total / 400
    assert float((mean - x).abs().max()) < 0.02
    assert float((quantize(x, NVFP4, axes=(1,)) - x).abs().max()) > 0.03


def test_four_over_six_takes_the_better_scale_of_every_block() -> None:
    """All choices tried in NumPy with ml_dtypes' E4M3."""
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(3))
    grid = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
    level = np.float32(x.abs().max()) / np.float32(6 * 256)
    blocks = x.numpy().reshape(8, 4, 16)
    tried = []
    for target in (6, 4):
        scale = np.abs(blocks).max(-1, keepdims=True) / target / level
        scale = scale.astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * level
        nearest = np.abs(np.abs(blocks)[..., None] / scale[..., None] - grid).argmin(-1)
        tried.append(np.sign(blocks) * grid[nearest] * scale)
    errors = [((one - blocks) ** 2).sum(-1, keepdims=True) for one in tried]
    best = np.where(errors[1] < errors[0], tried[1], tried[0]).reshape(8, 64)
    assert np.allclose(four_over_six(x, NVFP4).numpy(), best, rtol=1e-5, atol=1e-7)


def test_blocks_of_rows_choose_together() -> None:
    x = torch.randn(40, 56, generator=torch.Generator().manual_seed(4))
    tiles = quantizer("e2m1@b16x16/e4m3+fp32")
    values = four_over_six(x, tiles)
    assert values.shape == x.shape
    assert error(values, x) < error(quantize(x, tiles, axes=(1,)), x)


@pytest.mark.parametrize("name", ["mxfp4", "e4m3_tensor", "int4_g128"])
def test_a_format_without_two_scales_is_refused(name: str) -> None:
    with pytest.raises(QuantizeError, match="nvfp4"):
        four_over_six(torch.ones(2, 32), quantizer(name))


@pytest.mark.parametrize("name", ["mxfp4", "e4m3_tensor"])
def test_eden_needs_scales_that_can_carry_a_correction(name: str) -> None:
    with pytest.raises(QuantizeError, match="mantissa"):
        eden(torch.ones(2, 128), quantizer(name))


def test_eden_corrects_whole_groups() -> None:
    with pytest.raises(QuantizeError, match="multiple of 16, got 24"):
        eden(torch.ones(2, 128), NVFP4, group=24)


def test_zeros_stay_zeros_under_both() -> None:
    zeros = torch.zeros(3, 130)
    assert torch.equal(four_over_six(zeros, NVFP4), zeros)
    assert torch.equal(eden(zeros, NVFP4), zeros)
