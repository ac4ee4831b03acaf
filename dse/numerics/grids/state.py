"""The outcome of calibration: the numbers that a static quantizer needs at one site."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

TENSORS = ("scales", "zero_points", "offsets", "channel_factors", "values", "output_shift")
"""Fields of a state that are tensors."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuantizerState:
    """Calibrated numbers of one quantizer at one site.

    Scales have the shape (slices or 1, groups or 1): slices in the order of the axes that are not
    contracted.
    """

    scales: Tensor | None = None
    """None: block scales stay dynamic (NVFP4's second level is what is calibrated)."""
    zero_points: Tensor | None = None
    """Affine integers: float32, whole numbers, shaped as `scales`."""
    offsets: Tensor | None = None
    """Formats with offsets: what is added to codes times scales, float32, shaped as `scales`."""
    tensor_scale: float | None = None
    """Two-level formats: the scale of the whole tensor."""
    channel_factors: Tensor | None = None
    """Transforms `smooth` and `equalize`: (depth,), or (slices, depth), multiplied before
    quantization and divided out after it."""
    values: Tensor | None = None
    """A learned rounding: the quantized tensor itself, shaped as the tensor it replaces."""
    output_shift: Tensor | None = None
    """Bias correction of a weight: what is added to the node's output, by output channel."""

    def on(self, device: torch.device) -> QuantizerState:
        """The same numbers on a device; the state itself where they are there already."""
        moved = {
            name: value.to(device)
            for name in TENSORS
            if (value := getattr(self, name)) is not None and value.device != device
        }
        return replace(self, **moved) if moved else self

    def apart(self) -> QuantizerState:
        """A copy in memory of its own: a file of tensors stores none twice."""
        parts = {
            name: value.clone() for name in TENSORS if (value := getattr(self, name)) is not None
        }
        return replace(self, **parts)

    @property
    def changes_values(self) -> bool:
        """Whether there is more than a shift of outputs."""
        parts = (self.scales, self.tensor_scale, self.channel_factors, self.values)
        return any(part is not None for part in parts)
