"""Fused attention of ONNX 23-25."""

# Positional parameters are the inputs of an ONNX operator, however many it has.
# ruff: noqa: PLR0917

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from dse.execute.operators.dtype import BY_CODE
from dse.execute.operators.linear import tensor
from dse.execute.operators.operator import Operator, Value, operator


def by_head(x: Tensor, count: int | None) -> Tensor:
    """(B, S, H D) or (B, H, S, D) -> (B, H, S, D)."""
    if x.dim() == 4 or count is None:
        return x
    return x.reshape(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


def joined_heads(x: Tensor) -> Tensor:
    """(B, H, S, D) -> (B, S, H D)."""
    return x.transpose(1, 2).flatten(2)


def _repeated(x: Tensor, heads: int) -> Tensor:
    """Key or value heads repeated so that there is one for each query head."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], 1)


def _allowed(
    queries: int, keys: int, offset: Tensor, *, causal: bool, left: int, right: int
) -> Tensor | None:
    """The mask by which query i (at position offset + i) may see key j; None where everywhere.

    offset: scalar, or (B, 1, 1, 1) -> (queries, keys) or (B, 1, queries, keys).
    """
    if not causal and left < 0 and right < 0:
        return None
    rows = torch.arange(queries, device=offset.device).unsqueeze(1)
    distance = rows + offset - torch.arange(keys, device=offset.device)
    allowed = torch.ones_like(distance, dtype=torch.bool)
    if causal:
        allowed &= distance >= 0
    if left >= 0:
        allowed &= distance <= left
    if right >= 0:
        allowed &= -distance <= right
    return allowed


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask as a bias: -inf where it is False."""
    if mask.dtype != torch.bool:
        return mask
    zero = torch.zeros((), dtype=dtype, device=mask.device)
    return torch.where(mask, zero, zero - math.inf)


def _bias(
    mask: Tensor | None, allowed: Tensor | None, keys: int, dtype: torch.dtype
) -> Tensor | None:
    """The additive bias of a mask (right-padded with no access) and an access pattern."""
    if mask is not None:
        mask = additive(mask, dtype)
        if mask.shape[-1] < keys:
            mask = functional.pad(mask, (0, keys - mask.shape[-1]), value=-math.inf)
    if allowed is None:
        return mask
    pattern = additive(allowed, dtype)
    return pattern if mask is None else mask + pattern


def _scores(q: Tensor, k: Tensor, scale: float) -> Tensor:
    root = math.sqrt(scale)
    return torch.matmul(q * root, (k * root).transpose(-1, -2))


def _probabilities(scores: Tensor, bias: Tensor | None, precision: torch.dtype) -> Tensor:
    """Softmax of the biased scores; a row without any access is zero."""
    probabilities = torch.softmax(scores.to(precision), -1)
    if bias is None:
        return probabilities
    blind = torch.isneginf(bias.amax(-1, keepdim=True))
    return probabilities.masked_fill(blind, 0)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    nonpad_kv_seqlen: Tensor | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
    output_count: int = 1,
) -> Tensor | tuple[Value, ...]:
    """softmax(q k^T scale + bias) v, with a key-value cache in and out.

    query: (B, H, S, D) or (B, S, H D); the optional outputs are the present key, the present value
    and the score matrix at the stage that `qk_matmul_output_mode` names (raw, after the softcap,
    with the bias, after the softmax).
    """
    flat = query.dim() == 3
    query, key, value = (
        by_head(query, q_num_heads),
        by_head(key, kv_num_heads),
        by_head(value, kv_num_heads),
    )
    offset = torch.zeros((), dtype=torch.int64, device=query.device)
    if past_key is not None and past_value is not None:
        offset = offset + past_key.shape[2]
        key, value = torch.cat((past_key, key), 2), torch.cat((past_value, value), 2)
    present = (key, value)
    queries, keys = query.shape[2], key.shape[2]
    if nonpad_kv_seqlen is not None:
        offset = (nonpad_kv_seqlen - queries).reshape(-1, 1, 1, 1)
    allowed = _allowed(
        queries,
        keys,
        offset,
        causal=bool(is_causal),
        left=left_window_size,
        right=right_window_size,
    )
    if nonpad_kv_seqlen is not None:
        filled = torch.arange(keys, device=query.device) < nonpad_kv_seqlen.reshape(-1, 1, 1, 1)
        allowed = filled if allowed is None else allowed & filled
    bias = _bias(mask, allowed, keys, query.dtype)
    key, value = _repeated(key, query.shape[1]), _repeated(value, query.shape[1])
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    if output_count < 4 and not softcap and query.dtype == torch.float32:
        y = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale)
        y = y if bias is None else y.masked_fill(torch.isneginf(bias.amax(-1, keepdim=True)), 0)
        return asked_for(joined_heads(y) if flat else y, (*present, None), output_count)
    raw = _scores(query, key, scale)
    capped = torch.tanh(raw / softcap) * softcap if softcap else raw
    biased = capped if bias is None else capped + bias
    precision = query.dtype if softmax_precision is None else BY_CODE[softmax_precision].carrier
    probabilities = _probabilities(biased, bias, precision)
    y = torch.matmul(probabilities.to(query.dtype), value)
    shown = (raw, capped, biased, probabilities)[qk_matmul_output_mode].to(query.dtype)
    return asked_for(joined_heads(y) if flat else y, (*present, shown), output_count)


def asked_for(y: Tensor, rest: tuple[Value, ...], count: int) -> Tensor | tuple[Value, ...]:
    """The first `count` outputs."""
    return y if count == 1 else (y, *rest)[:count]


def attention_macs(
    inputs: tuple[Value, ...],
    outputs: tuple[Value, ...],
    *,
    kv_num_heads: int | None = None,
    q_num_heads: int | None = None,
) -> int:
    """B H S L (D + Dv): scores and their product with the values."""
    q, k, v = (by_head(tensor(x), n) for x, n in zip(
        inputs, (q_num_heads, kv_num_heads, kv_num_heads), strict=False
    ))  # fmt: skip
    past = inputs[4] if len(inputs) > 4 else None
    keys = k.shape[2] + (tensor(past).shape[2] if past is not None else 0)
    return q.shape[:3].numel() * keys * (q.shape[3] + v.shape[3])


OPERATORS: Mapping[str, Operator] = {
    "Attention": operator(attention, macs=attention_macs),
}
