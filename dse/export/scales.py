"""The scales of a quantized constant, as the emulator has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from dse.execute.emulate import Emulator
from dse.numerics.calibrate import complete_state

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowScales:
    """Scales of rows (slices, depth): (slices or 1, groups or 1) each, and what multiplies all."""

    scales: FloatArray
    zeros: FloatArray
    """Zero points."""
    level: np.float32
    """The second level of a two-level format, else 1."""
    offsets: FloatArray | None = None
    """Addends of codes times scales; None where the format has no offsets."""


def scales_of(rows: FloatArray, emulator: Emulator) -> RowScales:
    """The scales of the state that learned them, else those that the values ask for."""
    quantizer, state = emulator.quantizer, emulator.state
    if state is None or state.scales is None:
        given = None if state is None else state.tensor_scale
        state = complete_state(torch.from_numpy(rows), quantizer, tensor_scale=given)
    assert state.scales is not None, "a format with a scale has one"
    scales: FloatArray = state.scales.numpy()
    zeros = np.zeros_like(scales) if state.zero_points is None else state.zero_points.numpy()
    offsets = None if state.offsets is None else state.offsets.numpy()
    level = np.float32(1.0 if state.tensor_scale is None else state.tensor_scale)
    return RowScales(scales=scales, zeros=zeros, level=level, offsets=offsets)


def spread(part: FloatArray, shape: tuple[int, ...], group: int) -> FloatArray:
    """One value an element from one a group; the last group may be short."""
    slices, depth = shape
    if part.shape[1] > 1:
        part = np.repeat(part, group, axis=1)[:, :depth]
    return np.broadcast_to(part, (slices, depth))
