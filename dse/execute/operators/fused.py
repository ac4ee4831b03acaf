"""Single kernels for chains of operators that exporters write out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dse.execute.operators.linear import tensor
from dse.execute.operators.operator import Value
from dse.execute.operators.quantized_attention import quantized_attention
from dse.execute.operators.shape import broadcast_shape
from dse.execute.operators.step import Quantize


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """The order of axes in which operands and result are turned; None leaves one as it is."""

    query: tuple[int, ...] | None = None
    key: tuple[int, ...] | None = None
    value: tuple[int, ...] | None = None
    output: tuple[int, ...] | None = None


PLAIN = Axes()


def fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    scale: float = 1.0,
    low: float = -math.inf,
    guarded: bool = False,
    axes: Axes = PLAIN,
    quantize: Quantize | None = None,
) -> Tensor:
    """softmax(query key scale + mask) value without the score matrix in memory.

    query: (..., S, D), key: (..., D, L), value: (..., L, Dv), leading axes broadcast; mask: bool
    (True where a query may look) or additive, broadcastable to (..., S, L); operands are turned by
    `axes` first. A row without any access is NaN, or zero where `guarded`; where `low`, which
    stands for masked scores, is finite, it is spread evenly over all keys. `quantize` is applied
    to the probabilities.
    """
    query, key = _turned(query, axes.query), _turned(key, axes.key)
    value = _turned(value, axes.value)
    lead = broadcast_shape(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    if quantize is not None:
        q, k, v = (x.expand(*lead, *x.shape[-2:]) for x in (query, key, value))
        y = quantized_attention(q * scale, k, v, mask, quantize, guarded=guarded)
        return _turned(y, axes.output)
    q, k, v = (_batched(x, lead) for x in (query, key.transpose(-1, -2), value))
    causal = mask is not None and _is_causal(mask, q.device)
    if mask is not None and not causal and mask.dim() > 2:
        mask = (
            _batched(mask, lead)
            if mask.shape[:-2].numel() > 1
            else mask.reshape(1, 1, *mask.shape[-2:])
        )
    y = functional.scaled_dot_product_attention(
        q, k, v, attn_mask=None if causal else mask, is_causal=causal, scale=scale
    )
    if mask is not None and not causal:
        hidden = ~mask if mask.dtype == torch.bool else torch.isneginf(mask)
        blind = hidden.all(-1, keepdim=True)
        if mask.dtype == torch.bool and math.isfinite(low):
            y = torch.where(blind, v.mean(-2, keepdim=True), y)
        else:
            y = y.masked_fill(blind, 0.0 if guarded else torch.nan)
    return _turned(y.reshape(*lead, *y.shape[-2:]), axes.output)


def _turned(x: Tensor, order: tuple[int, ...] | None) -> Tensor:
    return x if order is None else x.permute(order)


def _batched(x: Tensor, lead: torch.Size) -> Tensor:
    """(..., a, b) -> (first axis, the rest of `lead`, a, b)."""
    x = x.expand(*lead, *x.shape[-2:])
    first = lead[0] if lead else 1
    return x.reshape(first, lead[1:].numel(), *x.shape[-2:])


def _is_causal(mask: Tensor, device: torch.device) -> bool:
    """Whether the mask is the lower triangle; not asked of a device, which would have to wait."""
    if device.type != "cpu" or mask.dtype != torch.bool or mask.dim() != 2:
        return False
    rows, columns = mask.shape
    return rows == columns and torch.equal(mask, torch.ones_like(mask).tril_())


def fused_attention_macs(
    inputs: tuple[Value, ...], outputs: tuple[Value, ...], *, axes: Axes = PLAIN
) -> int:
    """Those of both products."""
    query, value = _turned(tensor(inputs[0]), axes.query), _turned(tensor(inputs[2]), axes.value)
    y = _turned(tensor(outputs[0]), _inverse(axes.output))
    return y.shape[:-1].numel() * value.shape[-2] * (query.shape[-1] + y.shape[-1])


def _inverse(order: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return None if order is None else tuple(map(order.index, range(len(order))))


def fused_rms_norm(x: Tensor, scale: Tensor | None = None, *, epsilon: float) -> Tensor:
    """X over the root mean square of its last axis, scaled."""
    return functional.rms_norm(x, x.shape[-1:], scale, epsilon)


def fused_layer_norm(
    x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None, *, epsilon: float
) -> Tensor:
    """X less its mean over the root of its variance, along the last axis, scaled and shifted."""
    return functional.layer_norm(x, x.shape[-1:], scale, shift, epsilon)
