"""Rounding modes against gfloat, which computes in float64 with its own algorithm."""

from __future__ import annotations

import dataclasses

import gfloat
import numpy as np
import pytest
import torch
from gfloat import RoundMode
from gfloat.formats import format_info_p3109

from dse.numerics import QuantizerState
from dse.numerics.eager import random_bits
from hwmodels.formats.catalog import ENCODINGS
from hwmodels.formats.numbers import borders, sorted_values
from tests.numerics.comparison import mismatches, quantized

MODES = {
    "zero": RoundMode.TowardZero,
    "up": RoundMode.TowardPositive,
    "down": RoundMode.TowardNegative,
    "nearest_away": RoundMode.TiesToAway,
    "nearest_even": RoundMode.TiesToEven,
}
INFOS = {
    "bf16": gfloat.formats.format_info_bfloat16,
    "fp16": gfloat.formats.format_info_binary16,
    "tf32": dataclasses.replace(gfloat.formats.format_info_bfloat16, k=19, precision=11),
    "e5m2": gfloat.formats.format_info_ocp_e5m2,
    "e4m3": gfloat.formats.format_info_ocp_e4m3,
    "e3m2": gfloat.formats.format_info_ocp_e3m2,
    "e2m3": gfloat.formats.format_info_ocp_e2m3,
    "e2m1": gfloat.formats.format_info_ocp_e2m1,
    **{f"p3109_8p{p}": format_info_p3109(8, p) for p in range(1, 8)},
}  # fmt: skip


def _expected(name, x, mode, **randomness):
    """gfloat's values; NaN where the input is, since some formats have none."""
    saturate = ENCODINGS[name].overflow == "saturate"
    numbers = np.where(np.isnan(x), 0, x).astype(np.float64)
    with np.errstate(all="ignore"):
        rounded = gfloat.round_ndarray(INFOS[name], numbers, mode, saturate, **randomness)
        return np.where(np.isnan(x), x, rounded).astype(np.float32)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", INFOS)
def test_directed_and_nearest_modes_are_those_of_gfloat(name, mode, fewer_patterns):
    got = quantized(fewer_patterns, f"{name}:{mode}")
    assert mismatches(got, _expected(name, fewer_patterns, MODES[mode])) == 0


@pytest.mark.parametrize("name", ["e4m3", "e2m1", "bf16", "p3109_8p3"])
@pytest.mark.parametrize("bits", [3, 8, 16])
def test_stochastic_rounding_with_k_bits_is_that_of_gfloat(name, bits, fewer_patterns):
    x = fewer_patterns
    draws = random_bits(x.shape, 5, device=torch.device("cpu")).numpy() >> (32 - bits)
    got = quantized(x, f"{name}:stochastic{bits}", seed=5)
    expected = _expected(name, x, RoundMode.Stochastic, srbits=draws, srnumbits=bits)
    assert mismatches(got, expected) == 0


@pytest.mark.parametrize("name", ["e4m3", "e3m2", "posit8_1", "int8", "takum8"])
def test_odd_rounding_makes_double_rounding_safe(name, fewer_patterns):
    """float32 -> 24 bits to odd -> format equals float32 -> format, for every nearest grid."""
    x = np.clip(fewer_patterns, -100, 100)
    state = None if name != "int8" else _unit_scale()
    through_odd = quantized(quantized(x, "e8m12:odd"), name, state=state)
    assert mismatches(through_odd, quantized(x, name, state=state)) == 0


def _unit_scale():
    return QuantizerState(scales=torch.ones(1, 1))


@pytest.mark.parametrize("name", ["e4m3", "e2m1", "fp16", "posit8_0", "nf4"])
def test_ties_to_zero_and_away_mirror_each_other(name):
    middle = borders(ENCODINGS[name]).astype(np.float32)
    values = sorted_values(ENCODINGS[name]).astype(np.float32)
    tie = (middle == borders(ENCODINGS[name])) & (np.abs(middle) > 1e-44)
    low, high = values[:-1][tie], values[1:][tie]
    outer = np.where(middle[tie] > 0, high, low)
    inner = np.where(middle[tie] > 0, low, high)
    assert tie.sum() > 5
    assert np.array_equal(quantized(middle[tie], f"{name}:nearest_away"), outer)
    assert np.array_equal(quantized(middle[tie], f"{name}:nearest_zero"), inner)


@pytest.mark.parametrize("name", ["e4m3", "e2m1", "bf16", "int8", "posit8_1", "nf4"])
@pytest.mark.parametrize("mode", ["stochastic", "stochastic8"])
def test_stochastic_rounding_is_unbiased(name, mode):
    """Mean of n draws within 4 standard errors of the value; 8 bits resolve 1/256 of a step."""
    n = 1 << 18
    for value in np.array([0.3, -0.71, 0.013, 0.96], np.float32):
        x = np.full(n, value, np.float32)
        got = quantized(x, f"{name}:{mode}", state=_unit_scale(), seed=3).astype(np.float64)
        low, high = got.min(), got.max()
        assert low <= value <= high
        resolution = 0.0 if mode == "stochastic" else (high - low) / 512
        error = abs(got.mean() - np.float64(value))
        assert error <= 4 * got.std() / np.sqrt(n) + resolution


def test_equal_stochastic_rounding_ignores_the_distance():
    x = np.full(1 << 16, 1.01, np.float32)
    share_up = (quantized(x, "e2m1:stochastic_equal") > 1).mean()
    assert abs(share_up - 0.5) < 4 * 0.5 / 256


def test_draws_depend_on_seed_and_place_only():
    x = np.random.default_rng(1).standard_normal((64, 96)).astype(np.float32)
    first = quantized(x, "mxfp4:stochastic", seed=1)
    assert np.array_equal(first, quantized(x, "mxfp4:stochastic", seed=1))
    assert not np.array_equal(first, quantized(x, "mxfp4:stochastic", seed=2))
