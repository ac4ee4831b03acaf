"""Any module under a method: which products are sites, and what is refused."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dse.errors import MethodError
from dse.numerics import quantize
from dse.training import at_site
from dse.training.load import load_method
from dse.training.method import Operand
from dse.training.quantized import Quantized, apply
from dse.training.rounding import Draw, quantizer_of, rounded
from dse.zoo.llama import Llama, LlamaConfig
from dse.zoo.resnet import ResNet, ResNetConfig
from hwmodels.formats.catalog import quantizer
from tests.training.methods import EXACT_ATTENTION, exact, method

TINY = LlamaConfig(vocabulary=16, width=8, layers=2, heads=2, kv_heads=1, ffn_width=12)


def test_every_product_of_a_decoder_is_a_site() -> None:
    wrapped = apply(Llama(TINY), method())
    wrapped(torch.zeros(1, 4, dtype=torch.long))
    layers = [f"model.layers.{number}." for number in range(2)]
    parts = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.k_cache",
             "self_attn.v_cache", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
             "mlp.down_proj")  # fmt: skip
    assert set(wrapped.sites) == {layer + part for layer in layers for part in parts} | {"lm_head"}


def test_nothing_is_left_on_the_module_that_was_wrapped() -> None:
    model = Llama(TINY)
    nn.init.normal_(model.lm_head.weight)  # type: ignore[arg-type]
    tokens = torch.arange(4).reshape(1, 4)
    before = model(tokens)
    wrapped = apply(model, load_method("nvfp4"))
    assert not torch.equal(wrapped(tokens), before)
    assert torch.equal(model(tokens), before)
    assert [*dict(wrapped.model.named_parameters())] == [*dict(model.named_parameters())]
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())


def test_a_call_that_fails_leaves_the_next_one_its_names() -> None:
    wrapped = apply(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), method())
    with pytest.raises(RuntimeError):
        wrapped(torch.ones(1, 3))
    wrapped(torch.ones(1, 4))
    assert [*wrapped.sites] == ["0", "1"]


def test_a_convolution_is_a_site_of_its_kind() -> None:
    wrapped = apply(ResNet(ResNetConfig(widths=(4,), blocks=1)), method())
    wrapped(torch.randn(2, 1, 8, 8))
    kinds = {name: at.site.kind for name, at in wrapped.sites.items()}
    assert kinds["stem.conv"] == "convolution"
    assert kinds["classifier"] == "linear"


def test_a_rule_that_is_for_nothing_names_the_sites() -> None:
    wrapped = apply(
        nn.Sequential(nn.Linear(4, 4)),
        method(rules=[{"match": {"name": "head"}, "roles": {"*": "bf16"}}]),
    )
    with pytest.raises(MethodError, match=r"rules\.0\.match: no site .*; sites: 0"):
        wrapped(torch.ones(1, 4))


def test_a_number_beyond_the_blocks_fits_none() -> None:
    found = method(rules=[{"match": {"blocks": [7]}, "roles": {"*": "bf16"}}])
    wrapped = apply(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), found)
    with pytest.raises(MethodError, match="no site of the model fits; sites: 0, 2"):
        wrapped(torch.ones(1, 4))


def test_a_role_that_the_model_lacks_is_refused() -> None:
    wrapped = apply(nn.Linear(4, 4), method(roles={"k_cache": "e4m3_tensor"}))
    with pytest.raises(MethodError, match=r"roles\.k_cache: the model has no scaled_dot"):
        wrapped(torch.ones(1, 4))


def test_products_out_of_sight_are_refused() -> None:
    with pytest.raises(MethodError, match="attention is a MultiheadAttention"):
        apply(nn.ModuleDict({"attention": nn.MultiheadAttention(4, 1)}), method())


def test_a_convolution_has_no_narrow_accumulator() -> None:
    wrapped = apply(nn.Conv2d(1, 1, 1), method(roles={"accumulator": "fp16"}))
    with pytest.raises(MethodError, match="is a convolution"):
        wrapped(torch.ones(1, 1, 2, 2))


def test_a_product_that_is_left_alone_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    class Gram(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum("ij,kj->ik", x, x)

    wrapped = apply(Gram(), method())
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            wrapped(torch.ones(2, 2))
    assert [one.getMessage() for one in caplog.records] == [
        "einsum is no product of a layer here, and stays in float32"
    ]


def test_a_delayed_scale_is_that_of_the_step_before() -> None:
    layer = nn.Linear(4, 4, bias=False)
    nn.init.eye_(layer.weight)
    roles = {"activation@fprop": "e4m3_tensor:delayed1", "weight": "fp32"}
    wrapped = apply(layer, method(roles=roles))
    tops = [float(wrapped(torch.full((1, 4), one)).detach().max()) for one in (1.0, 100.0, 100.0)]
    assert tops == pytest.approx([1, 1, 100])


def test_an_evaluation_leaves_delayed_scales_alone() -> None:
    layer = nn.Linear(4, 4, bias=False)
    nn.init.eye_(layer.weight)
    wrapped = apply(layer, method(roles={"activation@fprop": "e4m3_tensor:delayed"}))
    wrapped(torch.ones(1, 4))
    wrapped.eval()(torch.full((1, 4), 100.0))
    after = wrapped.train()(torch.full((1, 4), 100.0))
    assert float(after.detach().max()) == pytest.approx(1.0)


def test_what_scales_remember_can_be_carried_on() -> None:
    x = torch.randn(3, 4)

    def steps(wrapped: Quantized, first: int, last: int) -> Tensor:
        y = torch.zeros(())
        for step in range(first, last):
            y = wrapped(x / 3**step)
            y.sum().backward()
        return y.detach()

    def fresh() -> Quantized:
        torch.manual_seed(0)
        return apply(nn.Linear(4, 4), load_method("fp8_delayed"))

    end = steps(fresh(), 0, 4)
    half, other = fresh(), fresh()
    steps(half, 0, 2)
    other.eval()(x)
    other.train()
    other.set_extra_state(half.get_extra_state())
    assert torch.equal(steps(other, 2, 4), end)
    assert not torch.equal(steps(fresh(), 2, 4), end)


def test_the_exact_method_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.randn(5, 8)
    assert torch.equal(apply(model, exact())(x), model(x))


@pytest.mark.parametrize("kept", ["weight@dgrad", "activation@wgrad"])
def test_a_backward_product_reads_rounded_forward_values_where_its_own_role_says(
    kept: str,
) -> None:
    """One of both factors: the other product reads the original values."""
    torch.manual_seed(0)
    layer, x = nn.Linear(16, 8, bias=False), torch.randn(4, 16, requires_grad=True)
    roles = {"weight@fprop": "int3_channel", "activation@fprop": "int3_token"}
    originals = dict.fromkeys(("weight@dgrad", "activation@wgrad"), "fp32")
    forward = {kept: {"format": "fp32", "of": "forward"}}
    gradients = {"activation_gradient": "fp32", "weight_gradient": "fp32"}
    apply(layer, method(roles={**roles, **originals, **forward, **gradients}))(x).sum().backward()
    weight, inputs = layer.weight.detach(), x.detach()
    if kept == "weight@dgrad":
        weight = quantize(weight, quantizer("int3_channel"), axes=(1,))
    else:
        inputs = quantize(inputs, quantizer("int3_token"), axes=(1,))
    assert x.grad is not None
    assert layer.weight.grad is not None
    assert torch.allclose(x.grad, weight.sum(0).expand(4, -1), atol=1e-5)
    assert torch.allclose(layer.weight.grad, inputs.sum(0).expand(8, -1), atol=1e-5)


def test_both_factors_of_a_product_are_rotated_by_the_same_signs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Hardware needs it, and values do not show it: here each rotation is undone by itself."""
    seen: list[tuple[str, Draw]] = []

    def recorded(x: Tensor, operand: Operand, **named: Any) -> Tensor:
        seen.append((operand.format, named["draw"]))
        return rounded(x, operand, **named)

    monkeypatch.setattr(at_site, "rounded", recorded)
    turned = {"hadamard": 4, "signs": "fresh"}
    formats = {"weight": "mxfp8", "activation": "int8_token", "activation_gradient": "int4_token"}
    roles = {role: {"format": format, **turned} for role, format in formats.items()}
    wrapped = apply(nn.Linear(8, 8, bias=False), method(roles=roles))
    wrapped.train()
    for _ in range(2):
        wrapped(torch.randn(4, 8, requires_grad=True)).sum().backward()
    signs = [draw.signs for format, draw in seen if format in formats.values()]
    assert len(signs) == 12
    pairs = [set(signs[first : first + 2]) for first in range(0, 12, 2)]
    assert all(len(pair) == 1 for pair in pairs)
    assert len(set(signs)) == 6  # others in every pass and call


