"""Attention over compressed keys and values (MLA, DeepSeek-V2) as it is served.

While a network decodes, keys and values are never expanded: the matrices that would do it are
applied to the query before, and to the weighted sum after, so that all heads read one cached
vector a position.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

ATTENTION = "dse_latent"
"""Its name among `transformers`' implementations of attention and of masks."""


def latent_attentions(network: Any) -> Iterator[Any]:
    """The modules of a network that expand compressed keys and values."""
    for module in network.modules():
        if hasattr(module, "expand_kv") and hasattr(module, "kv_b_proj"):
            yield module


def is_latent(network: Any) -> bool:
    """Whether a network keeps compressed keys and values."""
    return next(latent_attentions(network), None) is not None


def leave_compressed(network: Any) -> None:
    """Lets a network attend to its cache as it is."""
    from transformers import AttentionInterface, AttentionMaskInterface  # noqa: PLC0415
    from transformers.masking_utils import eager_mask  # noqa: PLC0415

    if not is_latent(network):
        return
    AttentionInterface.register(ATTENTION, latent_attention)
    AttentionMaskInterface.register(ATTENTION, eager_mask)
    for module in latent_attentions(network):
        module.expand_kv = _unexpanded
        module.config._attn_implementation = ATTENTION
    network.config._attn_implementation = ATTENTION


def _unexpanded(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    return key, value


def latent_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of all heads to one compressed vector a position.

    Args:
        module: has `kv_b_proj`, which expands keys and values.
        query: (batch, heads, sequence, plain + rotated channels).
        key: (batch, 1, positions, rank + rotated channels), the cache.
        value: the same.
        attention_mask: added to scores.
        scaling: of scores.
        kwargs: what other kinds of attention take.

    Returns:
        (batch, sequence, heads, channels of a value), no probabilities.
    """
    own: Any = module
    expand = own.kv_b_proj.weight.view(query.shape[1], -1, own.kv_lora_rank)
    keys, values = torch.tensor_split(expand, (own.qk_nope_head_dim,), dim=1)
    plain, rotated = torch.tensor_split(query, (own.qk_nope_head_dim,), dim=-1)
    absorbed = torch.cat((torch.matmul(plain, keys), rotated), dim=-1)
    scores = torch.matmul(absorbed, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    mixed = torch.matmul(torch.softmax(scores, dim=-1), value[..., : own.kv_lora_rank])
    return torch.matmul(mixed, values.transpose(1, 2)).transpose(1, 2), None
