"""Geometry that convolution and pooling share: kernels, strides, dilations, pads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A sliding window over the spatial axes, every field with one entry an axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    """Padding at the start of each axis."""
    after: tuple[int, ...]
    """Padding at the end of each axis."""

    @property
    def extent(self) -> tuple[int, ...]:
        """Input elements that the dilated kernel spans."""
        pairs = zip(self.kernel, self.dilations, strict=True)
        return tuple((size - 1) * dilation + 1 for size, dilation in pairs)

    @property
    def symmetric(self) -> bool:
        """Whether both ends of every axis are padded alike."""
        return self.before == self.after

    @property
    def torch_pads(self) -> list[int]:
        """Pads in the order of `torch.nn.functional.pad`: last axis first."""
        pairs = reversed(list(zip(self.before, self.after, strict=True)))
        return [size for pair in pairs for size in pair]


def window(
    spatial: Sequence[int],
    kernel: Sequence[int],
    *,
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    auto_pad: str,
) -> Window:
    """The window of a node over an input of the given spatial sizes.

    `SAME_UPPER` and `SAME_LOWER` pad so that the output has ceil(input / stride) elements, an odd
    surplus at the end or at the start.
    """
    rank = len(spatial)
    strides = tuple(strides or (1,) * rank)
    dilations = tuple(dilations or (1,) * rank)
    if auto_pad in ("NOTSET", ""):
        pads = tuple(pads or (0,) * 2 * rank)
        before, after = pads[:rank], pads[rank:]
    elif auto_pad == "VALID":
        before = after = (0,) * rank
    else:
        total = [
            max(0, (-(-size // stride) - 1) * stride + (taps - 1) * dilation + 1 - size)
            for size, taps, stride, dilation in zip(
                spatial, kernel, strides, dilations, strict=True
            )
        ]
        small = tuple(pad // 2 for pad in total)
        large = tuple(pad - pad // 2 for pad in total)
        before, after = (small, large) if auto_pad == "SAME_UPPER" else (large, small)
    return Window(
        kernel=tuple(kernel), strides=strides, dilations=dilations, before=before, after=after
    )
