"""Scales of many groups on the CPU: the compiled path has the bits of the other one."""

from __future__ import annotations

import pytest
import torch

from dse.numerics import scales
from dse.numerics.scales import derived_scales
from hwmodels.formats.catalog import quantizer


@pytest.mark.parametrize(
    "name",
    ["nvfp4", "mxfp8", "e2m1@g16/ue5m3", "e2m1@b16x16/e4m3+fp32", "int4_g32", "int3@g32/fp16",
     "e4m3@g128/fp32", "int8_channel", "int4_channel:rms", "nvfp4:stochastic"],
)  # fmt: skip
@pytest.mark.parametrize("size", [1e-9, 1.0, 1e6])
def test_compiled_scales_are_those_of_torch(
    name: str, size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = size * torch.randn(128, 256, generator=torch.Generator().manual_seed(0))
    x[3], x[::7, ::2] = 0.0, 1e-30
    x[5, 7], x[6, 9] = torch.nan, torch.inf
    chosen, found = quantizer(name), []
    level = 0.013 if chosen.format.tensor_scale else 1.0
    for limit in (1, x.numel() + 1):
        monkeypatch.setattr(scales, "SCALES_COMPILED_FROM", limit)
        found.append(derived_scales(x, chosen, tensor_scale=level).scales)
    assert torch.equal(*(one.nan_to_num(-1.0) for one in found))
    assert found[0].shape == found[1].shape
