"""The plan of a processor: operators of torch and ONNX Runtime, at sizes that one has time for.

Shapes are log-uniform as those of GPUs are, in batches of one to a few, with images of three
channels, decoding steps and classifiers among them; real layers come first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec

import numpy as np

from dse.profile.plan import ONNX_RUNTIME, PROCESSOR, Operator
from dse.profile.shapes import CONVOLUTION, Shape, between, shapes
from dse.profile.size import work_size

MOST_WORK = 2e9
"""Of an operator, in operations (`work_size`): 10 ms of float32 on two cores."""
DRAWN = 60
"""Log-uniform shapes that an operator has."""
TORCH: Mapping[str, tuple[str, ...]] = {
    "gemm": ("fp32", "bf16", "int8", "w8a8_int8_dynamic"),
    "conv2d": ("fp32", "bf16", "int8"),
    **dict.fromkeys(("bmm", "attention", "softmax", "layernorm", "rmsnorm"), ("fp32", "bf16")),
    **dict.fromkeys(("add", "mul", "relu", "gelu", "silu", "reduce_mean"), ("fp32", "bf16")),
    "embedding": ("fp32",),
}
"""Number types that torch has kernels for on every processor, by operator."""
SESSIONS: Mapping[str, tuple[str, ...]] = {
    "gemm": ("fp32", "int8"),
    "conv2d": ("fp32", "int8"),
    **dict.fromkeys(("bmm", "add", "mul", "gelu", "softmax", "layernorm"), ("fp32",)),
}
"""The same of ONNX Runtime's provider."""
KERNELS = ((1, 1), (1, 2), (3, 1), (3, 2), (5, 1), (5, 2))
"""Sizes and strides of convolutions' kernels."""


def processor_plan(seed: int = 0) -> tuple[Operator, ...]:
    """Operators of torch, and of ONNX Runtime where it is installed; real layers first."""
    queues = queues_of(sessions=find_spec("onnxruntime") is not None)
    found = [
        Operator.of(op, shape, dtype, runtime)
        for op, dtype, runtime in queues
        for shape in (*shapes(op, seed), *drawn_shapes(op, seed))
    ]
    return tuple(one for one in dict.fromkeys(found) if work_size(one) <= MOST_WORK)


def queues_of(*, sessions: bool) -> list[tuple[str, str, str]]:
    """Operators, number types and runtimes."""
    queues = [(op, dtype, PROCESSOR) for op, types in TORCH.items() for dtype in types]
    if sessions:
        queues += [(op, dtype, ONNX_RUNTIME) for op, types in SESSIONS.items() for dtype in types]
    return queues


@cache
def drawn_shapes(op: str, seed: int) -> tuple[Shape, ...]:
    """Log-uniform shapes of an operator, the same for every number type and runtime."""
    draw = DRAWS.get(op, _draw_rows)
    generator = np.random.default_rng([seed, *op.encode()])
    found = {tuple(shape.items()): shape for shape in _short(op, draw, generator)}
    return tuple(found.values())


def _short(
    op: str, draw: Callable[[np.random.Generator], Shape], generator: np.random.Generator
) -> Iterator[Shape]:
    count = 0
    while count < DRAWN:
        shape = draw(generator)
        if work_size(Operator.of(op, shape, "fp32")) <= MOST_WORK:
            yield shape
            count += 1


def _draw_gemm(generator: np.random.Generator) -> Shape:
    """A third of them single rows, as of a decoding step or a classifier."""
    rows = 1 if generator.random() < 1 / 3 else between(generator, 2, 1024)
    return {
        "M": rows,
        "K": between(generator, 64, 4096, step=32),
        "N": between(generator, 32, 4096, step=8),
    }


def _draw_bmm(generator: np.random.Generator) -> Shape:
    shape = {"B": between(generator, 1, 64), "M": between(generator, 1, 512)}
    return shape | {name: between(generator, 16, 512, step=8) for name in ("K", "N")}


def _draw_attention(generator: np.random.Generator) -> Shape:
    heads, length = between(generator, 2, 16), between(generator, 16, 1024)
    decodes = generator.random() < 1 / 3
    return {
        "B": between(generator, 1, 8), "H": heads, "HK": heads, "S": 1 if decodes else length,
        "L": length, "D": int(generator.choice([32, 64, 128])),
        "causal": not decodes and bool(generator.random() < 1 / 2),
    }  # fmt: skip


def _draw_conv2d(generator: np.random.Generator) -> Shape:
    """A quarter depthwise, an eighth of images."""
    kind = generator.random()
    kernel, stride = KERNELS[int(generator.integers(len(KERNELS)))]
    channels = between(generator, 8, 1024, step=8)
    outputs, groups = between(generator, 8, 1024, step=8), 1
    if kind < 1 / 4:
        kernel, outputs, groups = max(kernel, 3), channels, channels
    elif kind < 3 / 8:
        kernel, channels = max(kernel, 3), int(generator.choice([1, 3, 4]))
    size = between(generator, 112, 256) if channels < 8 else between(generator, 5, 112)
    batch = int(generator.choice([1, 1, 1, 2, 4]))
    sizes = (batch, channels, size, size, outputs, kernel, stride, groups)
    return dict(zip(CONVOLUTION, sizes, strict=True))


def _draw_rows(generator: np.random.Generator) -> Shape:
    return {"rows": between(generator, 1, 8192), "cols": between(generator, 32, 8192, step=8)}


def _draw_embedding(generator: np.random.Generator) -> Shape:
    return {
        "vocab": between(generator, 1000, 60000),
        "dim": between(generator, 128, 1024, step=64),
        "tokens": between(generator, 1, 2048),
    }


DRAWS: Mapping[str, Callable[[np.random.Generator], Shape]] = {
    "gemm": _draw_gemm,
    "bmm": _draw_bmm,
    "attention": _draw_attention,
    "conv2d": _draw_conv2d,
    "embedding": _draw_embedding,
}
