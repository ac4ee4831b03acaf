"""Gates: what they choose between, what the choice costs, and what teaches them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from dse.training.ledger import bit_products
from dse.training.load import load_method
from dse.training.method import Method
from dse.training.quantized import Quantized, apply
from dse.training.run import Run
from dse.zoo.resnet import ResNet, ResNetConfig
from tests.training.methods import method
from tests.training.test_run import STEPS, Stripes, finished, in_pieces

STAGES = [{"weight": f"int{bits}_channel", "activation": f"int{bits}_token"} for bits in (2, 4, 8)]


def gated(**options: object) -> Method:
    return method(
        roles={"activation_gradient": "fp32"},
        schedule={"kind": "gate", "stages": STAGES, **options},
    )


def perceptron() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))


def leaning(wrapped: Quantized, stage: int) -> Quantized:
    """Gates that choose one stage for all samples."""
    assert wrapped.gates is not None
    with torch.no_grad():
        wrapped.gates.choice.weight.zero_()
        wrapped.gates.choice.bias.copy_(torch.eye(3)[stage] * 10)
    return wrapped


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_gate_that_always_chooses_a_stage_is_that_stage(stage: int) -> None:
    x = torch.randn(6, 16, generator=torch.Generator().manual_seed(1))
    ours = leaning(apply(perceptron(), gated()), stage)
    alone = apply(perceptron(), method(roles={"activation_gradient": "fp32", **STAGES[stage]}))
    y, expected = ours(x), alone(x)
    assert torch.allclose(y, expected, atol=1e-6)
    y.square().sum().backward()
    expected.square().sum().backward()
    for one, other in zip(ours.model.parameters(), alone.model.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_the_share_of_the_cost_is_that_of_the_stages_by_products() -> None:
    """FracTrain's model: products of widths over 32 x 32, mean of the passes."""
    wrapped = apply(perceptron(), gated()).eval()
    assert wrapped.gates is not None
    x = torch.randn(6, 16)
    for stage, formats in enumerate(STAGES):
        leaning(wrapped, stage)(x)
        expected = bit_products(method(roles={"activation_gradient": "fp32", **formats}))
        assert float(wrapped.gates.share().detach()) == pytest.approx(expected)
    # One sample's choice differs at the first layer, of 128 of all 160 products.
    with torch.no_grad():
        wrapped.gates.choice.weight.normal_()
        wrapped.gates.choice.bias.zero_()
    wrapped(10 * torch.randn(64, 16))
    first, second = (one.chosen for one in wrapped.gates._spent)
    costs = wrapped.gates.costs
    mixed = (128 * (first @ costs).mean() + 32 * (second @ costs).mean()) / 160
    assert float(wrapped.gates.share().detach()) == pytest.approx(float(mixed.detach()))
    assert len(first.argmax(1).unique()) > 1


def test_the_gradient_of_a_choice_is_what_its_stage_would_add() -> None:
    """Straight through: of the share of stage k it is the gradient times the product in k."""
    model = nn.Sequential(nn.Linear(16, 8, bias=False))
    wrapped = apply(model, gated())
    x, dy = torch.randn(5, 16), torch.randn(5, 8)
    y = wrapped(x)
    assert wrapped.gates is not None
    chosen = wrapped.gates._spent[0].chosen
    (found,) = torch.autograd.grad(y, chosen, dy)
    for k, formats in enumerate(STAGES):
        alone = apply(model, method(roles={"activation_gradient": "fp32", **formats}))
        assert torch.allclose(found[:, k], (dy * alone(x)).sum(1), atol=1e-5)


def test_the_cost_is_pushed_down_above_the_budget_and_up_below() -> None:
    for budget, sign in ((1e-4, 1), (0.9, -1)):
        wrapped = apply(perceptron(), gated(budget=budget, pressure=0.5))
        wrapped(torch.randn(6, 16))
        assert wrapped.gates is not None
        found = float(wrapped.gates.pressure(wrapped.gates.share()).detach())
        assert found == pytest.approx(sign * 0.5 * float(wrapped.gates.share().detach()))


def test_a_budget_is_kept_and_the_network_learns() -> None:
    narrow, wide = (gated(budget=one, pressure=30.0) for one in (1e-4, 0.9))
    ends = {}
    for name, one in (("narrow", narrow), ("wide", wide)):
        run = Run(one, Stripes(rate=0.03), 1, steps=40)
        while not run.done:
            run.advance()
        outcome = run.outcome()
        assert outcome.diverged_at is None
        ends[name] = outcome.curve.cost[-1]
        assert len(outcome.curve.cost) == 40
    low, high = (
        bit_products(method(roles={"activation_gradient": "fp32", **STAGES[k]})) for k in (0, 2)
    )
    assert ends["narrow"] == pytest.approx(low, rel=0.2)
    assert ends["wide"] == pytest.approx(high, rel=0.2)


def test_gated_runs_go_on_in_pieces(tmp_path: Path) -> None:
    found = load_method("fractrain_dfq")
    whole = finished(found, Stripes(), 1)
    assert in_pieces(found, STEPS // 2, tmp_path) == whole


def test_sites_that_stages_leave_alone_have_no_gate() -> None:
    found = method(
        schedule={"kind": "gate", "stages": STAGES},
        rules=[{"match": {"name": "2"}, "roles": {"*": "bf16"}}],
    )
    wrapped = apply(perceptron(), found)
    wrapped(torch.randn(3, 16))
    assert wrapped.gates is not None
    assert [*wrapped.gates.seen] == ["0"]


def test_convolutions_are_gated_by_their_channels() -> None:
    wrapped = apply(ResNet(ResNetConfig(widths=(4,), blocks=1)), gated())
    wrapped(torch.randn(2, 1, 8, 8)).sum().backward()
    assert wrapped.gates is not None
    assert "stem/conv" in wrapped.gates.seen
    assert all(one.grad is not None for one in wrapped.gates.choice.parameters())


def test_a_site_counts_by_its_products_of_a_sample() -> None:
    """A convolution of 3 x 3 taps at each of 64 places, and a layer of 256 inputs."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 4)
    )
    wrapped = apply(network, gated())
    wrapped(torch.randn(3, 1, 8, 8))
    assert wrapped.gates is not None
    assert [one.products for one in wrapped.gates._spent] == [64 * 4 * 9, 256 * 4]
