"""Any module under a method: which products are sites, and what is refused."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn

from dse.errors import MethodError
from dse.training.load import load_method
from dse.training.quantized import Quantized, apply
from dse.zoo.llama import Llama, LlamaConfig
from dse.zoo.resnet import ResNet, ResNetConfig
from tests.training.methods import exact, method

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
