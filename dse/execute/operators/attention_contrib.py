"""Fused attention of ONNX Runtime: MultiHeadAttention and GroupQueryAttention."""

# Positional parameters are the inputs of an ONNX operator, however many it has.
# ruff: noqa: PLR0917

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from dse.execute.operators.attention import asked_for, attention, by_head, joined_heads
from dse.execute.operators.indexing import tensor_scatter
from dse.execute.operators.linear import tensor
from dse.execute.operators.operator import Operator, Value, operator
from dse.execute.operators.rotary import rotary_embedding


def multi_head_attention(
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    bias: Tensor | None = None,
    key_padding_mask: Tensor | None = None,
    attention_bias: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    *,
    mask_filter_value: float = -10000.0,
    num_heads: int,
    scale: float = 0.0,
    unidirectional: int = 0,
    output_count: int = 1,
) -> Tensor | tuple[Value, ...]:
    """ONNX Runtime's MultiHeadAttention.

    query: (B, S, H D), key and value the same or (B, H, L, D); packed forms are
    query (B, S, H, 3, D) and key (B, L, H, 2, D). key_padding_mask: (B, L), 0 where padded.
    """
    if query.dim() == 5:
        query, key, value = (part.flatten(2) for part in query.unbind(3))
    elif key is not None and key.dim() == 5:
        key, value = (part.flatten(2) for part in key.unbind(3))
    if key is None or value is None:
        raise ValueError("MultiHeadAttention needs key and value, or a packed query")
    if bias is not None:
        sizes = [
            query.shape[-1],
            bias.numel() - query.shape[-1] - value.shape[-1],
            value.shape[-1],
        ]
        query_bias, key_bias, value_bias = torch.split(bias, sizes)
        query = query + query_bias
        if key.dim() == 3:
            key, value = key + key_bias, value + value_bias
    mask = attention_bias
    if key_padding_mask is not None:
        if key_padding_mask.dim() != 2:
            raise ValueError("key_padding_mask must be (batch, positions)")
        padded = key_padding_mask.reshape(query.shape[0], 1, 1, -1) == 0
        penalty = torch.zeros_like(padded, dtype=query.dtype).masked_fill(
            padded, mask_filter_value
        )
        mask = penalty if mask is None else mask + penalty
    y = attention(
        by_head(query, num_heads), by_head(key, num_heads), by_head(value, num_heads),
        mask, past_key, past_value,
        is_causal=unidirectional, scale=scale or None, output_count=3,
    )  # fmt: skip
    merged, present_key, present_value = y
    return asked_for(joined_heads(tensor(merged)), (present_key, present_value), output_count)


def multi_head_attention_macs(
    inputs: tuple[Value, ...], outputs: tuple[Value, ...], *, num_heads: int
) -> int:
    """S L (H D + H Dv) for each batch entry."""
    query, y = tensor(inputs[0]), tensor(outputs[0])
    key = query if len(inputs) < 2 or inputs[1] is None else tensor(inputs[1])
    keys = key.shape[2] if key.dim() == 4 else key.shape[1]
    if len(inputs) > 6 and inputs[6] is not None:
        keys += tensor(inputs[6]).shape[2]
    hidden = query.shape[2:].numel() // (3 if query.dim() == 5 else 1)
    return query.shape[:2].numel() * keys * (hidden + y.shape[-1])


def group_query_attention(
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    seqlens_k: Tensor | None = None,
    total_sequence_length: Tensor | None = None,
    cos_cache: Tensor | None = None,
    sin_cache: Tensor | None = None,
    position_ids: Tensor | None = None,
    attention_bias: Tensor | None = None,
    *,
    do_rotary: int = 0,
    kv_num_heads: int,
    local_window_size: int = -1,
    num_heads: int,
    rotary_interleaved: int = 0,
    scale: float = 0.0,
    softcap: float = 0.0,
    output_count: int = 1,
) -> Tensor | tuple[Value, ...]:
    """ONNX Runtime's GroupQueryAttention: causal, rotary inside, with one cache in and out.

    query: (B, S, H D), or (B, S, (H + 2 Hkv) D) with key and value packed behind it;
    seqlens_k: (B), cached and new positions less one.
    """
    if key is None or value is None:
        size = query.shape[-1] // (num_heads + 2 * kv_num_heads)
        sizes = [num_heads * size, kv_num_heads * size, kv_num_heads * size]
        query, key, value = torch.split(query, sizes, -1)
    if seqlens_k is None or total_sequence_length is None:
        raise ValueError("GroupQueryAttention needs seqlens_k and total_sequence_length")
    length = query.shape[1]
    filled = seqlens_k.reshape(-1).long() + 1
    start = (filled - length).clamp(min=0)
    q, k, v = by_head(query, num_heads), by_head(key, kv_num_heads), by_head(value, kv_num_heads)
    if do_rotary and cos_cache is not None and sin_cache is not None:
        if position_ids is None:
            position_ids = start.unsqueeze(1) + torch.arange(length, device=q.device)
        turn = {"interleaved": rotary_interleaved}
        q, k = (rotary_embedding(x, cos_cache, sin_cache, position_ids, **turn) for x in (q, k))
    total = int(total_sequence_length.item())
    k, v = _cached(past_key, k, start, total), _cached(past_value, v, start, total)
    y = attention(
        q, k[:, :, :total], v[:, :, :total], attention_bias, None, None, start + length,
        is_causal=1, scale=scale or None, softcap=softcap,
        left_window_size=local_window_size - 1 if local_window_size > 0 else -1,
    )  # fmt: skip
    merged = joined_heads(y if isinstance(y, Tensor) else tensor(y[0]))
    return asked_for(merged, (k, v), output_count)


def _cached(past: Tensor | None, new: Tensor, start: Tensor, total: int) -> Tensor:
    """(B, H, max(past, total), D): the cache with the new positions written after the old."""
    if past is None:
        return new
    grow = max(0, total - past.shape[2])
    return tensor_scatter(functional.pad(past, (0, 0, 0, grow)) if grow else past, new, start)


def group_query_attention_macs(inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> int:
    """2 B S L H D over the positions in the cache."""
    y, total = tensor(outputs[0]), tensor(inputs[6])
    return 2 * y.numel() * int(total.item())


MICROSOFT: Mapping[str, Operator] = {
    "GroupQueryAttention": operator(
        group_query_attention, host=(6,), macs=group_query_attention_macs
    ),
    "MultiHeadAttention": operator(multi_head_attention, macs=multi_head_attention_macs),
}