@pytest.mark.parametrize(("headroom", "top"), [(1.0, 6.0), (1.5, 4.0), (2.0, 3.0)])
def test_headroom_raises_scales(headroom: float, top: float) -> None:
    """The largest magnitude of a block is this code: the more room, the smaller."""
    x = torch.zeros(1, 32)
    x[0, 3] = 6 * 448.0  # which the tensor's scale of 1 leaves to the block's
    operand = Operand(format="e2m1@g16/fp32", headroom=headroom)
    scale = quantizer_of(operand).format.scale
    assert scale is not None
    assert scale.target == (0 if headroom == 1 else top)
    small = x.clone()
    small[0, 4] = 6 * 448.0 / top * 0.5  # half a step of the raised scale: the smallest code
    kept = rounded(small, operand, axes=(1,), draw=Draw())
    assert kept[0, 3] == pytest.approx(6 * 448.0)
    assert kept[0, 4] == pytest.approx(float(small[0, 4]))


def test_a_saved_activation_is_the_inputs_alone() -> None:
    """The weight is no activation: `dgrad` reads it as it is."""
    torch.manual_seed(0)
    layer, x = nn.Linear(16, 8, bias=False), torch.randn(4, 16, requires_grad=True)
    roles = {"*": "fp32", "weight_gradient": "fp32", "saved_activation": "int3_token"}
    apply(layer, method(roles=roles))(x).sum().backward()
    saved = quantize(x.detach(), quantizer("int3_token"), axes=(1,))
    assert x.grad is not None
    assert layer.weight.grad is not None
    assert torch.allclose(x.grad, layer.weight.detach().sum(0).expand(4, -1), atol=1e-5)
    assert torch.allclose(layer.weight.grad, saved.sum(0).expand(8, -1), atol=1e-5)


