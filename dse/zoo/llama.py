"""A Llama-style decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

One definition serves three models: byte-gpt (trained by us), SmolLM2 (pretrained) and the
weight-free Llama 3 shapes. Parameters carry the names of Hugging Face checkpoints, so that a
recipe for a layer reads the same here and in a serving runtime.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaConfig:
    """The sizes that fix a Llama-style network."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    ffn_width: int
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5
    tied_head: bool = False
    """The vocabulary projection is the transposed embedding and has no weight of its own."""

    def __post_init__(self) -> None:
        if self.width % self.heads or self.heads % self.kv_heads:
            raise ValueError(
                "heads must divide width and kv_heads must divide heads, "
                f"got width={self.width}, heads={self.heads}, kv_heads={self.kv_heads}"
            )

    @property
    def head_width(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads

    @property
    def parameters(self) -> int:
        """Number of weights, norms included."""
        attention = 2 * self.width * self.head_width * (self.heads + self.kv_heads)
        layer = attention + 3 * self.width * self.ffn_width + 2 * self.width
        tables = self.vocabulary * self.width * (1 if self.tied_head else 2)
        return tables + self.layers * layer + self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """Rotary tables of the current positions, both (sequence, head_width)."""

    cos: Tensor
    sin: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Returns `x: (..., sequence, head_width)` rotated, half-split layout."""
        low, high = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat((-high, low), dim=-1) * self.sin


class Linear(nn.Module):
    """A projection without bias whose weight is stored as (inputs, outputs).

    `torch.nn.Linear` stores the transpose, which an ONNX export turns into one Transpose in
    front of every MatMul; without weights at hand (shape graphs) nothing can fold those away.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        nn.init.normal_(self.weight, std=inputs**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Returns `x: (..., inputs)` times the weight: (..., outputs)."""
        return torch.matmul(x, self.weight)


class RMSNorm(nn.Module):
    """Scales the last axis to unit root mean square, then by a learned gain."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Returns the normalised `x: (..., width)`; a zero vector stays zero."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon) * self.weight


class Attention(nn.Module):
    """Causal attention in which groups of query heads share one key and value head."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.head_width = config.head_width
        self.groups = config.heads // config.kv_heads
        self.q_proj = Linear(config.width, config.heads * config.head_width)
        self.k_proj = Linear(config.width, config.kv_heads * config.head_width)
        self.v_proj = Linear(config.width, config.kv_heads * config.head_width)
        self.o_proj = Linear(config.heads * config.head_width, config.width)

    def forward(
        self,
        x: Tensor,
        rotation: Rotation,
        past: tuple[Tensor, Tensor] | None,
        mask: Tensor | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Returns the mixed values and the keys and values so far.

        x: (batch, sequence, width); keys and values: (batch, kv_heads, total, head_width);
        mask: (sequence, total), True where a query may look. Without a mask the attention is
        causal and runs as torch's fused kernel; with one it is written out, so that an exported
        graph shows its two products.
        """
        # Queries have five axes (batch, kv head, group, sequence, channel): keys and values
        # broadcast over the group, so the graph never copies them and their traffic stays
        # countable.
        query = torch.unflatten(self.q_proj(x), -1, (-1, self.groups, self.head_width))
        query = rotation.apply(query.permute(0, 2, 3, 1, 4))
        key = rotation.apply(self._heads(self.k_proj(x)))
        value = self._heads(self.v_proj(x))
        if past is not None:
            key = torch.cat((past[0], key), dim=2)
            value = torch.cat((past[1], value), dim=2)
        mixed = fused(query, key, value) if mask is None else written_out(query, key, value, mask)
        return self.o_proj(mixed.permute(0, 3, 1, 2, 4).flatten(2)), (key, value)

    def _heads(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, -1, (-1, self.head_width)).transpose(1, 2)


def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention as one kernel; shapes as in `written_out`."""
    mixed = functional.scaled_dot_product_attention(
        query.flatten(1, 2), key, value, is_causal=True, enable_gqa=True
    )
    return torch.unflatten(mixed, 1, query.shape[1:3])


def written_out(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attention as two products around a softmax.

    query: (batch, kv_heads, groups, sequence, head_width); key, value: (batch, kv_heads, total,
    head_width); returns the shape of the query.
    """
    scores = torch.matmul(query, key.unsqueeze(2).transpose(-1, -2)) * query.shape[-1] ** -0.5
    scores = torch.where(mask, scores, float("-inf"))
    return torch.matmul(torch.softmax(scores, dim=-1), value.unsqueeze(2))


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.width, config.ffn_width)
        self.up_proj = Linear(config.width, config.ffn_width)
        self.down_proj = Linear(config.ffn_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the update of `x: (..., width)`."""
        update: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return update


class Layer(nn.Module):
    """One pre-norm decoder layer."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.norm_epsilon)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_epsilon)
        self.mlp = FeedForward(config)

    def forward(
        self,
        x: Tensor,
        rotation: Rotation,
        past: tuple[Tensor, Tensor] | None,
        mask: Tensor | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Returns the residual stream after this layer and its keys and values."""
        update, present = self.self_attn(self.input_layernorm(x), rotation, past, mask)
        x = x + update
        return x + self.mlp(self.post_attention_layernorm(x)), present


def rotary_frequencies(config: LlamaConfig) -> Tensor:
    """Radians a position of every channel of a head, float32."""
    # float64 up to here: rounding a frequency moves far positions.
    exponents = torch.arange(0, config.head_width, 2, dtype=torch.float64) / config.head_width
    return (config.rope_base**-exponents).repeat(2).to(torch.float32)


class Decoder(nn.Module):
    """Embedding, layers and final norm."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_epsilon)
        self.frequencies: Tensor
        self.register_buffer("frequencies", rotary_frequencies(config), persistent=False)

    def forward(
        self, tokens: Tensor, past: list[tuple[Tensor, Tensor]] | None, *, written_out: bool
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Returns the normed residual stream and every layer's keys and values."""
        sequence = tokens.shape[1]
        start = past[0][0].shape[2] if past else 0
        positions = torch.arange(start, start + sequence, device=tokens.device)
        angles = positions.to(torch.float32).unsqueeze(1) * self.frequencies
        x = self.embed_tokens(tokens)
        rotation = Rotation(cos=angles.cos().to(x.dtype), sin=angles.sin().to(x.dtype))
        mask = None
        if written_out:
            keys = torch.arange(start + sequence, device=tokens.device)
            mask = keys.unsqueeze(0) <= positions.unsqueeze(1)
        present = []
        for index, layer in enumerate(self.layers):
            x, key_value = layer(x, rotation, past[index] if past else None, mask)
            present.append(key_value)
        return self.norm(x), present


class TiedHead(nn.Module):
    """The vocabulary projection of a model that has one table for both ends."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        # In a list, so that the shared table is one parameter and not two.
        self._table = [embedding]

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (..., vocabulary) of `x: (..., width)`."""
        return torch.matmul(x, self._table[0].weight.mT)


class Llama(nn.Module):
    """The whole language model."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head: nn.Module = TiedHead(self.model.embed_tokens)
        if not config.tied_head:
            self.lm_head = Linear(config.width, config.vocabulary)
            nn.init.zeros_(self.lm_head.weight)
        # Every layer starts as the identity and every next byte as equally likely.
        for layer in self.model.layers:
            assert isinstance(layer, Layer)
            nn.init.zeros_(layer.self_attn.o_proj.weight)
            nn.init.zeros_(layer.mlp.down_proj.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns logits (batch, sequence, vocabulary) of `tokens: (batch, sequence)`."""
        hidden, _ = self.model(tokens, None, written_out=False)
        logits: Tensor = self.lm_head(hidden)
        return logits


class WrittenOut(nn.Module):
    """A Llama for export: attention written out instead of fused."""

    def __init__(self, llama: Llama) -> None:
        super().__init__()
        self.model = llama.model
        self.lm_head = llama.lm_head

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the same logits as the wrapped model."""
        hidden, _ = self.model(tokens, None, written_out=True)
        logits: Tensor = self.lm_head(hidden)
        return logits


class WithCache(nn.Module):
    """A Llama for export that reads and returns its key-value cache."""

    def __init__(self, llama: Llama) -> None:
        super().__init__()
        self.model = llama.model
        self.lm_head = llama.lm_head

    def forward(
        self, tokens: Tensor, past_key_values: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Returns logits and the grown cache.

        past_key_values: per layer keys and values (batch, kv_heads, past, head_width).
        """
        hidden, present = self.model(tokens, past_key_values, written_out=True)
        return self.lm_head(hidden), present
