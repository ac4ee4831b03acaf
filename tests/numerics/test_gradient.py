"""What flows back through a quantizer."""

from __future__ import annotations

import pytest
import torch

from dse.numerics import QuantizerState, quantize, quantize_with_gradient
from hwmodels.formats.catalog import quantizer


@pytest.fixture
def x():
    values = torch.tensor([-3.0, -1.2, -0.1, 0.0, 0.3, 1.4, 9.0])
    return values.requires_grad_(True)


@pytest.mark.parametrize("gradient", ["ste", "clipped_ste"])
def test_forward_values_are_those_of_quantize(x, gradient):
    got = quantize_with_gradient(x, quantizer("e2m1"), axes=(), gradient=gradient)
    assert torch.equal(got, quantize(x.detach(), quantizer("e2m1"), axes=()))


def test_straight_through_passes_everything(x):
    quantize_with_gradient(x, quantizer("e2m1"), axes=()).sum().backward()
    assert torch.equal(x.grad, torch.ones(7))


def test_clipped_straight_through_stops_at_the_range(x):
    state = QuantizerState(scales=torch.full((1, 1), 0.25))
    got = quantize_with_gradient(
        x, quantizer("int4:static"), axes=(), state=state, gradient="clipped_ste"
    )
    got.sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]  # range: -1.75..1.75


def test_torch_fake_quantize_has_the_same_forward_and_backward():
    x = torch.randn(500, generator=torch.Generator().manual_seed(0)) * 3
    scale, mine, other = 0.03, x.clone().requires_grad_(True), x.clone().requires_grad_(True)
    state = QuantizerState(scales=torch.full((1, 1), scale))
    got = quantize_with_gradient(
        mine, quantizer("int8:static"), axes=(), state=state, gradient="clipped_ste"
    )
    expected = torch.fake_quantize_per_tensor_affine(other, scale, 0, -127, 127)
    weights = torch.randn(500, generator=torch.Generator().manual_seed(1))
    (got * weights).sum().backward()
    (expected * weights).sum().backward()
    assert torch.allclose(got, expected, rtol=1e-6)
    # torch lets the half step beyond the last code pass, which rounds into the range.
    band = (x.abs() > 127 * scale) & (x.abs() <= 127.5 * scale)
    assert mine.grad is not None
    assert other.grad is not None
    assert torch.equal(mine.grad[~band], other.grad[~band])
    assert band.sum() < 5


def test_a_relaxation_gives_the_slope(x):
    def twice(values, quantized):
        return torch.full_like(values, 2.0) * (quantized != 0)

    quantize_with_gradient(x, quantizer("e2m1"), axes=(), gradient=twice).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0, 0.0, 0.0, 2.0, 2.0, 2.0]
