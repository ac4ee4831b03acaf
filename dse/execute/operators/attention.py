"""Fused attention and rotary embeddings: ONNX 23-25 and ONNX Runtime's contrib operators."""

# Positional parameters are the inputs of an ONNX operator, however many it has.
# ruff: noqa: PLR0917

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from dse.execute.dtype import BY_CODE
from dse.execute.operators.indexing import tensor_scatter
from dse.execute.operators.linear import tensor
from dse.execute.operators.operator import Operator, Value, operator


def _heads(x: Tensor, count: int | None) -> Tensor:
    """(B, S, H D) or (B, H, S, D) -> (B, H, S, D)."""
    if x.dim() == 4 or count is None:
        return x
    return x.reshape(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


def _merged(x: Tensor) -> Tensor:
    """(B, H, S, D) -> (B, S, H D)."""
    return x.transpose(1, 2).flatten(2)


def _repeated(x: Tensor, heads: int) -> Tensor:
    """Key or value heads repeated so that there is one for each query head."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], 1)


def _allowed(
    queries: int, keys: int, offset: Tensor, *, causal: bool, left: int, right: int
) -> Tensor | None:
    """Where query i (at absolute position offset + i) may see key j; None where everywhere.

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


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    zero = torch.zeros((), dtype=dtype, device=mask.device)
    return torch.where(mask, zero, zero - math.inf)


def _bias(
    mask: Tensor | None, allowed: Tensor | None, keys: int, dtype: torch.dtype
) -> Tensor | None:
    """The additive bias of a mask (right-padded with no access) and an access pattern."""
    if mask is not None:
        mask = _additive(mask, dtype)
        if mask.shape[-1] < keys:
            mask = functional.pad(mask, (0, keys - mask.shape[-1]), value=-math.inf)
    if allowed is None:
        return mask
    pattern = _additive(allowed, dtype)
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
        _heads(query, q_num_heads),
        _heads(key, kv_num_heads),
        _heads(value, kv_num_heads),
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
        return _outputs(_merged(y) if flat else y, (*present, None), output_count)
    raw = _scores(query, key, scale)
    capped = torch.tanh(raw / softcap) * softcap if softcap else raw
    biased = capped if bias is None else capped + bias
    precision = query.dtype if softmax_precision is None else BY_CODE[softmax_precision].carrier
    probabilities = _probabilities(biased, bias, precision)
    y = torch.matmul(probabilities.to(query.dtype), value)
    shown = (raw, capped, biased, probabilities)[qk_matmul_output_mode].to(query.dtype)
    return _outputs(_merged(y) if flat else y, (*present, shown), output_count)


def _outputs(y: Tensor, rest: tuple[Value, ...], count: int) -> Tensor | tuple[Value, ...]:
    return y if count == 1 else (y, *rest)[:count]


def attention_macs(
    inputs: tuple[Value, ...],
    outputs: tuple[Value, ...],
    *,
    kv_num_heads: int | None = None,
    q_num_heads: int | None = None,
) -> int:
    """B H S L (D + Dv): scores and their product with the values."""
    q, k, v = (_heads(tensor(x), n) for x, n in zip(
        inputs, (q_num_heads, kv_num_heads, kv_num_heads), strict=False
    ))  # fmt: skip
    past = inputs[4] if len(inputs) > 4 else None
    keys = k.shape[2] + (tensor(past).shape[2] if past is not None else 0)
    return q.shape[:3].numel() * keys * (q.shape[3] + v.shape[3])


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool) -> Tensor:
    """x: (B, H, S, R), cos and sin: (B or 1, 1, S, R / 2)."""
    if interleaved:
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def rotary_embedding(
    x: Tensor,
    cos_cache: Tensor,
    sin_cache: Tensor,
    position_ids: Tensor | None = None,
    *,
    interleaved: int = 0,
    num_heads: int | None = None,
    rotary_embedding_dim: int = 0,
) -> Tensor:
    """Pairs of the first `rotary_embedding_dim` channels of each head turned by their position.

    x: (B, H, S, D) or (B, S, H D); caches: (positions, R / 2), or (B, S, R / 2) without ids.
    """
    flat = x.dim() == 3
    heads = _heads(x, num_heads)
    if position_ids is not None:
        cos_cache, sin_cache = cos_cache[position_ids], sin_cache[position_ids]
    cos, sin = cos_cache.unsqueeze(1), sin_cache.unsqueeze(1)
    size = rotary_embedding_dim or heads.shape[-1]
    y = _rotated(heads[..., :size], cos, sin, interleaved=bool(interleaved))
    y = y if size == heads.shape[-1] else torch.cat((y, heads[..., size:]), -1)
    return _merged(y) if flat else y


def rotary_embedding_contrib(
    x: Tensor,
    position_ids: Tensor,
    cos_cache: Tensor,
    sin_cache: Tensor,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
    scale: float = 1.0,
) -> Tensor:
    """ONNX Runtime's RotaryEmbedding: positions before the caches, one position as an offset."""
    if position_ids.numel() == 1:
        length = x.shape[1] if x.dim() == 3 else x.shape[2]
        steps = torch.arange(length, device=x.device)
        position_ids = (position_ids.reshape(1, 1) + steps).expand(x.shape[0], length)
    heads = num_heads or x.shape[-1] // (2 * cos_cache.shape[-1]) if x.dim() == 3 else None
    return rotary_embedding(
        x, cos_cache, sin_cache, position_ids,
        interleaved=interleaved, num_heads=heads, rotary_embedding_dim=rotary_embedding_dim,
    )  # fmt: skip


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
        padded = key_padding_mask.reshape(query.shape[0], 1, 1, -1) == 0
        penalty = torch.zeros_like(padded, dtype=query.dtype).masked_fill(
            padded, mask_filter_value
        )
        mask = penalty if mask is None else mask + penalty
    y = attention(
        _heads(query, num_heads), _heads(key, num_heads), _heads(value, num_heads),
        mask, past_key, past_value,
        is_causal=unidirectional, scale=scale or None, output_count=3,
    )  # fmt: skip
    merged, present_key, present_value = y
    return _outputs(_merged(tensor(merged)), (present_key, present_value), output_count)


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
    q, k, v = _heads(query, num_heads), _heads(key, kv_num_heads), _heads(value, kv_num_heads)
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
    merged = _merged(y if isinstance(y, Tensor) else tensor(y[0]))
    return _outputs(merged, (k, v), output_count)


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


OPERATORS: Mapping[str, Operator] = {
    "Attention": operator(attention, macs=attention_macs),
    "RotaryEmbedding": operator(rotary_embedding),
}

MICROSOFT: Mapping[str, Operator] = {
    "GroupQueryAttention": operator(
        group_query_attention, host=(6,), macs=group_query_attention_macs
    ),
    "MultiHeadAttention": operator(multi_head_attention, macs=multi_head_attention_macs),
    "RotaryEmbedding": operator(rotary_embedding_contrib),
}
