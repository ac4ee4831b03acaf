"""Rotary embeddings: ONNX 23 and ONNX Runtime's."""

# Positional parameters are the inputs of an ONNX operator, however many it has.

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dse.execute.operators.attention import by_head, joined_heads
from dse.execute.operators.operator import Operator, operator


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
    heads = by_head(x, num_heads)
    if position_ids is not None:
        cos_cache, sin_cache = cos_cache[position_ids], sin_cache[position_ids]
    cos, sin = cos_cache.unsqueeze(1), sin_cache.unsqueeze(1)
    size = rotary_embedding_dim or heads.shape[-1]
    y = _rotated(heads[..., :size], cos, sin, interleaved=bool(interleaved))
    y = y if size == heads.shape[-1] else torch.cat((y, heads[..., size:]), -1)
    return joined_heads(y) if flat else y


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


OPERATORS: Mapping[str, Operator] = {
    "RotaryEmbedding": operator(rotary_embedding),
}

MICROSOFT: Mapping[str, Operator] = {
    "RotaryEmbedding": operator(rotary_embedding_contrib),
}
