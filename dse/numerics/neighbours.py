"""The two values on a grid that a weight can be rounded to: all that learned rounding sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dse.numerics.calibrate import calibrated_state
from dse.numerics.grids.state import QuantizerState
from dse.numerics.quantize import quantize
from hwmodels.formats.quantizer import Quantizer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Neighbours:
    """The grid values just below and just above each weight; equal where the weight is on it."""

    down: Tensor
    up: Tensor


def neighbours(
    weight: Tensor,
    quantizer: Quantizer,
    *,
    axes: Sequence[int],
    state: QuantizerState | None = None,
) -> Neighbours:
    """`round_down(weight)` and `round_up(weight)` under one fixed set of scales."""
    fixed = state or calibrated_state(weight, quantizer, axes=axes)
    down, up = (
        quantize(weight, quantizer.replaced(rounding=mode), axes=axes, state=fixed)
        for mode in ("down", "up")
    )
    return Neighbours(down=torch.minimum(down, up), up=torch.maximum(down, up))
