"""The three products of every kind of contraction, and their gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.numerics import ACCUMULATORS, matmul, quantize
from dse.training.derivative import slope
from dse.training.method import Method, Operand
from dse.training.quantized import apply
from dse.training.rounding import CASTS, Draw, rounded
from hwmodels.formats.catalog import quantizer
from tests.training.methods import EXACT_ATTENTION, exact, method


class Attention(nn.Module):
    """Queries, keys and values as inputs."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.options = options

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, **self.options)  # type: ignore[arg-type]


class Times(nn.Module):
    """A product with a parameter stored the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 5))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


MODULES: dict[str, tuple[Callable[[], nn.Module], list[tuple[int, ...]]]] = {
    "linear": (lambda: nn.Linear(6, 5), [(2, 3, 6)]),
    "matmul": (Times, [(2, 3, 6)]),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=1), [(2, 4, 7)]),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), [(2, 4, 6, 6)]),
    "same": (lambda: nn.Conv2d(2, 3, 3, padding="same", dilation=2), [(1, 2, 6, 6)]),
    "attention": (Attention, [(1, 2, 4, 3)] * 3),
    "causal": (lambda: Attention(is_causal=True, scale=0.3), [(1, 2, 4, 3)] * 3),
    "grouped": (
        lambda: Attention(enable_gqa=True, is_causal=True),
        [(1, 4, 4, 3), (1, 2, 4, 3), (1, 2, 4, 3)],
    ),
}


def made(name: str) -> tuple[nn.Module, list[Tensor]]:
    torch.manual_seed(0)
    build, shapes = MODULES[name]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    return build().double(), inputs


@pytest.mark.parametrize("name", MODULES)
def test_exact_products_are_torchs_and_their_gradients_finite_differences(name: str) -> None:
    module, inputs = made(name)
    wrapped = apply(module, exact())
    assert torch.allclose(wrapped(*inputs), module(*inputs), atol=1e-12)
    parameters = list(module.parameters())

    def run(*given: Tensor) -> Tensor:
        pairs = zip(module.named_parameters(), given[len(inputs) :], strict=True)
        changed = {f"model.{key}": value for (key, _), value in pairs}
        assert wrapped.sites
        return torch.func.functional_call(wrapped, changed, given[: len(inputs)])

    assert torch.autograd.gradcheck(run, (*inputs, *parameters))


def passes(found: Method) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """y, dx and dw of a linear layer, with x, w and dy."""
    torch.manual_seed(1)
    layer = nn.Linear(64, 48, bias=False)
    x = torch.randn(32, 64, requires_grad=True)
    dy = torch.randn(32, 48)
    y = apply(layer, found)(x)
    y.backward(dy)
    assert x.grad is not None
    assert layer.weight.grad is not None
    return y.detach(), x.grad, layer.weight.grad, (x.detach(), layer.weight.detach(), dy)


def test_each_pass_rounds_its_factors_along_its_own_sum() -> None:
    mx, nv = "e4m3@g32/e8m0-rceil", "nvfp4"
    y, dx, dw, (x, w, dy) = passes(
        method(roles={"weight": mx, "activation": nv, "activation_gradient": "e5m2_tensor"})
    )

    def along(values: Tensor, name: str, axis: int) -> Tensor:
        return quantize(values, quantizer(name), axes=(axis,))

    g = along(dy, "e5m2_tensor", 1)
    assert torch.equal(y, along(x, nv, 1) @ along(w, mx, 1).T)
    assert torch.equal(dx, g @ along(w, mx, 0))
    assert torch.equal(dw, g.T @ along(x, nv, 0))


def test_a_backward_product_can_read_what_the_forward_one_rounded() -> None:
    again = {"format": "mxfp8", "of": "forward"}
    _, dx, dw, (x, w, dy) = passes(
        method(
            roles={
                "weight@fprop": "nvfp4", "weight@dgrad": again, "activation@fprop": "nvfp4",
                "activation@wgrad": again, "activation_gradient": "fp32",
            }
        )
    )  # fmt: skip
    nv, mx = quantizer("nvfp4"), quantizer("mxfp8")
    twice = [quantize(quantize(one, nv, axes=(1,)), mx, axes=(0,)) for one in (x, w)]
    assert torch.equal(dx, dy @ twice[1])
    assert torch.equal(dw, dy.T @ twice[0])


def test_what_is_saved_is_not_what_is_multiplied() -> None:
    y, _, dw, (x, w, dy) = passes(
        method(roles={"*": "fp32", "saved_activation": "e4m3@g16", "activation": "fp32"})
    )
    kept = quantize(x, quantizer("e4m3@g16"), axes=(1,))
    assert torch.equal(y, x @ w.T)
    assert torch.equal(dw, dy.T @ kept)


def test_a_weight_gradient_is_rounded_as_it_is_kept() -> None:
    _, _, dw, (x, _, dy) = passes(method(roles={"*": "fp32", "weight_gradient": "e4m3_tensor"}))
    assert torch.equal(dw, quantize(dy.T @ x, quantizer("e4m3_tensor"), axes=(-1,)))


def test_a_narrow_accumulator_sums_the_pass_that_names_it() -> None:
    narrow = ACCUMULATORS["hopper_fp8"]
    y, dx, _, (x, w, dy) = passes(method(roles={"*": "fp32", "accumulator@fprop": narrow.name}))
    assert torch.equal(y, matmul(x, w.T.contiguous(), narrow))
    assert not torch.equal(y, x @ w.T)
    assert torch.equal(dx, dy @ w)


@pytest.mark.parametrize("signs", ["none", "fixed", "fresh"])
def test_a_rotation_of_both_factors_changes_rounding_and_not_the_product(signs: str) -> None:
    turned = {"hadamard": 16, "signs": signs}
    exactly = passes(method(roles={"*": "fp32"}))[0]
    wide = passes(method(roles={"*": {"format": "e8m20", **turned}}))[0]
    narrow = passes(method(roles={"*": {"format": "nvfp4", **turned}}))[0]
    plain = passes(method(roles={"*": "nvfp4"}))[0]
    assert torch.allclose(wide, exactly, atol=1e-4)
    assert not torch.allclose(narrow, plain, atol=1e-3)


def test_fresh_signs_are_those_of_both_factors_and_change_from_step_to_step() -> None:
    turned = {"format": "nvfp4", "hadamard": 64, "signs": "fresh"}
    layer = nn.Linear(64, 8, bias=False)
    wrapped = apply(layer, method(roles={"*": turned}))
    x = torch.randn(4, 64)
    first, second = wrapped(x), wrapped(x)
    assert not torch.equal(first, second)
    wrapped.eval()
    assert torch.equal(wrapped(x), wrapped(x))


@pytest.mark.parametrize("operand", CASTS)
def test_torchs_own_casts_have_the_bits_of_the_quantizer(operand: Operand) -> None:
    x = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    hard = torch.tensor([0.0, -0.0, 1e-9, 6e-8, 65519.0, 65520.0, 1e5, 3.4e38, torch.inf])
    values = torch.cat([x, x * 1e-6, x * 1e4, hard, -hard])
    ours = rounded(values, operand, axes=(0,), draw=Draw())
    assert torch.equal(ours, quantize(values, operand.quantizer, axes=(0,)))


def test_the_slope_multiplies_both_gradients() -> None:
    relaxed = {"format": "nvfp4", "gradient": "spline"}
    _, dx, dw, (x, w, dy) = passes(
        method(
            roles={
                "weight@fprop": relaxed, "activation@fprop": relaxed, "weight@dgrad": "fp32",
                "activation@wgrad": "fp32", "activation_gradient": "fp32",
            }
        )
    )  # fmt: skip
    operand = Operand(format="nvfp4", gradient="spline")
    along_x, along_w = slope(x, operand, axes=(1,)), slope(w, operand, axes=(1,))
    assert along_x is not None
    assert along_w is not None
    assert torch.equal(dx, (dy @ w) * along_x)
    assert torch.equal(dw, (dy.T @ x) * along_w)


def test_attention_rounds_its_own_operands() -> None:
    module, inputs = made("attention")
    q, k, v = (one.detach().float() for one in inputs)
    rule = {"match": {"kind": "attention"}, "roles": {"q": "e4m3_tensor", "v_cache": "int8"}}
    found = apply(module, method(rules=[EXACT_ATTENTION, rule]))(q, k, v)
    seen_q = quantize(q, quantizer("e4m3_tensor"), axes=(-1,))
    seen_v = quantize(v, quantizer("int8"), axes=(-2,))
    expected = torch.softmax(seen_q @ k.mT * q.shape[-1] ** -0.5, -1) @ seen_v
    assert torch.allclose(found, expected, atol=1e-6)
