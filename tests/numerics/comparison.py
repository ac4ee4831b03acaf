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
