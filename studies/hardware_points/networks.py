"""Kernels of a Llama-3-8B decoder layer and of ResNet-50, int8, with how often each runs."""

from __future__ import annotations

from collections.abc import Iterator

from hwmodels.formats import catalog
from hwmodels.work.kernel import Kernel, KernelKind
from hwmodels.work.loops import AttentionLoops, ConvolutionLoops, ProductLoops

INT8 = catalog.format("int8")
TOKENS = 2048
"""Of a prompt, and positions before a decoded token."""


def llama_layer() -> dict[Kernel, int]:
    """Products and attention of a decoder layer: a prompt of `TOKENS`, and one token after it."""
    found: dict[Kernel, int] = {}
    for tokens in (TOKENS, 1):
        for kernel in (
            _product(tokens, 6144, 4096),  # queries, keys and values
            _attention(tokens),
            _product(tokens, 4096, 4096),
            _product(tokens, 28672, 4096),  # gate and up
            _product(tokens, 4096, 14336),
        ):
            found[kernel] = found.get(kernel, 0) + 1
    return found


def resnet50() -> dict[Kernel, int]:
    """Convolutions and head of ResNet-50 for one image of 224 x 224."""
    found: dict[Kernel, int] = {}
    for kernel in _resnet50():
        found[kernel] = found.get(kernel, 0) + 1
    return found


def _resnet50() -> Iterator[Kernel]:
    yield _convolution(3, 64, out=112, kernel=7, stride=2)
    channels = 64
    for width, out, blocks in ((64, 56, 3), (128, 28, 4), (256, 14, 6), (512, 7, 3)):
        for block in range(blocks):
            stride = 2 if block == 0 and width > 64 else 1
            yield _convolution(channels, width, out=out * stride)
            yield _convolution(width, width, out=out, kernel=3, stride=stride)
            yield _convolution(width, 4 * width, out=out)
            if block == 0:
                yield _convolution(channels, 4 * width, out=out, stride=stride)
            channels = 4 * width
    yield _product(1, 1000, 2048)


def _kernel(kind: KernelKind, loops: ProductLoops | ConvolutionLoops | AttentionLoops,
            sizes: tuple[int, int, int]) -> Kernel:  # fmt: skip
    inputs, weights, outputs = sizes
    return Kernel(
        kind=kind,
        loops=loops,
        input_bytes=inputs,
        weight_bytes=weights,
        write_bytes=outputs,
        input_format=INT8,
        weight_format=INT8,
        output_format=INT8,
        weight_element="int8",
        input_element="int8",
        accumulator="int32",
    )


def _product(m: int, n: int, k: int) -> Kernel:
    return _kernel("gemm", ProductLoops(m=m, n=n, k=k), (m * k, n * k, m * n))


def _convolution(
    channels: int, outputs: int, *, out: int, kernel: int = 1, stride: int = 1
) -> Kernel:
    size = out * stride
    loops = ConvolutionLoops(
        images=1, groups=1, in_channels=channels, out_channels=outputs, in_size=(size, size),
        out_size=(out, out), kernel=(kernel, kernel), stride=(stride, stride),
    )  # fmt: skip
    sizes = (channels * size**2, channels * outputs * kernel**2, outputs * out**2)
    return _kernel("conv2d", loops, sizes)


def _attention(queries: int) -> Kernel:
    heads, key_heads, depth = 32, 8, 128
    loops = AttentionLoops(
        batch=1, heads=heads, kv_heads=key_heads, queries=queries, keys=TOKENS, depth=depth,
        causal=queries > 1,
    )  # fmt: skip
    activations = heads * queries * depth
    return _kernel("attention", loops, (activations, 2 * key_heads * TOKENS * depth, activations))
