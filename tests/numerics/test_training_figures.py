"""Errors of training's operands, against the figures of those who measured them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import StudentT

from dse.numerics import DelayedScale, QuantizerState, quantize
from hwmodels.formats.catalog import quantizer


def error(values: Tensor, exact: Tensor) -> float:
    """Root of the relative squared error."""
    return float(((values - exact).square().sum() / exact.square().sum()).sqrt())


def small_gradients() -> Tensor:
    return 1e-4 * torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mxfp4", 0.118),
        ("e2m1@g16/e4m3", 1.000),
        ("nvfp4", 0.095),
        ("e2m1@g16/ue5m3", 0.099),
        ("e2m1@g16/ue5m3+fp32", 0.0945),
        ("e2m1@g16/fp32", 0.094),
    ],
)
def test_scales_of_small_gradients_need_range_or_a_tensor_scale(
    name: str, expected: float
) -> None:
    """Elucidating the Design Space of FP4 Training, arXiv 2509.17791: E4M3 alone flushes all."""
    x = small_gradients()
    found = error(quantize(x, quantizer(name), axes=(1,)), x)
    assert found == pytest.approx(expected, rel=0.015)


def test_the_mean_of_stochastic_roundings_comes_back_to_the_value() -> None:
    x = small_gradients()[:64]
    near, drawn = quantizer("e2m1@g16/fp32"), quantizer("e2m1@g16/fp32:stochastic")
    mean = sum(quantize(x, drawn, axes=(1,), seed=seed) for seed in range(400)) / 400
    assert isinstance(mean, Tensor)
    assert error(mean, x) < 0.012
    assert error(quantize(x, near, axes=(1,)), x) == pytest.approx(0.094, rel=0.02)


def product_error(name: str, *, turned: bool, outliers: str) -> float:
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(256, 1024, generator=generator) for _ in range(2))
    if outliers == "channel":
        a[:, ::64] *= 30
    else:
        a[torch.rand(a.shape, generator=generator) < 0.002] *= 30
    chosen = quantizer(f"{name}:random_hadamard(16, 0)" if turned else name)
    x, w = (quantize(one, chosen, axes=(1,)) for one in (a, b))
    return error(x @ w.T, a @ b.T)


@pytest.mark.parametrize("outliers", ["channel", "scattered"])
def test_a_rotation_helps_scales_of_powers_of_two_and_hurts_fine_ones(outliers: str) -> None:
    """One product with outliers: a rotation is an interaction with the format, not a gain."""
    plain, turned = (
        product_error("mxfp4", turned=one, outliers=outliers) for one in (False, True)
    )
    assert turned < 0.9 * plain
    plain, turned = (
        product_error("nvfp4", turned=one, outliers=outliers) for one in (False, True)
    )
    assert turned > 1.1 * plain


def test_one_scale_a_tensor_hurts_the_weight_gradient_more_the_longer_its_sum() -> None:
    """SwitchBack, arXiv 2304.13013, section 2: why it leaves `wgrad` in 16 bits."""

    def mean_error(inner: int, name: str) -> float:
        found = []
        for seed in range(12):
            torch.manual_seed(seed)
            gradient = StudentT(3.0).sample((64, inner))
            x = torch.randn(32, inner)
            x[0] *= 20
            first, second = (quantize(one, quantizer(name), axes=(1,)) for one in (gradient, x))
            found.append(error(first @ second.T, gradient @ x.T))
        return sum(found) / len(found)

    short, long = (mean_error(inner, "int8") for inner in (512, 8192))
    assert long > 1.3 * short
    rows_short, rows_long = (mean_error(inner, "int8_token") for inner in (512, 8192))
    assert rows_long > 1.3 * rows_short
    assert rows_long < long


def errors_of_passes(tokens: int, name: str) -> tuple[float, float, float]:
    """Errors of fprop, dgrad and wgrad in int8, weights by one scale, `name` for wgrad's factors.

    Gradients have heavy tails, and one feature of the inputs is an outlier; mean of three draws.
    """
    found = torch.zeros(3, dtype=torch.float64)
    for seed in range(3):
        torch.manual_seed(seed)
        x, w = torch.randn(tokens, 256), torch.randn(256, 256) / 16
        x[:, 0] *= 20
        gradient = StudentT(3.0).sample((tokens, 256))

        def seen(values: Tensor, format: str, axis: int) -> Tensor:
            return quantize(values, quantizer(format), axes=(axis,))

        y = seen(x, "int8_token", 1) @ seen(w, "int8", 1).T
        dx = seen(gradient, "int8_token", 1) @ seen(w, "int8", 0)
        dw = seen(gradient, name, 0).T @ seen(x, name, 0)
        exact = (x @ w.T, gradient @ w, gradient.T @ x)
        found += torch.tensor([error(*pair) for pair in zip((y, dx, dw), exact, strict=True)])
    fprop, dgrad, wgrad = (found / 3).tolist()
    return fprop, dgrad, wgrad


def test_the_weight_gradient_errs_most_in_int8() -> None:
    """SwitchBack, arXiv 2304.13013, section 2.2: why two products are in int8 and one is not."""
    short, long = (errors_of_passes(tokens, "int8") for tokens in (512, 8192))
    assert short[0] == pytest.approx(0.031, rel=0.05)
    assert short[2] > 3 * max(short[:2])
    assert long[2] > 10 * max(long[:2])
    rows = errors_of_passes(8192, "int8_token")
    assert long[2] > rows[2] > max(rows[:2])


def spiked() -> Tensor:
    x = torch.randn(4096, 512, generator=torch.Generator().manual_seed(0))
    x[:, 3] *= 2000
    return x


def test_a_scale_a_channel_before_the_cast_keeps_what_an_outlier_flushes() -> None:
    """Smooth-SwiGLU, arXiv 2409.12517: the same function, hardly any value lost."""
    x, narrow = spiked(), quantizer("e4m3_tensor")
    factors = QuantizerState(channel_factors=1 / x.abs().amax(0))

    def lost(values: Tensor) -> float:
        return float(((values == 0) & (x != 0)).double().mean())

    assert lost(quantize(x, narrow, axes=(1,))) == pytest.approx(0.0107, rel=0.25)
    smooth = quantize(x, quantizer("e4m3_tensor:smooth"), axes=(1,), state=factors)
    assert lost(smooth) < 2e-5
    exact = quantize(x, quantizer("fp32:smooth"), axes=(1,), state=factors)
    assert torch.allclose(exact, x, rtol=1e-6)


def test_a_scale_from_before_the_outlier_clips_nearly_all_of_it() -> None:
    """Delayed scaling under the same outlier: relative error 0.998."""
    x = spiked()
    calm = x.clone()
    calm[:, 3] /= 2000
    delayed = DelayedScale(quantizer("e4m3_tensor:delayed"))
    delayed.state(calm)
    values = quantize(x, quantizer("e4m3_tensor:delayed"), axes=(1,), state=delayed.state(x))
    assert error(values, x) == pytest.approx(0.998, abs=0.002)
