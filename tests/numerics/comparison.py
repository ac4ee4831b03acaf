"""How values are compared: bit for bit, except that any NaN equals any NaN."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from dse.numerics import QuantizerState, quantize
from hwmodels.formats.catalog import quantizer


def quantized(
    x: npt.NDArray[np.float32],
    name: str,
    *,
    axes: tuple[int, ...] = (-1,),
    state: QuantizerState | None = None,
    seed: int = 0,
) -> npt.NDArray[np.float32]:
    """`quantize` for numpy arrays and quantizer names."""
    values = torch.from_numpy(np.ascontiguousarray(x))
    return quantize(values, quantizer(name), axes=axes, state=state, seed=seed).numpy()


def mismatches(got: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> int:
    """How many values differ, by bits or in being NaN."""
    both_nan = np.isnan(got) & np.isnan(expected)
    different = got.view(np.uint32) != expected.astype(np.float32).view(np.uint32)
    return int((different & ~both_nan).sum())


def input_patterns(*, random: int) -> npt.NDArray[np.float32]:
    """Every bf16 and fp16 value, and so many random float32 bit patterns, specials included."""
    bf16 = np.arange(1 << 16, dtype=np.uint32) << 16
    fp16 = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    drawn = np.random.default_rng(0).integers(0, 1 << 32, random, dtype=np.uint32)
    return np.concatenate([bf16.view(np.float32), fp16, drawn.view(np.float32)])
