"""Steps of the optimizer: exact ones against torch's, narrow ones against their sources."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy
import pytest
import torch
from torch import Tensor, nn

from dse.numerics import quantize
from dse.training.method import Update
from dse.training.update.direction import Moments, adamw, hadam, stable_adamw, stable_spam
from dse.training.update.optimizer import Optimizer
from hwmodels.formats.catalog import quantizer
from tests.training.methods import method

SEEDS, BATCH = 3, 8


def stepped(parameter: nn.Parameter, gradients: list[Tensor], **content: object) -> Tensor:
    optimizer = Optimizer([("weight", parameter)], method(**content))
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step(0.01)
    return parameter.detach()


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_an_exact_step_is_torchs(name: str) -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(4, 3), [torch.randn(4, 3) for _ in range(5)]
    other = nn.Parameter(start.clone())
    theirs: torch.optim.Optimizer = (
        torch.optim.AdamW([other], lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
        if name == "adamw"
        else torch.optim.SGD([other], lr=0.01, momentum=0.9)
    )
    for gradient in gradients:
        other.grad = gradient.clone()
        theirs.step()
    decay = 0.1 if name == "adamw" else 0.0
    update = {"optimizer": name, "clip_norm": 0, "weight_decay": decay}
    ours = stepped(nn.Parameter(start.clone()), gradients, update=update)
    assert torch.allclose(ours, other, atol=1e-6)


def least_squares(mode: str, kept: str) -> list[float]:
    """Final errors of three seeds: 64 weights of magnitude 10, batches of eight samples."""
    weights, samples, targets = [], [], []
    for seed in range(SEEDS):
        generator = torch.Generator().manual_seed(seed)
        w = 10 * torch.randn(64, generator=generator)
        x = torch.randn(4096, 64, generator=generator)
        weights.append(w)
        samples.append(x)
        targets.append(x @ w + torch.randn(4096, generator=generator))
    x, y = torch.stack(samples), torch.stack(targets)
    parameter = nn.Parameter(torch.zeros(SEEDS, 64))
    update = {"mode": mode, "optimizer": "sgd", "momentum": 0, "weight_decay": 0, "clip_norm": 0}
    roles = {"master_weight": kept}
    optimizer = Optimizer([("weight", parameter)], method(roles=roles, update=update))
    for step in range(4000):
        first = step * BATCH % 4096
        seen = x[:, first : first + BATCH]
        missed = seen @ parameter.detach()[..., None] - y[:, first : first + BATCH, None]
        parameter.grad = (missed * seen).mean(1)
        optimizer.step(1e-3)
    return ((x @ parameter.detach()[..., None]).squeeze(-1) - y).square().mean(1).tolist()


def test_updates_that_nearest_rounding_loses_are_kept_at_random_and_by_compensation() -> None:
    """Revisiting BFloat16 Training, arXiv 2010.06192, figure 2's problem."""
    exact = least_squares("master", "fp32")
    nearest = least_squares("nearest", "bf16")
    stochastic = least_squares("stochastic", "bf16")
    kahan = least_squares("kahan", "bf16")
    for seed in range(SEEDS):
        assert nearest[seed] >= 50 * exact[seed]
        assert stochastic[seed] <= 2 * exact[seed]
        assert kahan[seed] <= 1.1 * exact[seed]


def moments_with_an_outlier() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    scale = 1e-3 * torch.exp(0.5 * torch.randn(65536, generator=generator))
    gradients = scale * torch.randn(20, 65536, generator=generator)
    gradients[:, 7] = 1.0
    m, v = torch.zeros(65536), torch.zeros(65536)
    for gradient in gradients:
        m = 0.9 * m + 0.1 * gradient
        v = 0.95 * v + 0.05 * gradient.square()
    return m, v


def relative_error(first: str, second: str) -> float:
    """Median relative error of Adam's direction from moments in these formats."""
    m, v = moments_with_an_outlier()
    exact = m / (v.sqrt() + 1e-8)
    seen_m = quantize(m, quantizer(first), axes=(0,))
    seen_v = quantize(v, quantizer(second), axes=(0,))
    found = seen_m / (seen_v.sqrt() + 1e-8)
    return float(((found - exact).abs() / exact.abs()).median())


