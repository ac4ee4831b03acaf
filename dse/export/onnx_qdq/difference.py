"""Differences of values, and how many of them ties explain."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

TIES = 0.05
"""Share of the quantization noise that a runtime may differ by: sums in another order put a few
values on the other side of a tie."""
TIES_16_BITS = 0.5
"""The same where the model itself is of 16 bits: 0.2 was seen, for bf16 activations in fp16."""


def ties(dtype: torch.dtype) -> float:
    """The share of the noise for a model of these floats."""
    return TIES if dtype == torch.float32 else TIES_16_BITS


def rounding(dtype: torch.dtype) -> float:
    """Mean square of the difference of two results, over theirs, that their last rounding makes.

    Each is off by at most half a step, a twelfth of its square on average.
    """
    return 2 * torch.finfo(dtype).eps ** 2 / 12 if dtype.is_floating_point else 0.0


def as_tensor(array: npt.NDArray[Any]) -> Tensor:
    """An array in float32."""
    return torch.from_numpy(np.asarray(array, dtype=np.float32))


def mean_square(a: Tensor, b: Tensor | float) -> float:
    """Of a difference."""
    return float((a.double() - b).square().mean())


def largest_difference(found: Tensor, wanted: Tensor) -> float:
    """Of two tensors; NaNs are equal."""
    if not found.numel():
        return 0.0
    same = (found == wanted) | (found.isnan() & wanted.isnan())
    return float(torch.where(same, 0.0, (found.double() - wanted.double()).abs()).max())