def test_a_convolutions_wgrad_rounds_along_samples_and_places() -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv2d(3, 4, 3, padding=1, bias=False), torch.randn(5, 3, 6, 6)
    exact = {"weight": "fp32", "activation@fprop": "fp32", "weight_gradient": "fp32"}
    roles = {**exact, "activation@wgrad": "mxfp4", "activation_gradient@wgrad": "mxfp4"}
    y = apply(layer, method(roles=roles))(x)
    dy = torch.randn_like(y)
    y.backward(dy)
    one, other = (quantize(z, quantizer("mxfp4"), axes=(0, 2, 3)) for z in (x, dy))
    exact_layer = nn.Conv2d(3, 4, 3, padding=1, bias=False)
    exact_layer(one).backward(other)
    assert layer.weight.grad is not None
    assert exact_layer.weight.grad is not None
    assert torch.allclose(layer.weight.grad, exact_layer.weight.grad, atol=1e-4)


def test_smoothing_divides_by_a_channels_size_before_the_cast_and_multiplies_after() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(8, 4, bias=False), torch.randn(16, 8) * 10.0 ** torch.arange(8)
    operand = {"format": "int8_token", "smooth": True}
    roles = {"*": "fp32", "activation@fprop": operand, "activation@wgrad": "fp32"}
    ours = apply(layer, method(roles=roles))(x)
    sizes = x.abs().amax(0)
    inner = quantize(x / sizes, quantizer("int8_token"), axes=(1,))
    assert torch.allclose(ours, (inner * sizes) @ layer.weight.T, rtol=1e-5)


@pytest.mark.parametrize(("word", "down"), [("requant8", False), ("requant_floor8", True)])
def test_narrow_codes_of_a_weight_are_its_wide_ones_rounded_once_more(
    word: str, down: bool
) -> None:
    """By hand from 8-bit codes; the gradient of the weight passes as if nothing were rounded."""
    layer = nn.Linear(6, 3, bias=False)
    x = torch.randn(5, 6)
    roles = {"*": "fp32", "weight": f"int4a@channel:{word}"}
    wrapped = apply(layer, method(roles=roles, rules=[EXACT_ATTENTION]))
    y = wrapped(x)
    weight = layer.weight.detach().double()
    step = weight.abs().amax(1, keepdim=True) / 128  # the code that is farthest from 0
    wide = torch.round(weight / step).clamp(-128, 127) / 16
    codes = (torch.floor(wide) if down else torch.round(wide)).clamp(-8, 7)
    torch.testing.assert_close(
        y.double(), x.double() @ (codes * 16 * step).T, rtol=1e-5, atol=1e-6
    )
    y.sum().backward()
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(3, 6))