def test_blocks_of_a_dynamic_codebook_keep_what_an_outlier_takes_from_a_linear_scale() -> None:
    """The order of 8-bit Optimizers, arXiv 2110.02861: codebook and blocks both help."""
    errors = [
        relative_error("int8", "uint8@tensor"),
        relative_error("dynamic8@tensor", "udynamic8@tensor"),
        relative_error("int8@g2048/fp32", "uint8@g2048/fp32"),
        relative_error("dynamic8_g2048", "udynamic8_g2048"),
        relative_error("dynamic8_g256", "udynamic8_g256"),
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] == pytest.approx(1.0, abs=0.05)
    assert errors[-1] < 0.03


def blown_up(first: str, second: str) -> float:
    """Share of Adam's directions from moments in these formats that are above 100."""
    m, v = moments_with_an_outlier()
    seen_m = quantize(m, quantizer(first), axes=(0,))
    seen_v = quantize(v, quantizer(second), axes=(0,))
    return float(((seen_m / (seen_v.sqrt() + 1e-8)).abs() > 100).double().mean())


def test_directions_blow_up_where_second_moments_fall_to_zero() -> None:
    """arXiv 2110.02861, section 1.1: an outlier takes the codes of all that share its scale."""
    shares = [
        blown_up("dynamic8@tensor", "udynamic8@tensor"),
        blown_up("int8@g2048/fp32", "uint8@g2048/fp32"),
        blown_up("dynamic8_g2048", "udynamic8_g2048"),
        blown_up("dynamic8_g256", "udynamic8_g256"),
    ]
    assert all(one > 3 * other for one, other in pairwise(shares))
    assert shares[0] > 0.03


def test_moments_are_kept_in_their_formats_and_small_ones_are_not() -> None:
    big, small = nn.Parameter(torch.zeros(64, 80)), nn.Parameter(torch.zeros(5))
    found = method(
        roles={"optimizer_m": "dynamic8_g256", "optimizer_v": "udynamic8_g256"},
        update={"states_from": 4096},
    )
    optimizer = Optimizer([("big", big), ("small", small)], found)
    torch.manual_seed(0)
    big.grad, small.grad = torch.randn(64, 80), torch.randn(5)
    optimizer.step(0.1)
    slots = optimizer.state_dict()["slots"]
    cut = 1 / math.hypot(float(big.grad.norm()), float(small.grad.norm()))
    exact = 0.1 * cut * big.grad.reshape(-1)
    kept = slots["big"]["m"].reshape(-1)
    assert torch.allclose(kept, quantize(exact, quantizer("dynamic8_g256"), axes=(0,)), rtol=1e-5)
    assert not torch.allclose(kept, exact, rtol=1e-3)
    assert torch.allclose(slots["small"]["m"], 0.1 * small.grad * cut)


def test_range_expansion_lowers_the_error_of_moments_in_fp8() -> None:
    """COAT, arXiv 2410.19313, table 1: MSE of Adam's direction, groups of 128."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.exp(1.5 * torch.randn(512, 1, generator=generator))
    m, v = torch.zeros(512, 128), torch.zeros(512, 128)
    for _ in range(60):
        gradient = 1e-4 * scale * torch.randn(512, 128, generator=generator)
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient.square()
    exact = m / v.sqrt()

    def error(name: str) -> float:
        seen = [quantize(one, quantizer(name), axes=(1,)) for one in (m, v)]
        return float((seen[0] / seen[1].sqrt() - exact).square().mean())

    assert error("e4m3@g128") / error("e4m3@g128:expand(128)") > 1.8


def powers(x: Tensor) -> Tensor:
    """Exponents of rows as COAT has them, in float64: ratios of ranges, cut to sixteenths."""
    sizes = x.abs().double()
    spread = torch.log2(sizes.amax(1) / torch.where(sizes > 0, sizes, torch.inf).amin(1))
    return torch.floor(16 * math.log2(448**2 / 2) / spread) / 16


def expanded(x: Tensor) -> Tensor:
    """COAT's quantizer of groups of 128, written from its formulas in float64."""
    sizes, k = x.abs().double(), powers(x)[:, None]
    top = sizes.amax(1, keepdim=True)
    middle = top.sqrt() * torch.where(sizes > 0, sizes, torch.inf).amin(1, keepdim=True).sqrt()
    y, scale = x.sign() * (sizes / middle) ** k, (top / middle) ** k / 448
    codes = quantize((y / scale).float(), quantizer("e4m3"), axes=(1,)).double()
    return middle * codes.sign() * (codes.abs() * scale) ** (1 / k)


