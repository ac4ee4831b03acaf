"""What calibration fixes: the numbers that a static quantizer needs at one site."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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
    tensor_scale: float | None = None
    """Two-level formats: the scale of the whole tensor."""
    channel_factors: Tensor | None = None
    """Transforms `smooth` and `equalize`: (depth,), or (slices, depth), multiplied before
    quantization and divided out after it."""
    values: Tensor | None = None
    """A learned rounding: the quantized tensor itself, shaped as the tensor it replaces."""
    output_shift: Tensor | None = None
    """Bias correction of a weight: what is added to the node's output, by output channel."""

    @property
    def changes_values(self) -> bool:
        """Whether there is more than a shift of outputs."""
        parts = (self.scales, self.tensor_scale, self.channel_factors, self.values)
        return any(part is not None for part in parts)
