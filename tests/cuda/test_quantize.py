"""Torch operations and, on a GPU, the fused kernels give the bits of the CPU kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dse.numerics import QuantizerState, quantize
from dse.numerics.grids.defaults import kernel_quantizer
from dse.numerics.grids.layout import Layout, layout_of
from dse.numerics.on_cuda import fuses
from dse.numerics.on_device import quantize_on_device
from hwmodels.formats.catalog import quantizer
from hwmodels.formats.quantizer import Quantizer
from tests.numerics.comparison import mismatches

FUSED = [
    "bf16", "tf32", "fp16", "e4m3", "e2m1", "e8m3", "e4m3:zero", "e4m3:odd", "e4m3:nearest_away",
    "e4m3:stochastic", "e2m1:stochastic8", "e4m3:stochastic_equal", "fixed8_4", "e4m3fnuz",
    "posit8_1", "int8", "int8:static", "e4m3_tensor", "e4m3_tensor:stochastic", "int8_channel",
    "e4m3_token", "int4_g32", "mxfp8", "mxfp6", "mxint8", "mxfp4", "mxfp4:stochastic",
    "mxfp4:zero", "nvfp4", "nvfp4:stochastic8", "nf4_g64", "e2m1@g16/ue5m3+fp32",
    "e2m1@g32/e8m0-rceil", "e2m1@g32/e8m0-even", "e2m1@g32/e8m0-ceil",
]  # fmt: skip
BY_TORCH = ["posit16_1", "uint8_channel", "int4_g32:mse", "posit8_1:stochastic", "int6@g7/fp32"]


def _state(name: str, device: str = "cpu") -> QuantizerState | None:
    if "static" not in name:
        return None
    return QuantizerState(scales=torch.full((1, 1), 0.37, device=device))


def _inputs(patterns: np.ndarray) -> list[Tensor]:
    """Usual values, rows far from one, every kind of bit pattern, and bf16."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(512, 512, generator=generator)
    powers = torch.randint(-149, 120, (512, 1), generator=generator)
    bits = torch.from_numpy(patterns).reshape(-1, 512)
    return [normal, torch.ldexp(normal, powers), bits, normal.bfloat16(), bits.bfloat16()]


def _arranged(x: Tensor, chosen: Quantizer, axes: tuple[int, ...]) -> tuple[Quantizer, Layout]:
    settled = kernel_quantizer(chosen)
    return settled, layout_of(x, axes, logical=settled.is_random)


@pytest.mark.parametrize("name", [*FUSED, *BY_TORCH])
def test_both_devices_agree(name, fewer_patterns, device):
    few = slice(None) if device == "cuda" else slice(None, None, 16)
    for whole in _inputs(fewer_patterns):
        x = whole[few].contiguous()
        for axes in ((1,), (0,)):
            here = quantize(x, quantizer(name), axes=axes, state=_state(name), seed=3)
            # The state stays on the host: what applies it moves it.
            there = quantize(x.to(device), quantizer(name), axes=axes, state=_state(name), seed=3)
            assert there.device.type == torch.device(device).type
            assert mismatches(there.float().cpu().numpy(), here.float().numpy()) == 0


@pytest.mark.cuda
@pytest.mark.parametrize("name", [*FUSED, *BY_TORCH])
def test_torch_operations_on_cuda_and_cpu_agree(name, fewer_patterns):
    for x in _inputs(fewer_patterns):
        chosen, layout = _arranged(x, quantizer(name), (1,))
        state = _state(name, "cuda") or QuantizerState()
        gpu = quantize_on_device(x.cuda(), chosen, layout, state, out=None, seed=3)
        cpu = quantize(x, chosen, axes=(1,), state=_state(name), seed=3)
        assert mismatches(gpu.float().cpu().numpy(), cpu.float().numpy()) == 0


@pytest.mark.cuda
@pytest.mark.parametrize("name", FUSED)
def test_whole_groups_of_contiguous_rows_are_fused(name):
    x = torch.zeros(4, 512, device="cuda")
    chosen, layout = _arranged(x, quantizer(name), (1,))
    assert fuses(x, chosen, layout, _state(name) or QuantizerState())