def test_range_expansion_is_the_formula_of_coat() -> None:
    """COAT, arXiv 2410.19313, section 4.1; second moments are expanded more (figure 2c)."""
    generator = torch.Generator().manual_seed(0)
    m, v = torch.zeros(64, 128), torch.zeros(64, 128)
    for _ in range(60):
        gradient = 1e-4 * torch.randn(64, 128, generator=generator)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient.square()
    assert float(powers(v).median()) > float(powers(m).median()) > 1
    for x in (m, v):
        ours = quantize(x, quantizer("e4m3@g128:expand(128)"), axes=(1,))
        assert torch.allclose(ours.double(), expanded(x), rtol=1e-5)


def test_hadam_keeps_gradients_whose_squares_are_nothing_in_fp16() -> None:
    """Low-Precision Reinforcement Learning, arXiv 2102.13565: g = 1e-5, 200 steps."""
    fp16 = quantizer("fp16")
    v, root = torch.zeros(1), torch.zeros(1)
    gradient = torch.tensor([1e-5])
    update = Update(betas=(0.9, 0.999))
    for _ in range(200):
        v = quantize(0.999 * v + 0.001 * gradient.square(), fp16, axes=(0,))
        found = hadam(gradient, Moments(m=torch.zeros(1), v=root), update, 1e-8)
        root = quantize(found.moments.v, fp16, axes=(0,))
    exact = 1e-5 * math.sqrt(1 - 0.999**200)
    assert float(v) == 0
    assert float(root) == pytest.approx(1.5e-6, rel=0.2)
    assert 0.3 < float(root) / exact < 1


def test_hadam_is_adam_where_nothing_underflows() -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(4, 3), [torch.randn(4, 3) for _ in range(5)]
    adam, other = (
        stepped(nn.Parameter(start.clone()), gradients, update={"optimizer": name})
        for name in ("adamw", "hadam")
    )
    assert torch.allclose(adam, other, atol=1e-6)


def test_a_compound_factor_cancels_in_hadams_direction() -> None:
    roles = {"activation_gradient": "fp16"}
    update = {"optimizer": "hadam", "epsilon": 1e-3, "weight_decay": 0}
    ends = []
    for factor in (1.0, 1024.0):
        parameter = nn.Parameter(torch.ones(3, 2))
        scale = {"kind": "compound", "initial": factor}
        found = method(roles=roles, update=update, loss_scale=scale)
        optimizer = Optimizer([("w", parameter)], found)
        for step in range(4):
            parameter.grad = factor * torch.full((3, 2), 0.1 * (step + 1))
            optimizer.step(0.01, factor=factor)
        ends.append(parameter.detach())
    assert torch.allclose(ends[0], ends[1], atol=1e-6)


def test_a_step_after_a_sudden_gradient_is_short_under_stable_adamw() -> None:
    """StableAdamW, arXiv 2304.13013: the rate over the root mean square of g / sqrt(v)."""
    quiet = Moments(m=torch.zeros(8), v=torch.full((8,), 1e-8), steps=100)
    found = stable_adamw(torch.ones(8), quiet, Update(betas=(0.9, 0.99)), 1e-8)
    assert found.spike > 2.3
    assert float(found.value.abs().max()) < 0.1 / 0.1 / found.spike * 1.2
    calm = stable_adamw(1e-4 * torch.ones(8), quiet, Update(betas=(0.9, 0.99)), 1e-8)
    assert calm.spike <= 1.3


