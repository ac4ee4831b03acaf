"""Blocks that we pack are read by gguf-py's own dequantisers without a difference."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from dse.export.base import Inexpressible
from dse.export.gguf.blocks import packed
from dse.export.gguf.types import TYPES, TensorType, type_of
from dse.numerics import calibrated_state, quantize
from dse.numerics.grids.defaults import kernel_quantizer
from dse.numerics.scales import derived_scales
from hwmodels.formats.catalog import format, quantizer


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    """Rows of many sizes: none, constant, all of one sign, tiny, huge."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, 1024, generator=generator) * 0.03
    x *= torch.exp(0.9 * torch.randn(32, 1, generator=generator))
    x[3], x[4, :300], x[5, :40] = 0, 0.5, -0.01
    x[6], x[7] = x[6].abs(), x[7] * 1e-6
    x[8] *= 1e5
    return x


def read(blocks: np.ndarray, type: TensorType) -> np.ndarray:
    return gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[type.name])


@pytest.mark.parametrize("words", ["", ":absmax"])
@pytest.mark.parametrize("type", TYPES, ids=lambda type: type.name)
def test_gguf_py_reads_what_the_emulator_computes(
    type: TensorType, words: str, x: torch.Tensor
) -> None:
    chosen = quantizer(type.format.name + words)
    values = quantize(x, chosen, axes=(1,)).numpy()
    found = derived_scales(x, kernel_quantizer(chosen))
    offsets = None if found.offsets is None else found.offsets.numpy()
    blocks = packed(values, found.scales.numpy(), offsets, type)
    assert np.array_equal(read(blocks, type), values)
    assert blocks.nbytes == chosen.format.storage_bytes(x.shape)
    sizes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[type.name]]
    assert blocks.shape[1] * sizes[0] == x.shape[1] * sizes[1]


@pytest.mark.parametrize(
    ("name", "type"),
    [
        ("int8_g32", "Q8_0"), ("int5_g32", "Q5_0"), ("int4_g32:mse", "Q4_0"),
        ("e2m1@g16/e4m3", "NVFP4"), ("mxfp4", "MXFP4"), ("int4_g128", None),
        ("uint4_g32", None), ("nvfp4", None), ("int8_channel", None), ("posit8_1", None),
        ("int4@g32/fp32", None),
    ],
)  # fmt: skip
def test_formats_are_matched_by_their_numbers(name: str, type: str | None) -> None:
    found = type_of(quantizer(name).format)
    assert (found and found.name) == type


def test_symmetric_integers_fit_into_blocks(x: torch.Tensor) -> None:
    chosen = quantizer("int4_g32:mse")
    state = calibrated_state(x, chosen, axes=(1,))
    values = quantize(x, chosen, axes=(1,), state=state).numpy()
    type = type_of(chosen.format)
    assert type is not None
    assert state.scales is not None
    blocks = packed(values, state.scales.numpy(), None, type)
    assert np.array_equal(read(blocks, type), values)


def test_values_beside_the_grid_are_refused(x: torch.Tensor) -> None:
    chosen = quantizer("q4_k")
    found = derived_scales(x, kernel_quantizer(chosen))
    assert found.offsets is not None
    type = type_of(format("q4_k"))
    assert type is not None
    with pytest.raises(Inexpressible, match="not codes times scales"):
        packed(x.numpy(), found.scales.numpy(), found.offsets.numpy(), type)
    scales, offsets = found.scales.numpy() * np.float32(np.pi), found.offsets.numpy()
    other = np.repeat(scales, 32, axis=1) + np.repeat(offsets, 32, axis=1)
    with pytest.raises(Inexpressible, match="no uint6 times one fp16"):
        packed(other, scales, offsets, type)
