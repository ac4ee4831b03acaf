"""Convolutions."""

# Positional parameters are the inputs of an ONNX operator, however many it has.
# ruff: noqa: PLR0917

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from dse.execute.operators.linear import tensor
from dse.execute.operators.operator import Function, Operator, Value, operator
from dse.execute.operators.window import window

_CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_CONVOLVE_TRANSPOSED = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: tuple[int, ...] | None = None,
    group: int = 1,
    kernel_shape: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Tensor:
    """x: (N, C, spatial ...), weight: (O, C / group, kernel ...) -> (N, O, spatial ...)."""
    rank = x.dim() - 2
    frame = window(
        x.shape[2:], weight.shape[2:],
        strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad,
    )  # fmt: skip
    padding = frame.before
    if not frame.symmetric:
        x, padding = functional.pad(x, frame.torch_pads), (0,) * rank
    return _CONVOLVE[rank](x, weight, bias, frame.strides, padding, frame.dilations, group)


def convolving(
    before: Callable[..., tuple[Tensor, Tensor, Tensor | None]], after: Callable[..., Tensor]
) -> Function:
    """A convolution of quantised operands, with the attributes of Conv.

    Args:
        before: Conv's operands from the operator's inputs.
        after: the output, from what Conv makes of them and the operator's inputs.
    """

    def convolved(
        *inputs: Tensor | None,
        auto_pad: str = "NOTSET",
        dilations: tuple[int, ...] | None = None,
        group: int = 1,
        kernel_shape: tuple[int, ...] | None = None,
        pads: tuple[int, ...] | None = None,
        strides: tuple[int, ...] | None = None,
    ) -> Tensor:
        y = conv(
            *before(*inputs), auto_pad=auto_pad, dilations=dilations, group=group,
            kernel_shape=kernel_shape, pads=pads, strides=strides,
        )  # fmt: skip
        return after(y, *inputs)

    return convolved


def conv_macs(inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> int:
    """Output elements times the taps of one filter."""
    weight = tensor(inputs[1])
    return tensor(outputs[0]).numel() * weight.shape[1:].numel()


def _transposed_pads(
    x: Tensor, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...],
    output_padding: tuple[int, ...], output_shape: tuple[int, ...] | None, auto_pad: str,
) -> tuple[int, ...]:  # fmt: skip
    sizes = zip(x.shape[2:], kernel, strides, dilations, output_padding, strict=True)
    full = [
        (size - 1) * stride + extra + (taps - 1) * dilation + 1
        for size, taps, stride, dilation, extra in sizes
    ]
    if output_shape is None:
        wanted = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
    else:
        wanted = list(output_shape[-len(full) :])
    total = [size - want for size, want in zip(full, wanted, strict=True)]
    small = tuple(pad // 2 for pad in total)
    large = tuple(pad - pad // 2 for pad in total)
    return small + large if auto_pad == "SAME_UPPER" else large + small


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: tuple[int, ...] | None = None,
    group: int = 1,
    kernel_shape: tuple[int, ...] | None = None,
    output_padding: tuple[int, ...] | None = None,
    output_shape: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Tensor:
    """x: (N, C, spatial ...), weight: (C, O / group, kernel ...) -> (N, O, spatial ...)."""
    rank = x.dim() - 2
    strides = strides or (1,) * rank
    dilations = dilations or (1,) * rank
    extra = output_padding or (0,) * rank
    if output_shape is not None or auto_pad.startswith("SAME"):
        kernel = tuple(weight.shape[2:])
        pads = _transposed_pads(x, kernel, strides, dilations, extra, output_shape, auto_pad)
    pads = pads or (0,) * 2 * rank
    full = _CONVOLVE_TRANSPOSED[rank](x, weight, None, strides, 0, 0, group, dilations)
    # Output padding may exceed the stride here, which torch's own argument forbids.
    crop = [
        n for axis in reversed(range(rank)) for n in (-pads[axis], extra[axis] - pads[rank + axis])
    ]
    full = functional.pad(full, crop) if any(crop) else full
    return full if bias is None else full + bias.reshape(-1, *(1,) * rank)


def conv_transpose_macs(inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> int:
    """Input elements times the taps that each one feeds."""
    return tensor(inputs[0]).numel() * tensor(inputs[1]).shape[1:].numel()


def causal_conv_with_state(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    past_state: Tensor | None = None,
    *,
    activation: str = "none",
) -> tuple[Tensor, Tensor]:
    """Depthwise causal convolution; the last k - 1 inputs are carried to the next call.

    x: (N, C, L), weight: (C, 1, k), past_state: (N, C, k - 1).
    """
    taps = weight.shape[-1]
    if past_state is None:
        past_state = x.new_zeros(x.shape[0], x.shape[1], taps - 1)
    padded = torch.cat((past_state, x), 2)
    y = functional.conv1d(padded, weight, bias, groups=x.shape[1])
    y = y if activation == "none" else functional.silu(y)
    return y, padded.narrow(2, padded.shape[2] - taps + 1, taps - 1)


def col2im(
    x: Tensor,
    image_shape: Tensor,
    block_shape: Tensor,
    *,
    dilations: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Tensor:
    """Columns (N, C block, L) added into images (N, C, image ...), any spatial rank."""
    image, block = image_shape.tolist(), block_shape.tolist()
    frame = window(
        image, block, strides=strides, dilations=dilations, pads=pads, auto_pad="NOTSET"
    )
    padded = [a + b + c for a, b, c in zip(image, frame.before, frame.after, strict=True)]
    index = _column_positions(padded, frame.extent, block, frame.dilations, frame.strides)
    n, channels = x.shape[0], x.shape[1] // index.shape[0]
    flat = x.new_zeros(n, channels, torch.Size(padded).numel())
    flat = flat.index_add(2, index.reshape(-1).to(x.device), x.reshape(n, channels, -1))
    y = flat.reshape(n, channels, *padded)
    for axis, (start, size) in enumerate(zip(frame.before, image, strict=True)):
        y = y.narrow(axis + 2, start, size)
    return y


def _column_positions(
    padded: list[int], extent: tuple[int, ...], block: list[int],
    dilations: tuple[int, ...], strides: tuple[int, ...],
) -> Tensor:  # fmt: skip
    """(taps, positions): the flat index in the padded image of each column element."""
    rank = len(padded)
    index = torch.zeros((1,) * 2 * rank, dtype=torch.int64)
    for axis in range(rank):
        taps = torch.arange(block[axis]) * dilations[axis]
        starts = torch.arange(0, padded[axis] - extent[axis] + 1, strides[axis])
        taps = taps.reshape([-1 if i == axis else 1 for i in range(2 * rank)])
        starts = starts.reshape([-1 if i == rank + axis else 1 for i in range(2 * rank)])
        index = index + (taps + starts) * torch.Size(padded[axis + 1 :]).numel()
    return index.reshape(torch.Size(block).numel(), -1)


OPERATORS: Mapping[str, Operator] = {
    "CausalConvWithState": operator(causal_conv_with_state, macs=conv_macs),
    "Col2Im": operator(col2im, host=(1, 2)),
    "Conv": operator(conv, macs=conv_macs),
    "ConvTranspose": operator(conv_transpose, macs=conv_transpose_macs),
}
