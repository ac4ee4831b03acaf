"""The scales of a quantized constant, as the emulator has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dse.execute.emulate import Emulator
from dse.numerics import QuantizerState, calibrated_state
from dse.numerics.grids.defaults import kernel_quantizer
from dse.numerics.scales import derived_scales
from hwmodels.formats.quantizer import Quantizer

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
        state = _derived(torch.from_numpy(rows), quantizer, state)
    assert state.scales is not None, "a format with a scale has one"
    scales: FloatArray = state.scales.numpy()
    zeros = np.zeros_like(scales) if state.zero_points is None else state.zero_points.numpy()
    offsets = None if state.offsets is None else state.offsets.numpy()
    return RowScales(scales=scales, zeros=zeros, level=_level(state), offsets=offsets)


def _derived(rows: Tensor, quantizer: Quantizer, state: QuantizerState | None) -> QuantizerState:
    """Both levels of scales that nothing was learned about."""
    found = calibrated_state(rows, quantizer.replaced(timing="static"), axes=(1,))
    if found.scales is not None:
        return found
    level = _level(found if state is None or state.tensor_scale is None else state)
    blocks = derived_scales(rows, kernel_quantizer(quantizer), tensor_scale=float(level))
    return QuantizerState(scales=blocks.scales, tensor_scale=float(level))


def _level(state: QuantizerState) -> np.float32:
    return np.float32(1.0 if state.tensor_scale is None else state.tensor_scale)


def spread(part: FloatArray, shape: tuple[int, ...], group: int) -> FloatArray:
    """One value an element from one a group; the last group may be short."""
    slices, depth = shape
    if part.shape[1] > 1:
        part = np.repeat(part, group, axis=1)[:, :depth]
    return np.broadcast_to(part, (slices, depth))
