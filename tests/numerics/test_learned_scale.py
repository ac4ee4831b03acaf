"""Gradients of scales, against torch's own learnable fake quantization; gains of outputs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dse.numerics import QuantizerState, learned_state, quantize
from dse.numerics.learned_scale import (
    has_learnable_scales,
    moved_scales,
    quantize_with_scale_gradient,
    with_gains,
)
from hwmodels.formats.catalog import quantizer


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def apart(x: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """X without values less than half a step beyond the range, which torch counts as inside.

    The paper's range ends at the last code.
    """
    steps = (x / scales).abs()
    return torch.where((steps > 7) & (steps < 7.5), 0.0, x)


def gradients(
    x: torch.Tensor, name: str, scales: torch.Tensor, sent: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values, and what reaches x and the logarithm of the scales."""
    x = x.clone().requires_grad_()
    growth = torch.zeros_like(scales).requires_grad_()
    state = QuantizerState(scales=scales)
    values = quantize_with_scale_gradient(x, growth, quantizer(name), axes=(1,), state=state)
    values.backward(sent)
    assert x.grad is not None
    assert growth.grad is not None
    return values.detach(), x.grad, growth.grad


def test_a_scale_a_tensor_has_the_gradients_of_torch() -> None:
    x, sent, scale = normal(6, 8), normal(6, 8, seed=1), torch.tensor([0.21], requires_grad=True)
    x = apart(x, scale.detach())
    values, of_x, of_log = gradients(x, "int4:static", scale.detach().reshape(1, 1), sent)
    theirs = x.clone().requires_grad_()
    fake = torch._fake_quantize_learnable_per_tensor_affine(
        theirs, scale, torch.zeros(1), -7, 7, 1.0
    )
    fake.backward(sent)
    torch.testing.assert_close(values, fake.detach())
    torch.testing.assert_close(of_x, theirs.grad)
    assert scale.grad is not None
    torch.testing.assert_close(of_log.reshape(1), scale.grad * scale.detach())


def test_a_scale_a_channel_has_the_gradients_of_torch() -> None:
    x, sent = normal(5, 12), normal(5, 12, seed=1)
    scales = 0.1 + 0.2 * torch.rand(5, generator=torch.Generator().manual_seed(2))
    x = apart(x, scales[:, None])
    theirs, learnt = x.clone().requires_grad_(), scales.clone().requires_grad_()
    fake = torch._fake_quantize_learnable_per_channel_affine(
        theirs, learnt, torch.zeros(5), 0, -7, 7, 1.0
    )
    fake.backward(sent)
    values, of_x, of_log = gradients(x, "int4_channel", scales[:, None], sent)
    torch.testing.assert_close(values, fake.detach())
    torch.testing.assert_close(of_x, theirs.grad)
    assert learnt.grad is not None
    torch.testing.assert_close(of_log[:, 0], learnt.grad * scales)


def test_groups_share_out_the_gradient_of_their_row() -> None:
    x, sent = normal(3, 70), normal(3, 70, seed=1)
    row = torch.full((3, 1), 0.25)
    _, _, of_row = gradients(x, "int4_channel", row, sent)
    _, _, of_groups = gradients(x, "int4_g32", row.expand(3, 3).contiguous(), sent)
    assert of_groups.shape == (3, 3)  # the last group is short
    torch.testing.assert_close(of_groups.sum(dim=1, keepdim=True), of_row)


def test_moved_scales_stay_on_the_grid_of_their_encoding() -> None:
    given = quantizer("int4_g32")
    encoding = given.format.scale.encoding  # type: ignore[union-attr]
    assert encoding.bits == 16
    state = QuantizerState(scales=torch.full((2, 2), 0.25))
    moved = moved_scales(state, normal(2, 2) / 10, given)
    assert moved.scales is not None
    assert torch.equal(moved.scales, moved.scales.half().float())
    x = normal(2, 64)
    growth = normal(2, 2) / 10
    got = quantize_with_scale_gradient(x, growth, given, axes=(1,), state=state)
    assert torch.equal(got, quantize(x, given, axes=(1,), state=moved))


def strengths(state: QuantizerState, weight: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """The share of the wanted output that each row's has, by least squares."""
    assert state.values is not None
    found: torch.Tensor = (image * state.values).sum(-1) / (image * weight).sum(-1)
    return found


def codes(state: QuantizerState) -> torch.Tensor:
    """The whole numbers that values are of their scales."""
    assert state.values is not None
    assert state.scales is not None
    group = state.values.shape[1] // state.scales.shape[1]
    return (state.values / state.scales.repeat_interleave(group, 1)).round()


@pytest.mark.parametrize("name", ["int3_channel:gptq", "int3_g32:gptq", "uint4_g64:gptq"])
def test_gains_bring_every_output_back_to_its_strength(name: str) -> None:
    given = quantizer(name).settled(weight=True)
    weight, inputs = normal(24, 128), normal(500, 128) @ normal(128, 128)
    hessian = (inputs.mT @ inputs / len(inputs)).double()
    image = weight.double() @ hessian
    before = learned_state(weight, hessian, given)
    after = with_gains(before, weight, image, given)
    rest = 1 - strengths(before, weight, image)
    assert rest.mean() > 0.005
    half = given.format.scale.encoding.bits == 16  # type: ignore[union-attr]
    assert (1 - strengths(after, weight, image)).abs().max() < (5e-4 if half else 1e-6)
    # The same codes: what is stored differs by scales alone.
    assert after.values is not None
    assert after.scales is not None
    fixed = replace(after, values=None)
    plain = given.replaced(rounding="nearest_even")
    assert torch.equal(quantize(after.values, plain, axes=(1,), state=fixed), after.values)
    assert torch.equal(codes(before), codes(after))


def test_one_scale_of_a_tensor_takes_one_gain() -> None:
    weight = normal(24, 96)
    state = QuantizerState(scales=torch.full((1, 1), 0.25), values=(weight * 4).trunc() / 4)
    after = with_gains(state, weight, weight.double(), quantizer("int8:gptq"))
    assert after.values is not None
    assert after.scales is not None
    assert after.scales > 0.26
    whole = (weight.double() * after.values).sum() / weight.double().square().sum()
    assert abs(whole - 1) < 1e-6


def test_rows_with_little_left_and_coarse_scales_take_no_gain() -> None:
    weight = normal(3, 32)
    given = quantizer("int4_channel:gptq")
    state = QuantizerState(scales=torch.ones(3, 1), values=torch.zeros(3, 32))
    state.values[1:] = weight[1:].round()  # type: ignore[index]
    state.values[2] *= -1  # type: ignore[index]
    after = with_gains(state, weight, weight.double(), given)
    assert after.scales is not None
    assert torch.equal(after.scales[[0, 2]], torch.ones(2, 1))
    assert after.scales[1] != 1
    assert with_gains(state, weight, weight.double(), quantizer("mxfp4:gptq")) is state


@pytest.mark.parametrize(
    ("name", "learnable"),
    [("int4_channel", True), ("e4m3_tensor:static", True), ("int4_g32", True),
     ("uint8:static", True), ("nvfp4", False), ("mxfp4", False), ("bf16", False)],
)  # fmt: skip
def test_only_fine_scales_of_one_level_are_learned(name: str, learnable: bool) -> None:
    assert has_learnable_scales(quantizer(name)) == learnable
