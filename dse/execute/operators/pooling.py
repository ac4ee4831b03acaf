"""Pooling: the largest, the mean or a norm of each window."""

# Positional parameters are the inputs of an ONNX operator, however many it has.
# ruff: noqa: PLR0917

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from dse.execute.operators.operator import Operator, operator
from dse.execute.operators.window import Window, window

_MAX_POOL = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_AVERAGE_POOL = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


def _frame(
    x: Tensor, kernel: Sequence[int], strides: Sequence[int] | None,
    dilations: Sequence[int] | None, pads: Sequence[int] | None, auto_pad: str, ceil_mode: int,
) -> Window:  # fmt: skip
    """The window, padded at the end so far that the last one counted by `ceil_mode` fits."""
    frame = window(
        x.shape[2:], kernel, strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad
    )
    if not ceil_mode:
        return frame
    after = []
    for axis, size in enumerate(x.shape[2:]):
        padded = size + frame.before[axis] + frame.after[axis]
        steps = -(-(padded - frame.extent[axis]) // frame.strides[axis])
        # A window that starts in the padding after the input does not count.
        if steps * frame.strides[axis] >= size + frame.before[axis]:
            steps -= 1
        reach = steps * frame.strides[axis] + frame.extent[axis]
        after.append(frame.after[axis] + max(0, reach - padded))
    return replace(frame, after=tuple(after))


def _smallest(x: Tensor) -> float:
    return -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min


def max_pool(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: tuple[int, ...] | None = None,
    kernel_shape: tuple[int, ...],
    pads: tuple[int, ...] | None = None,
    storage_order: int = 0,
    strides: tuple[int, ...] | None = None,
    output_count: int = 1,
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest of each window; as a second output its flat position in the whole input."""
    frame = _frame(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    rank = len(kernel_shape)
    pool = _MAX_POOL[rank]
    fits = frame.symmetric and all(
        2 * p <= k for p, k in zip(frame.before, kernel_shape, strict=True)
    )
    if fits and output_count == 1 and x.is_floating_point():
        return pool(x, frame.kernel, frame.strides, frame.before, frame.dilations)
    # torch has no integer pooling; 8-bit values are exact in float32.
    values = x if x.is_floating_point() else x.float()
    padded = functional.pad(values, frame.torch_pads, value=_smallest(values))
    y, index = pool(padded, frame.kernel, frame.strides, 0, frame.dilations, return_indices=True)
    y = y.to(x.dtype)
    return y if output_count == 1 else (y, _flat_positions(x, padded, index, frame, storage_order))


def _flat_positions(
    x: Tensor, padded: Tensor, index: Tensor, frame: Window, storage_order: int
) -> Tensor:
    """Positions in the padded plane to positions in x, row-major or column-major in the plane."""
    spatial = x.shape[2:]
    order = range(len(spatial)) if storage_order else reversed(range(len(spatial)))
    places = []
    for axis in reversed(range(len(spatial))):
        places.append(index % padded.shape[axis + 2] - frame.before[axis])
        index = index // padded.shape[axis + 2]
    places.reverse()
    flat, stride = torch.zeros_like(index), 1
    for axis in order:
        flat = flat + places[axis] * stride
        stride *= spatial[axis]
    planes = torch.arange(x.shape[0] * x.shape[1], device=x.device) * spatial.numel()
    return flat + planes.reshape(x.shape[0], x.shape[1], *(1,) * len(spatial))


def average_pool(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: tuple[int, ...] | None = None,
    kernel_shape: tuple[int, ...],
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Tensor:
    """The mean of each window, over its real elements or over the padding too."""
    exact = _frame(x, kernel_shape, strides, dilations, pads, auto_pad, 0)
    frame = _frame(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    total = _window_sums(functional.pad(x, frame.torch_pads), frame)
    counted = x.new_ones((1, 1, *x.shape[2:]))
    if count_include_pad:
        counted = functional.pad(counted, exact.torch_pads, value=1.0)
        surplus = replace(frame, before=(0,) * len(frame.before), after=tuple(
            a - b for a, b in zip(frame.after, exact.after, strict=True)
        ))  # fmt: skip
        counted = functional.pad(counted, surplus.torch_pads)
    else:
        counted = functional.pad(counted, frame.torch_pads)
    return total / _window_sums(counted, frame)


def _window_sums(padded: Tensor, frame: Window) -> Tensor:
    """Sums of each window of an input that is padded already."""
    if set(frame.dilations) == {1} and len(frame.kernel) in _AVERAGE_POOL:
        taps = math.prod(frame.kernel)
        return _AVERAGE_POOL[len(frame.kernel)](padded, frame.kernel, frame.strides) * taps
    for axis, (taps, stride, dilation) in enumerate(
        zip(frame.kernel, frame.strides, frame.dilations, strict=True), start=2
    ):
        extent = (taps - 1) * dilation + 1
        padded = padded.unfold(axis, extent, stride)[..., ::dilation].sum(-1)
    return padded


def lp_pool(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: tuple[int, ...] | None = None,
    kernel_shape: tuple[int, ...],
    p: int = 2,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Tensor:
    """The p-norm of each window."""
    frame = _frame(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    return _window_sums(functional.pad(x.abs() ** p, frame.torch_pads), frame) ** (1 / p)


def _spatial(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


def global_average_pool(x: Tensor) -> Tensor:
    """(N, C, spatial ...) -> (N, C, 1 ...)."""
    return x.mean(_spatial(x), keepdim=True)


def global_max_pool(x: Tensor) -> Tensor:
    """(N, C, spatial ...) -> (N, C, 1 ...)."""
    return x.amax(_spatial(x), keepdim=True)


def global_lp_pool(x: Tensor, *, p: int = 2) -> Tensor:
    """The p-norm of each channel."""
    return (x.abs() ** p).sum(_spatial(x), keepdim=True) ** (1 / p)


def max_unpool(
    x: Tensor,
    index: Tensor,
    output_shape: Tensor | None = None,
    *,
    kernel_shape: tuple[int, ...],
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Tensor:
    """Zeros with the elements of x at the positions that max pooling reported."""
    rank = len(kernel_shape)
    strides = strides or (1,) * rank
    pads = pads or (0,) * 2 * rank
    natural = [
        (size - 1) * strides[axis] - pads[axis] - pads[rank + axis] + kernel_shape[axis]
        for axis, size in enumerate(x.shape[2:])
    ]
    shape = [*x.shape[:2], *natural]
    y = x.new_zeros(math.prod(shape)).scatter(0, index.reshape(-1), x.reshape(-1)).reshape(shape)
    if output_shape is None:
        return y
    # The positions count in the natural shape; a larger output is filled at the end.
    wanted = output_shape.tolist()
    grow = [n for axis in reversed(range(len(shape))) for n in (0, wanted[axis] - shape[axis])]
    return functional.pad(y, grow)


OPERATORS: Mapping[str, Operator] = {
    "AveragePool": operator(average_pool),
    "GlobalAveragePool": operator(global_average_pool),
    "GlobalLpPool": operator(global_lp_pool),
    "GlobalMaxPool": operator(global_max_pool),
    "LpPool": operator(lp_pool),
    "MaxPool": operator(max_pool),
    "MaxUnpool": operator(max_unpool, host=(2,)),
}
