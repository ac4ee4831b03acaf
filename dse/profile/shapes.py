"""Shapes worth measuring: those of real networks, and log-uniform ones between and around them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import product

import numpy as np

Shape = Mapping[str, int]

DRAWN = 400
"""Log-uniform shapes an operator has: more than any time budget reaches."""
MOST_ELEMENTS = 2**28
"""Of one tensor."""
MOST_PAIRS = 2**33
"""Query-key pairs of an attention, over batch and heads."""

# (K, N) of the linear layers. Llama 3: query-key-value and gate-up fused, as runtimes run them
# (arXiv:2407.21783, table 3); BERT (arXiv:1810.04805), GPT-2 and ViT-B/16 (arXiv:2010.11929)
# share the widths 768 and 1024.
LINEAR = (
    (4096, 6144), (4096, 4096), (4096, 28672), (14336, 4096),  # Llama 3 8B
    (768, 768), (768, 2304), (768, 3072), (3072, 768),  # BERT-base, GPT-2, ViT-B
    (2048, 3072), (2048, 16384), (8192, 2048),  # Llama 3.2 1B
    (1024, 1024), (1024, 4096), (4096, 1024),  # BERT-large
    (8192, 10240), (8192, 8192), (8192, 57344), (28672, 8192),  # Llama 3 70B
)  # fmt: skip
TOKENS = (1, 512, 16, 2048, 128, 197, 64, 4096, 8, 1024)
"""Rows of a GEMM: decoding batches, prompts, the 197 patches of ViT."""
HEADS = ((32, 8, 128), (12, 12, 64), (64, 8, 128), (16, 16, 64), (32, 8, 64))
"""(heads, key-value heads, head size): Llama 3 8B, BERT-base, Llama 3 70B, BERT-large, 1B."""
WIDTHS = (768, 4096, 1024, 8192, 2048, 14336)
# ResNet-50 (arXiv:1512.03385, table 1), MobileNetV2 (arXiv:1801.04381, table 2), ViT-B/16:
# C, H, O, kernel, stride, groups.
CONVOLUTIONS = (
    (64, 56, 64, 3, 1, 1), (256, 14, 256, 3, 1, 1), (144, 56, 144, 3, 1, 144),
    (64, 56, 256, 1, 1, 1), (1024, 14, 256, 1, 1, 1), (3, 224, 768, 16, 16, 1),
    (3, 224, 64, 7, 2, 1), (128, 28, 128, 3, 1, 1), (512, 7, 512, 3, 1, 1),
    (96, 112, 96, 3, 2, 96), (960, 7, 960, 3, 1, 960), (256, 56, 128, 1, 2, 1),
    (32, 112, 16, 1, 1, 1), (512, 7, 2048, 1, 1, 1),
)  # fmt: skip
CONVOLUTION = ("N", "C", "H", "W", "O", "k", "stride", "groups")
VOCABULARIES = ((50257, 768), (128256, 4096), (30522, 1024), (128256, 2048))


@cache
def shapes(op: str, seed: int = 0) -> tuple[Shape, ...]:
    """Shapes of an operator, the same for every number type: real ones and drawn ones in turn.

    The first ones are small and common, so that a short budget says the most.
    """
    generator = np.random.default_rng([seed, *op.encode()])
    real, draw = FAMILIES.get(op, (_real_rows, _draw_rows))
    known = list(real())
    drawn = [draw(generator) for _ in range(DRAWN)]
    mixed = [shape for pair in zip(known, drawn, strict=False) for shape in pair]
    rest = known[len(drawn) :] or drawn[len(known) :]
    distinct = {tuple(shape.items()): shape for shape in (*mixed, *rest)}
    return tuple(distinct.values())


def _real_gemm() -> Iterator[Shape]:
    """Layers and token counts along diagonals, so that neighbours differ in both."""
    pairs = list(product(range(len(TOKENS)), range(len(LINEAR))))
    for tokens, layer in sorted(pairs, key=lambda pair: (sum(pair), pair[1])):
        k, n = LINEAR[layer]
        yield {"M": TOKENS[tokens], "K": k, "N": n}


def _draw_gemm(generator: np.random.Generator) -> Shape:
    """K in steps of 128 and N of 64, which every narrow format takes."""
    return {
        "M": between(generator, 1, 16384),
        "K": between(generator, 128, 20480, step=128),
        "N": between(generator, 64, 20480, step=64),
    }


def _real_bmm() -> Iterator[Shape]:
    for batch, (heads, _, depth), length in product((1, 8), HEADS, (128, 384, 1024)):
        yield {"B": batch * heads, "M": length, "K": depth, "N": length}
        yield {"B": batch * heads, "M": length, "K": length, "N": depth}


def _draw_bmm(generator: np.random.Generator) -> Shape:
    while True:
        shape = {"B": between(generator, 4, 2048), "M": between(generator, 1, 2048)}
        shape |= {name: between(generator, 32, 2048, step=16) for name in ("K", "N")}
        largest = sorted(shape[name] for name in ("M", "K", "N"))[1:]
        if shape["B"] * math.prod(largest) <= MOST_ELEMENTS:
            return shape


def _real_attention() -> Iterator[Shape]:
    for length, batch, heads in product((512, 2048, 128, 4096), (1, 8), HEADS):
        yield _attention(batch, heads, queries=length, keys=length)
        yield _attention(4 * batch, heads, queries=1, keys=2 * length)


def _draw_attention(generator: np.random.Generator) -> Shape:
    while True:
        heads = HEADS[int(generator.integers(len(HEADS)))]
        if generator.random() < 0.5:
            shape = _attention(
                between(generator, 1, 64), heads, queries=1, keys=between(generator, 64, 32768)
            )
        else:
            length = between(generator, 32, 8192)
            shape = _attention(between(generator, 1, 16), heads, queries=length, keys=length)
        keys = shape["B"] * shape["HK"] * shape["L"] * shape["D"]
        pairs = shape["B"] * shape["H"] * shape["S"] * shape["L"]
        if keys <= MOST_ELEMENTS and pairs <= MOST_PAIRS:
            return shape


def _attention(batch: int, heads: tuple[int, int, int], *, queries: int, keys: int) -> Shape:
    """Prompts attend causally; a single query to the whole cache."""
    names = ("B", "H", "HK", "S", "L", "D", "causal")
    count, shared, depth = heads
    return dict(zip(names, (batch, count, shared, queries, keys, depth, queries > 1), strict=True))


def _real_conv2d() -> Iterator[Shape]:
    for batch, (channels, size, *others) in product((1, 32, 8), CONVOLUTIONS):
        sizes = (batch, channels, size, size, *others)
        yield dict(zip(CONVOLUTION, sizes, strict=True))


def _draw_conv2d(generator: np.random.Generator) -> Shape:
    while True:
        channels = between(generator, 8, 1024, step=8)
        depthwise = generator.random() < 0.25
        outputs = channels if depthwise else between(generator, 8, 2048, step=8)
        size = between(generator, 7, 224)
        kernel = int(generator.choice([3, 5] if depthwise else [1, 3, 5]))
        stride = int(generator.choice([1, 1, 2]))
        batch = between(generator, 1, 64)
        if batch * max(channels, outputs) * size**2 <= MOST_ELEMENTS // 4:
            groups = channels if depthwise else 1
            sizes = (batch, channels, size, size, outputs, kernel, stride, groups)
            return dict(zip(CONVOLUTION, sizes, strict=True))


def _real_rows() -> Iterator[Shape]:
    for rows, cols in product((512, 1, 4096, 64, 16384), WIDTHS):
        yield {"rows": rows, "cols": cols}


def _draw_rows(generator: np.random.Generator) -> Shape:
    while True:
        rows = between(generator, 1, 65536)
        cols = between(generator, 64, 32768, step=8)
        if rows * cols <= MOST_ELEMENTS // 2:
            return {"rows": rows, "cols": cols}


def _real_embedding() -> Iterator[Shape]:
    for tokens, (vocabulary, width) in product((512, 1, 8192), VOCABULARIES):
        yield {"vocab": vocabulary, "dim": width, "tokens": tokens}


def _draw_embedding(generator: np.random.Generator) -> Shape:
    return {
        "vocab": between(generator, 1000, 130000),
        "dim": between(generator, 128, 4096, step=64),
        "tokens": between(generator, 1, 16384),
    }


def between(generator: np.random.Generator, low: int, high: int, *, step: int = 1) -> int:
    """Log-uniform in [low, high], rounded to a multiple of `step`."""
    value = float(np.exp(generator.uniform(np.log(low), np.log(high))))
    return max(round(value / step), 1) * step


Family = tuple[Callable[[], Iterator[Shape]], Callable[[np.random.Generator], Shape]]
FAMILIES: dict[str, Family] = {
    "gemm": (_real_gemm, _draw_gemm),
    "bmm": (_real_bmm, _draw_bmm),
    "attention": (_real_attention, _draw_attention),
    "conv2d": (_real_conv2d, _draw_conv2d),
    "embedding": (_real_embedding, _draw_embedding),
}