def test_stable_spam_cuts_a_spike_and_forgets_its_moments() -> None:
    update = Update(optimizer="stable_spam", reset_every=50)
    moments = Moments(m=torch.zeros(8), v=torch.zeros(8))
    for _ in range(50):
        moments = stable_spam(torch.ones(8), moments, update, 1e-8).moments
    assert moments.steps == 50
    spiked = torch.ones(8)
    spiked[0] = 1000
    after = stable_spam(spiked, moments, update, 1e-8)
    assert after.moments.steps == 1
    assert float(after.moments.m[0] / after.moments.m[1]) < 1000


def test_a_gradient_is_cut_to_its_norm() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([30.0, 40.0])
    update = {"optimizer": "sgd", "momentum": 0, "clip_norm": 5}
    did = Optimizer([("w", parameter)], method(update=update)).step(1.0)
    assert did.gradient_norm == pytest.approx(50)
    assert parameter.tolist() == pytest.approx([-3, -4])


def test_calm_gradients_leave_stable_adamws_step_that_of_adam() -> None:
    calm = Moments(m=torch.full((8,), 1e-3), v=torch.full((8,), 1e-2), steps=100)
    update = Update(betas=(0.9, 0.99))
    gradient = torch.full((8,), 1e-3)
    found, plain = (rule(gradient, calm, update, 1e-8) for rule in (stable_adamw, adamw))
    assert found.spike < 0.1
    assert torch.equal(found.value, plain.value)


def test_stable_spam_is_its_algorithm() -> None:
    """arXiv 2502.17055, algorithm 1, written in float64 with one bias correction a mean."""
    generator = torch.Generator().manual_seed(0)
    update = Update(optimizer="stable_spam", betas=(0.9, 0.95))
    moments = Moments(m=torch.zeros(16), v=torch.zeros(16))
    m, v = numpy.zeros(16), numpy.zeros(16)
    largest = norm = squared = 0.0
    for step in range(1, 7):
        gradient = torch.randn(16, generator=generator) * (5 if step == 4 else 1)
        g = gradient.double().numpy()
        top = abs(g).max()
        largest = 0.999 * largest + 0.001 * top
        limit = largest / (1 - 0.999**step)
        g = numpy.where(abs(g) > limit, g / top * limit, g)
        size = numpy.sqrt((g * g).sum())
        norm, squared = 0.7 * norm + 0.3 * size, 0.9 * squared + 0.1 * size**2
        g = g / size * (norm / (1 - 0.7**step)) / numpy.sqrt(squared / (1 - 0.9**step))
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        expected = m / (1 - 0.9**step) / numpy.sqrt(v / (1 - 0.95**step))
        found = stable_spam(gradient, moments, update, 1e-12)
        moments = found.moments
        assert found.value.numpy() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("elements", "narrow"), [(63, False), (64, True)])
def test_moments_are_narrow_from_so_many_elements_on(elements: int, narrow: bool) -> None:
    roles = {"optimizer_m": "dynamic8_g256"}
    parameter = nn.Parameter(torch.zeros(elements))
    found = method(roles=roles, update={"states_from": 64, "clip_norm": 0})
    optimizer = Optimizer([("w", parameter)], found)
    parameter.grad = torch.linspace(0.001, 1, elements)
    optimizer.step(0.1)
    kept = optimizer.state_dict()["slots"]["w"]["m"]
    assert torch.allclose(kept, 0.1 * parameter.grad, rtol=1e-5) is not narrow


def test_weights_begin_at_the_nearest_value_and_only_updates_are_drawn() -> None:
    roles, update = {"master_weight": "bf16"}, {"mode": "stochastic"}
    torch.manual_seed(0)
    start = torch.randn(1000)
    parameter = nn.Parameter(start.clone())
    Optimizer([("w", parameter)], method(roles=roles, update=update), seed=3)
    assert torch.equal(parameter.detach(), start.bfloat16().float())


def test_a_norm_is_told_without_the_factor_that_is_left_in_gradients() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = 1024 * torch.tensor([3.0, 4.0])
    optimizer = Optimizer([("w", parameter)], method(update={"optimizer": "hadam"}))
    did = optimizer.step(0.1, factor=1024)
    assert did.gradient_norm == pytest.approx(5)
