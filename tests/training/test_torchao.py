"""Gradients of a method beside those of torchao's emulation of MX formats."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from dse.training.quantized import apply
from tests.training.methods import method

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of parts that want a GPU
    pytest.importorskip("torchao")
    mx = pytest.importorskip("torchao.prototype.mx_formats.mx_tensor")
    config = pytest.importorskip("torchao.prototype.mx_formats.config")

BLOCK = 32


def theirs(x: Tensor, mode: str) -> Tensor:
    """E4M3 in blocks along the last axis, as torchao rounds and reads them."""
    scaling = getattr(config.ScaleCalculationMode, mode)
    made = mx.MXTensor.to_mx(x.contiguous(), torch.float8_e4m3fn, BLOCK, scaling)
    found: Tensor = made.dequantize(torch.float32)
    return found


@pytest.mark.parametrize(("rule", "mode"), [("floor", "FLOOR"), ("rceil", "RCEIL")])
def test_the_three_products_of_mxfp8_are_those_of_torchaos_tensors(rule: str, mode: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 96, requires_grad=True)
    dy = 1e-3 * torch.randn(64, 128)
    layer = nn.Linear(96, 128, bias=False)
    name = f"e4m3@g32/e8m0-{rule}"
    roles = {"weight": name, "activation": name, "activation_gradient": name}
    y = apply(layer, method(roles=roles))(x)
    y.backward(dy)
    w = layer.weight.detach()
    given = x.detach()
    assert x.grad is not None
    assert layer.weight.grad is not None
    assert torch.equal(y.detach(), theirs(given, mode) @ theirs(w, mode).T)
    assert torch.allclose(x.grad, theirs(dy, mode) @ theirs(w.T, mode).T, atol=1e-8)
    by_tokens = theirs(dy.T, mode) @ theirs(given.T, mode).T
    assert torch.allclose(layer.weight.grad, by_tokens, atol=1e-7)
    exact = dy.T @ given
    assert not torch.allclose(layer.weight.grad, exact, atol=1e-5)
