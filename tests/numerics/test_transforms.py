"""Transforms undo themselves, and do what they are for."""

from __future__ import annotations

import pytest
import scipy.linalg
import torch

from dse.errors import DseError
from dse.numerics import (
    QuantizerState,
    bias_correction,
    calibrated_state,
    equalized,
    quantize,
    smoothing_factors,
    transform,
)
from dse.numerics.transforms import hadamard_matrix
from hwmodels.formats.catalog import quantizer


@pytest.fixture
def x():
    return torch.randn(16, 128, generator=torch.Generator().manual_seed(0))


def _error(x, name, **arguments):
    return (quantize(x, quantizer(name), axes=(1,), **arguments) - x).norm() / x.norm()


@pytest.mark.parametrize(
    "spec", ["hadamard(16)", "random_hadamard(32,5)", "power(1.5)", "smooth", "low_rank(2)"]
)
def test_a_transform_undoes_itself(x, spec):
    state = QuantizerState(channel_factors=torch.rand(128) + 0.5)
    assert torch.allclose(transform(spec).around(x, lambda rows: rows, state), x, atol=1e-5)


@pytest.mark.parametrize("n", [2, 16, 128])
def test_hadamard_is_scipys(n):
    expected = scipy.linalg.hadamard(n) / n**0.5
    assert torch.allclose(hadamard_matrix(n), torch.tensor(expected, dtype=torch.float32))


def test_rotation_helps_coarse_scales_with_outliers(x):
    """Power-of-two block scales gain from a rotation where channels stick out (2509.17791)."""
    x[:, ::32] *= 20
    assert _error(x, "mxfp4:hadamard(32)") < 0.9 * _error(x, "mxfp4")


def test_outliers_apart_leave_the_rest_precise(x):
    x[:, 3] *= 100
    assert _error(x, "int4_token:outlier_split(1.0)") < 0.2 * _error(x, "int4_token")


def test_low_rank_compensation_lowers_the_error(x):
    assert _error(x, "int3_channel:low_rank(8)") < 0.95 * _error(x, "int3_channel")


def test_range_expansion_helps_narrow_ranges():
    """COAT, arXiv 2410.19313: values within two binades, E4M3 has eighteen."""
    x = torch.rand(4, 512, generator=torch.Generator().manual_seed(1)) + 0.5
    assert _error(x, "e4m3_token:power(8)") < 0.5 * _error(x, "e4m3_token")


def test_clamping_costs_the_outlier_and_gains_the_rest(x):
    x[:, 7] = 50
    got = quantize(x, quantizer("int4_token:clamp(99)"), axes=(1,))
    assert got.max() < 10
    assert (got - x)[:, :7].norm() < 0.5 * (quantize(x, quantizer("int4_token"), axes=(1,)) - x)[
        :, :7
    ].norm()


def test_static_scales_are_calibrated_behind_the_transform(x):
    chosen = quantizer("int8:static:hadamard(128)")
    state = calibrated_state(x, chosen, axes=(1,))
    dynamic = quantize(x, quantizer("int8:hadamard(128)"), axes=(1,))
    assert torch.equal(quantize(x, chosen, axes=(1,), state=state), dynamic)


def test_smoothing_balances_both_operands(x):
    x[:, 5] *= 60
    weight = torch.randn(32, 128, generator=torch.Generator().manual_seed(2))
    factors = smoothing_factors(x.abs().amax(0), weight.abs().amax(0))
    a = quantizer("int8:smooth")
    w = quantizer("int8_channel:smooth")
    smooth_x = quantize(x, a, axes=(1,), state=QuantizerState(channel_factors=factors))
    smooth_w = quantize(weight, w, axes=(1,), state=QuantizerState(channel_factors=1 / factors))
    plain = (
        quantize(x, quantizer("int8"), axes=(1,))
        @ quantize(weight, quantizer("int8_channel"), axes=(1,)).T
    )
    exact = x @ weight.T
    assert (smooth_x @ smooth_w.T - exact).norm() < 0.7 * (plain - exact).norm()


def test_equalisation_keeps_the_function_and_evens_the_ranges():
    generator = torch.Generator().manual_seed(3)
    first, second = torch.randn(8, 5, generator=generator), torch.randn(6, 8, generator=generator)
    first[2] *= 50
    x = torch.randn(10, 5, generator=generator)
    one, two, _ = equalized(first, second)
    expected = torch.relu(x @ first.T) @ second.T
    assert torch.allclose(torch.relu(x @ one.T) @ two.T, expected, atol=1e-3)
    assert torch.allclose(one.abs().amax(1), two.abs().amax(0), rtol=1e-5)


@pytest.mark.parametrize("shape", [(6, 10), (6, 10, 3, 3)])
def test_bias_correction_restores_the_mean(shape):
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(shape, generator=generator)
    axes = tuple(range(1, len(shape)))
    values = quantize(weight, quantizer("int3_channel"), axes=axes)
    mean = torch.rand(10, generator=generator)
    image = mean.reshape(1, 10, *[1] * (len(shape) - 2)).expand(1, 10, *shape[2:])
    correction = bias_correction(weight, values, mean)
    out = (weight[None] * image[:, None]).flatten(2).sum(2)
    quantized = (values[None] * image[:, None]).flatten(2).sum(2)
    assert torch.allclose(quantized + correction, out, atol=1e-4)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("rotate(4)", "unknown transform 'rotate"),
        ("hadamard(12)", "power of two"),
        ("hadamard(a)", "could not convert"),
        ("hadamard(4.5)", "power of two"),
        ("smooth(2)", "from 0 to 1, got 2"),
        ("smooth(nan)", "from 0 to 1, got nan"),
        ("equalize(7)", "0 or 1, got 7"),
        ("expand(0)", "size of a group: expected a whole number from 1, got 0"),
        ("expand(4,-3)", "above 1, got -3"),
        ("clamp(0)", "at most 100 per cent, got 0"),
        ("clamp(200)", "at most 100 per cent, got 200"),
        ("outlier_split(-1)", "at most 100 per cent, got -1"),
        ("low_rank(0)", "rank: expected a whole number from 1, got 0"),
        ("low_rank(2.5)", "rank: expected a whole number from 1, got 2.5"),
    ],
)
def test_bad_transforms_are_refused(spec, message):
    with pytest.raises(DseError, match=message):
        transform(spec)
