"""Published sizes of Llama 3 models: one call of `export_shape_graph` makes a graph of each.

Source: Llama Team, "The Llama 3 Herd of Models" (2024), table 3, and the models' config.json
files (3.2 1B).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dse.zoo.llama import LlamaConfig

LLAMA_VOCABULARY = 128_256
LLAMA_ROPE_BASE = 500_000.0


def _llama(
    *, width: int, layers: int, heads: int, ffn_width: int, tied_head: bool = False
) -> LlamaConfig:
    return LlamaConfig(
        vocabulary=LLAMA_VOCABULARY,
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=8,
        ffn_width=ffn_width,
        rope_base=LLAMA_ROPE_BASE,
        tied_head=tied_head,
    )


LLAMA_SHAPES: Mapping[str, LlamaConfig] = MappingProxyType(
    {
        "llama-3.2-1b": _llama(width=2048, layers=16, heads=32, ffn_width=8192, tied_head=True),
        "llama-3-8b": _llama(width=4096, layers=32, heads=32, ffn_width=14_336),
        "llama-3-70b": _llama(width=8192, layers=80, heads=64, ffn_width=28_672),
        "llama-3.1-405b": _llama(width=16_384, layers=126, heads=128, ffn_width=53_248),
    }
)
