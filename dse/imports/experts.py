"""Mixtures of experts in a form that a graph can hold: every expert on every token.

Loops over the experts that were hit depend on data. Here each layer is two products with stacked
weights, and the router's choice multiplies their results: zero for experts not chosen. The cost
model counts the chosen rows alone (`dse.graph.patterns.experts`, form `stacked`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

EXPERTS = "dse_stacked"
"""Its name among `transformers`' implementations of experts."""


def register() -> None:
    """Makes `transformers` know the implementation."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS  # noqa: PLC0415

    ALL_EXPERTS_FUNCTIONS.register(EXPERTS, stacked_experts)


def stacked_experts(
    self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor
) -> Tensor:
    """Weighted sum of experts.

    Args:
        self: the experts' module of `transformers`, which says how its weights lie.
        hidden_states: (tokens, width).
        top_k_index: (tokens, topk), which experts.
        top_k_weights: (tokens, topk), how much of each.

    Returns:
        (tokens, width).
    """
    first = "gate_up_proj" if self.has_gate else "up_proj"
    inner = _product(self, hidden_states.unsqueeze(0), first)
    inner = self._apply_gate(inner) if self.has_gate else self.act_fn(inner)
    outer = _product(self, inner, "down_proj")
    if self.has_post_expert_norm:
        outer = self.post_expert_norm(outer)
    share = torch.zeros(
        hidden_states.shape[0], getattr(self, first).shape[0], dtype=top_k_weights.dtype
    ).scatter(1, top_k_index, top_k_weights)
    return (outer * share.t().unsqueeze(-1)).sum(0).to(hidden_states.dtype)


def _product(self: Any, rows: Tensor, weight: str) -> Tensor:
    """rows: (1 or experts, tokens, k) times (experts, k, n)."""
    matrix = getattr(self, weight)
    result = torch.matmul(rows, matrix if self.is_transposed else matrix.transpose(1, 2))
    return result + getattr(self, f"{weight}_bias").unsqueeze(1) if self.has_bias else result
