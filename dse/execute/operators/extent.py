"""Operators that take elements off the ends of axes, or add some there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from dse.execute.operators.operator import Operator, operator


def slice_(
    x: Tensor,
    starts: Tensor,
    ends: Tensor,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    """Elements start:end:step of each named axis, out-of-range bounds clamped."""
    begin, stop = starts.tolist(), ends.tolist()
    along = range(len(begin)) if axes is None else axes.tolist()
    stride = [1] * len(begin) if steps is None else steps.tolist()
    for axis, first, last, step in zip(along, begin, stop, stride, strict=True):
        positions = range(x.shape[axis])[first:last:step]
        if step > 0:
            x = x.narrow(axis, positions.start, max(0, positions.stop - positions.start))
            x = (
                x
                if step == 1
                else x[(slice(None),) * (axis % x.dim()) + (slice(None, None, step),)]
            )
        else:
            x = x.index_select(axis, torch.tensor(positions, dtype=torch.int64, device=x.device))
    return x


def slice_attribute(
    x: Tensor,
    *,
    starts: tuple[int, ...],
    ends: tuple[int, ...],
    axes: tuple[int, ...] | None = None,
) -> Tensor:
    """Slice before opset 10."""
    along = None if axes is None else torch.tensor(axes)
    return slice_(x, torch.tensor(starts), torch.tensor(ends), along)


def _pad_axis(x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    length = x.shape[axis]
    index = torch.arange(-before, length + after)
    match mode:
        case "edge":
            index = index.clamp(0, length - 1)
        case "wrap":
            index = index.remainder(length)
        case _:  # reflect: 0 1 2 1 0 1 2 ... with period 2 (length - 1)
            period = max(1, 2 * (length - 1))
            index = index.remainder(period)
            index = torch.where(index >= length, period - index, index)
    return x.index_select(axis, index.to(x.device))


def _pad(x: Tensor, pads: Sequence[int], axes: Sequence[int], mode: str, value: float) -> Tensor:
    before = [0] * x.dim()
    after = [0] * x.dim()
    for position, axis in enumerate(axes):
        before[axis], after[axis] = pads[position], pads[position + len(axes)]
    # Negative pads remove elements; they come first so that the rest sees the real border.
    for axis, (low, high) in enumerate(zip(before, after, strict=True)):
        if low < 0 or high < 0:
            start, end = max(-low, 0), x.shape[axis] - max(-high, 0)
            x = x.narrow(axis, start, end - start)
            before[axis], after[axis] = max(low, 0), max(high, 0)
    if mode == "constant":
        pairs = [n for axis in reversed(range(x.dim())) for n in (before[axis], after[axis])]
        return functional.pad(x, pairs, value=value) if any(pairs) else x
    for axis in range(x.dim()):
        if before[axis] or after[axis]:
            x = _pad_axis(x, axis, before[axis], after[axis], mode)
    return x


def pad(
    x: Tensor,
    pads: Tensor,
    value: Tensor | None = None,
    axes: Tensor | None = None,
    *,
    mode: str = "constant",
) -> Tensor:
    """X with elements added (or removed) before and after the named axes."""
    along = range(x.dim()) if axes is None else axes.tolist()
    return _pad(x, pads.tolist(), along, mode, 0 if value is None else value.item())


def pad_attribute(
    x: Tensor, *, pads: tuple[int, ...], mode: str = "constant", value: float = 0.0
) -> Tensor:
    """Pad before opset 11."""
    return _pad(x, pads, range(x.dim()), mode, value)


def pad_attribute_1(
    x: Tensor, *, paddings: tuple[int, ...], mode: str = "constant", value: float = 0.0
) -> Tensor:
    """Pad of opset 1, which spells its attribute differently."""
    return _pad(x, paddings, range(x.dim()), mode, value)


def center_crop_pad(x: Tensor, target: Tensor, *, axes: tuple[int, ...] | None = None) -> Tensor:
    """The centre of x, cropped or zero-padded to a shape."""
    for axis, wanted in zip(axes or range(x.dim()), target.tolist(), strict=True):
        surplus = x.shape[axis] - wanted
        if surplus > 0:
            x = x.narrow(axis, surplus // 2, wanted)
        elif surplus < 0:
            before = -surplus // 2
            x = _pad(x, (before, -surplus - before), (axis,), "constant", 0)
    return x


OPERATORS: Mapping[str, Operator] = {
    "CenterCropPad": operator(center_crop_pad, host=(1,)),
    "Pad": Operator(versions={1: pad_attribute_1, 2: pad_attribute, 11: pad}, host=(1, 2, 3)),
    "Slice": Operator(versions={1: slice_attribute, 10: slice_}, host=(1, 2, 3, 4)),
}
