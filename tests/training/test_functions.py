"""Functions between products: numbers of 16 bits, and forms that those can hold."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional

from dse.errors import MethodError
from dse.training.functions import normal_log_density, softplus
from dse.training.quantized import Quantized
from tests.training.methods import exact, method


class Calls(nn.Module):
    """A module that calls one function."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *arguments: Tensor) -> Tensor:
        """The function's result."""
        found: Tensor = self.function(*arguments)
        return found


def called(function: Any, *arguments: Tensor, **functions: Any) -> Tensor:
    """The function under a method whose functions are these."""
    found: Tensor = Quantized(Calls(function), method(functions=functions))(*arguments)
    return found


def test_the_functions_are_torchs_where_numbers_are_wide() -> None:
    x = torch.linspace(-20, 20, 101, dtype=torch.float64)
    torch.testing.assert_close(softplus(x), functional.softplus(x, threshold=50))
    deviation = x.abs() + 0.1
    expected = Normal(x, deviation).log_prob(x + 1)
    torch.testing.assert_close(normal_log_density(x + 1, x, deviation), expected)


@given(st.floats(-30, 1000))
def test_the_linear_branch_is_softplus_wherever_fp16_goes(x: float) -> None:
    at = torch.tensor([x]).half().requires_grad_()
    found = called(softplus, at, rewrites=["softplus"])
    wide = at.detach().double()
    expected = functional.softplus(wide)
    torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=1e-3)
    (slope,) = torch.autograd.grad(found.sum(), at)
    torch.testing.assert_close(slope.double(), wide.sigmoid(), rtol=2e-3, atol=1e-3)


def test_what_is_not_rewritten_leaves_the_range_of_fp16() -> None:
    at = torch.tensor([0.0, 12.0]).half().requires_grad_()
    found = called(softplus, at)
    assert found.tolist() == [pytest.approx(0.6934, abs=1e-3), float("inf")]
    (slope,) = torch.autograd.grad(found.sum(), at)
    assert torch.isnan(slope[1])


def test_torchs_own_softplus_takes_the_linear_branch_too() -> None:
    seen = []

    def function(x: Tensor) -> Tensor:
        seen.append(functional.softplus(x))
        return seen[-1]

    found = called(function, torch.tensor([20.0]).half(), rewrites=["softplus"])
    assert found.item() == 20


@pytest.mark.parametrize("deviation", [1e-3, 1e-2, 1.0])
@pytest.mark.parametrize("ratio", [0.0, 1.0, -2.0])
def test_the_ratio_before_its_square_is_the_density_in_fp16(
    deviation: float, ratio: float
) -> None:
    x, scale = torch.tensor([ratio * deviation]).half(), torch.tensor([deviation]).half()
    zero = torch.zeros_like(x)
    found = called(normal_log_density, x, zero, scale, rewrites=["normal"])
    expected = Normal(0.0, scale.double()).log_prob(x.double())
    torch.testing.assert_close(found.double(), expected, rtol=3e-3, atol=3e-3)


def test_a_rewrite_that_took_a_functions_place_is_known() -> None:
    functions = {"rewrites": ["softplus", "normal"]}
    wrapped = Quantized(Calls(softplus), method(functions=functions))
    assert not wrapped.rewritten
    wrapped(torch.zeros(1).half())
    assert wrapped.rewritten == {"softplus"}


def test_squares_of_small_distances_are_nothing_in_fp16() -> None:
    small = torch.tensor([1e-4]).half()
    assert not torch.isfinite(called(normal_log_density, small, 0 * small, small)).all()


@pytest.mark.parametrize(("format", "number"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_what_lies_between_products_has_the_numbers_of_the_method(
    format: str, number: torch.dtype
) -> None:
    """Products take float32, and gradients of what lies between are narrow as well."""
    seen: list[tuple[torch.dtype, torch.dtype]] = []

    def squared(x: Tensor) -> Tensor:
        x.register_hook(lambda gradient: seen.append((x.dtype, gradient.dtype)))
        return x * x

    network = nn.Sequential(nn.Linear(3, 4), Calls(squared), nn.Linear(4, 2))
    found = Quantized(network, method(functions={"format": format}))(torch.randn(5, 3))
    assert found.dtype == number
    found.float().sum().backward()
    assert seen == [(number, number)]
    assert network[0].weight.grad is not None
    assert network[0].weight.grad.dtype == torch.float32


def test_without_functions_nothing_changes() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Softplus(), nn.Linear(4, 2))
    x = torch.randn(5, 3)
    assert torch.equal(Quantized(network, exact())(x), network(x))


@pytest.mark.parametrize(
    ("functions", "words"),
    [
        ({"rewrites": ["softpluss"]}, r"functions\.rewrites.*did you mean 'softplus'"),
        ({"rewrites": ["normal", "normal"]}, "normal stands there twice"),
        ({"format": "e4m3"}, r"functions\.format"),
    ],
)
def test_functions_that_cannot_be_are_refused_by_field(
    functions: dict[str, object], words: str
) -> None:
    with pytest.raises(MethodError, match=words):
        method(functions=functions)
