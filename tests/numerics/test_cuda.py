"""On a GPU, torch operations and the fused kernels give the bits of the CPU kernels."""

from __future__ import annotations

import pytest
import torch

from dse.numerics import QuantizerState, on_cuda, quantize
from hwmodels.catalog import quantizer
from tests.numerics.comparison import mismatches

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
NAMES = [
    "bf16", "tf32", "fp16", "e4m3", "e2m1", "e8m3", "e4m3:zero", "e4m3:odd", "e4m3:stochastic",
    "e2m1:stochastic8", "posit8_1", "posit16_1", "int8", "int8:static", "e4m3_tensor",
    "int8_channel", "e4m3_token", "uint8_channel", "int4_g32", "int4_g32:mse", "mxfp8", "mxfp4",
    "mxfp4:stochastic", "nvfp4", "nf4_g64", "e2m1@g32/e8m0-rceil", "e2m1@g32/e8m0-even",
]  # fmt: skip


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_cuda_and_cpu_agree(name, fused, fewer_patterns, monkeypatch):
    monkeypatch.setattr(on_cuda, "ENABLED", fused)
    state = QuantizerState(scales=torch.full((1, 1), 0.37)) if "static" in name else None
    normal = torch.randn(512, 512, generator=torch.Generator().manual_seed(0))
    for values in (normal, torch.from_numpy(fewer_patterns).reshape(-1, 512), normal.bfloat16()):
        for axes in ((1,), (0,)):
            cpu = quantize(values, quantizer(name), axes=axes, state=state, seed=3)
            gpu = quantize(values.cuda(), quantizer(name), axes=axes, state=state, seed=3)
            assert mismatches(gpu.float().cpu().numpy(), cpu.float().numpy()) == 0
