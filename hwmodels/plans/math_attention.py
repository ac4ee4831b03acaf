"""Attention by products and passes over the scores, as PyTorch falls back to.

`scaled_dot_product_attention` takes a fused kernel only where the mask's elements lie side by
side along the keys. A mask that is expanded along them (stride 0: what transformers hands over for
"attend to everything" while a graph is captured or compiled) leaves the "math" implementation:
16-bit operands are widened, products run in float32 without tensor cores, and rows that are masked
entirely are looked for in passes of their own. On an H100 8 x 12 heads of 384 x 384 take 426 us
then, 41 us with the same mask stored in full and 25 us without one (`studies/gpu_latency`).

Source: aten/src/ATen/native/transformers/sdp_utils_cpp.h (`check_last_dim_stride_equals_1`),
transformers/attention.cpp (`_scaled_dot_product_attention_math`, `_safe_softmax`).
"""

from __future__ import annotations

from hwmodels.work.kernel import Kernel, KernelKind
from hwmodels.work.loops import AttentionLoops, ProductLoops, RowLoops
from hwmodels.work.work import plain_format

EXPANDED_MASK = "expanded_mask"
"""Detail of an attention whose mask is the same for all keys, expanded along them."""
FP32 = plain_format(32)
WIDE, NARROW, FLAG = 4, 2, 1
"""Bytes of float32, of the operands, of a truth value."""


def math_attention(kernel: Kernel, *, fused: bool) -> list[Kernel]:
    """The kernels in place of an attention `kernel`, in order.

    `fused`: a compiler joins what is elementwise with the softmax and the casts.
    """
    loops = kernel.loops
    assert isinstance(loops, AttentionLoops), "kernels check their loops"
    heads, depth = loops.batch * loops.heads, loops.depth
    scores = heads * loops.queries * loops.keys
    queries, keys = heads * loops.queries * depth, heads * loops.keys * depth
    sides = (queries, keys, keys)
    first = _product(heads, loops.queries, loops.keys, depth)
    second = _product(heads, loops.queries, depth, loops.keys)
    softmax = _pass("rowwise", "softmax", scores, WIDE, WIDE, cols=loops.keys)
    if fused:
        casts = [_pass("pointwise", "cast", side, NARROW, WIDE) for side in sides]
        return [*casts, first, softmax, second, _pass("pointwise", "cast", queries, WIDE, NARROW)]
    return [
        *(_pass("pointwise", "strided", side, NARROW, WIDE) for side in sides),
        *(_pass("pointwise", "mul", side, WIDE, WIDE) for side in (queries, keys)),
        _pass("pointwise", "strided", scores // loops.heads, FLAG, NARROW),
        *(_pass("pointwise", "strided", side, WIDE, WIDE) for side in sides),
        first,
        _pass("pointwise", "strided", scores, WIDE, WIDE),
        softmax,
        _pass("pointwise", "isneginf", scores, WIDE, FLAG),
        _pass("reduce", "all", scores, FLAG, 0, cols=loops.keys),
        _pass("pointwise", "where", scores, WIDE, WIDE),
        second,
        _pass("pointwise", "cast", scores, WIDE, NARROW),
        _pass("pointwise", "cast", queries, WIDE, NARROW),
    ]


def _product(batch: int, m: int, n: int, k: int) -> Kernel:
    return Kernel(
        kind="gemm",
        loops=ProductLoops(batch=batch, m=m, n=n, k=k),
        input_format=FP32,
        weight_format=FP32,
        output_format=FP32,
        weight_element="fp32",
        input_element="fp32",
        input_bytes=WIDE * batch * m * k,
        weight_bytes=WIDE * batch * n * k,
        weight_is_cold=False,
        write_bytes=WIDE * batch * m * n,
    )


def _pass(
    kind: KernelKind, detail: str, count: int, read: int, write: int, *, cols: int = 1
) -> Kernel:
    return Kernel(
        kind=kind,
        detail=detail,
        loops=RowLoops(rows=count // cols, cols=cols) if cols > 1 else RowLoops(),
        input_format=plain_format(8 * read),
        output_format=plain_format(8 * write) if write else None,
        input_bytes=read * count,
        write_bytes=write * count,
    )
