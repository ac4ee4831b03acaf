"""Products whose sums somebody else forms: matrix products and convolutions over a function.

`product` multiplies two matrices, (m, depth) and (depth, n), in the order in which a circuit would
add: along the contraction, of a convolution channel by channel and tap by tap. `scales` of the two
operands, with one element along the contraction, multiply the sum before a bias is added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import prod

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dse.execute.operators.step import Step
from dse.execute.operators.window import window

Product = Callable[[Tensor, Tensor], Tensor]
Scales = tuple[Tensor | None, Tensor | None]


def matmul(a: Tensor, b: Tensor, *, product: Product, scales: Scales) -> Tensor:
    """As `operators.linear.matmul`."""
    left = a[None] if a.dim() == 1 else a
    right = b[:, None] if b.dim() == 1 else b
    if right.dim() == 2:
        y = product(left.reshape(-1, left.shape[-1]), right)
        y = y.reshape(*left.shape[:-1], right.shape[-1])
    else:
        batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        flat = [x.expand(*batch, *x.shape[-2:]).reshape(-1, *x.shape[-2:]) for x in (left, right)]
        parts = [product(one, other) for one, other in zip(*flat, strict=True)]
        shape = (*batch, left.shape[-2], right.shape[-1])
        y = torch.stack(parts).reshape(shape) if parts else left.new_zeros(shape)
    first, second = scales
    y = y if first is None else y * first
    y = y if second is None else y * (second[:, None] if b.dim() == 1 else second)
    y = y.squeeze(-1) if b.dim() == 1 else y
    return y.squeeze(-1 if b.dim() == 1 else -2) if a.dim() == 1 else y


def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    product: Product,
    scales: Scales,
    alpha: float = 1.0,
    beta: float = 1.0,
    trans_a: int = 0,
    trans_b: int = 0,
) -> Tensor:
    """As `operators.linear.gemm`; the addend is no part of the sum."""
    y = product(a.T if trans_a else a, b.T if trans_b else b)
    for scale, turned in zip(scales, (trans_a, trans_b), strict=True):
        if scale is not None:
            y = y * (scale.T if turned else scale)
    y = y if alpha == 1.0 else y * alpha
    return y if c is None else y + (c if beta == 1.0 else c * beta)


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    product: Product,
    scales: Scales,
    auto_pad: str = "NOTSET",
    dilations: tuple[int, ...] | None = None,
    group: int = 1,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Tensor:
    """As `operators.convolution.conv`; the bias is no part of the sum.

    The input has one scale, since a window reaches over its positions.
    """
    frame = window(
        x.shape[2:], weight.shape[2:],
        strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad,
    )  # fmt: skip
    columns, spatial = _columns(
        functional.pad(x, frame.torch_pads), frame.kernel, frame.strides, frame.dilations
    )
    outputs = weight.shape[0]
    filters = weight.reshape(group, outputs // group, -1)
    grouped = columns.reshape(group, filters.shape[-1], -1)
    y = torch.cat([product(one, other) for one, other in zip(filters, grouped, strict=True)])
    y = y.reshape(outputs, x.shape[0], *spatial).transpose(0, 1)
    along_outputs = (-1, *(1,) * len(spatial))
    first, second = scales
    y = y if first is None else y * first.reshape(())
    y = y if second is None else y * second.reshape(along_outputs)
    return y if bias is None else y + bias.reshape(along_outputs)


def _columns(
    x: Tensor, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]
) -> tuple[Tensor, tuple[int, ...]]:
    """(channels, taps, images * positions) of padded (images, channels, spatial ...)."""
    patches, rank = x, len(kernel)
    windows = zip(kernel, strides, dilations, strict=True)
    for axis, (size, stride, dilation) in enumerate(windows, start=2):
        patches = patches.unfold(axis, (size - 1) * dilation + 1, stride)[..., ::dilation]
    spatial = tuple(patches.shape[2 : 2 + rank])
    order = (1, *range(2 + rank, 2 + 2 * rank), 0, *range(2, 2 + rank))
    return patches.permute(order).reshape(x.shape[1], prod(kernel), -1), spatial


SUMMED: Mapping[str, Callable[..., Tensor]] = {"MatMul": matmul, "Gemm": gemm, "Conv": conv}
"""By operator: products that an accumulator can stand in."""
ATTRIBUTES: Mapping[str, frozenset[str]] = {
    "MatMul": frozenset(),
    "Gemm": frozenset({"alpha", "beta", "trans_a", "trans_b"}),
    "Conv": frozenset({"auto_pad", "dilations", "group", "pads", "strides"}),
}
"""Keywords that they take of those of their operator; the others change no value."""


def attributes_of(step: Step) -> dict[str, object]:
    """The attributes of a product that its sum has to know."""
    keywords = step.call.keywords if isinstance(step.call, partial) else {}
    return {key: keywords[key] for key in ATTRIBUTES[step.what] & keywords.keys()}
