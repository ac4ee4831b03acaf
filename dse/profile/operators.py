"""Operators of the table as torch functions of tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle

import torch
from torch.nn import functional

from dse.profile.arena import Operand
from dse.profile.gemm import GEMMS, Function
from dse.profile.plan import COMPILED, Operator

TORCH_TYPES = {
    "fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16,
}  # fmt: skip
FP8 = torch.float8_e4m3fn
FP8_LARGEST = 448.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A function and the operands that differ between calls."""

    function: Function
    operands: tuple[Operand, ...]


def work_of(operator: Operator, device: torch.device) -> Work:
    """The function to call for an operator; compiled where its runtime says so.

    Constants (scales, weights of norms) are made here and stay the same between calls.

    Raises:
        KeyError: A number type that torch has no function for with this operator.
    """
    if operator.op == "gemm":
        build = GEMMS[operator.dtype]
        function, operands = build(operator.shape, device)
    elif operator.op == "conv2d" and operator.dtype == "int8":
        function, operands = _quantized_conv2d(operator.shape), ()
    else:
        dtype = TORCH_TYPES[operator.dtype]
        function, operands = BUILDERS[operator.op](operator.shape, dtype, device)
    if operator.runtime == COMPILED:
        # One graph a shape, as a user's network has, not one with symbolic sizes.
        torch.compiler.reset()
        function = torch.compile(function, dynamic=False)
    return Work(function=function, operands=operands)


Built = tuple[Function, tuple[Operand, ...]]
Sizes = dict[str, int]


def _bmm(sizes: Sizes, dtype: torch.dtype, _device: torch.device) -> Built:
    b, m, k, n = (sizes[name] for name in "BMKN")
    left = Operand(shape=(b, m, k), dtype=dtype)
    return torch.bmm, (left, Operand(shape=(b, k, n), dtype=dtype))


def _attention(sizes: Sizes, dtype: torch.dtype, _device: torch.device) -> Built:
    b, h, hk, s, length, d = (sizes[name] for name in ("B", "H", "HK", "S", "L", "D"))
    causal, grouped = bool(sizes.get("causal")), h != hk

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return functional.scaled_dot_product_attention(
            q, k, v, is_causal=causal, enable_gqa=grouped
        )

    cached = Operand(shape=(b, hk, length, d), dtype=dtype)
    return attend, (Operand(shape=(b, h, s, d), dtype=dtype), cached, cached)


def _conv2d(sizes: Sizes, dtype: torch.dtype, _device: torch.device) -> Built:
    """Channels last; padding keeps the size apart from the stride, but not of patches."""
    n, c, height, width, o = (sizes[name] for name in "NCHWO")
    k, stride, groups = sizes["k"], sizes["stride"], sizes["groups"]
    padding = 0 if stride == k else k // 2

    def convolve(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(
            x.permute(0, 3, 1, 2),
            weight.permute(0, 3, 1, 2),
            stride=stride,
            padding=padding,
            groups=groups,
        )

    image = Operand(shape=(n, height, width, c), dtype=dtype)
    return convolve, (image, Operand(shape=(o, k, k, c // groups), dtype=dtype))


BANK_BYTES = 2**28
MOST_LAYERS = 64
INT8_SCALE, INT8_ZERO = 0.01, 128


def _quantized_conv2d(sizes: Sizes) -> Function:
    """Torch's own int8 convolution on processors, a scale a tensor and a channel.

    Packed weights and quantised images are no pieces of an arena: calls walk along a list of
    layers instead.
    """
    n, c, height, width, o = (sizes[name] for name in "NCHWO")
    k, stride, groups = sizes["k"], sizes["stride"], sizes["groups"]
    padding = 0 if stride == k else k // 2
    weight_bytes, image_bytes = o * c // groups * k * k, n * c * height * width
    count = max(min(BANK_BYTES // (weight_bytes + image_bytes), MOST_LAYERS), 2)
    scales, zeros = torch.full((o,), INT8_SCALE), torch.zeros(o, dtype=torch.int64)
    image = torch.randn(n, c, height, width).to(memory_format=torch.channels_last)
    weight = torch.quantize_per_channel(
        torch.randn(o, c // groups, k, k), scales, zeros, 0, torch.qint8
    )
    layers = [
        (
            torch.quantize_per_tensor(image, INT8_SCALE, INT8_ZERO, torch.quint8),
            torch.ops.quantized.conv2d_prepack(
                weight, None, [stride] * 2, [padding] * 2, [1, 1], groups
            ),
        )
        for _ in range(count)
    ]
    turn = cycle(layers)

    def convolve() -> torch.Tensor:
        x, packed = next(turn)
        result: torch.Tensor = torch.ops.quantized.conv2d(x, packed, INT8_SCALE, INT8_ZERO)
        return result

    return convolve


def _embedding(sizes: Sizes, dtype: torch.dtype, _device: torch.device) -> Built:
    table = Operand(shape=(sizes["vocab"], sizes["dim"]), dtype=dtype)
    tokens = Operand(shape=(sizes["tokens"],), dtype=torch.int64, high=sizes["vocab"])
    return functional.embedding, (tokens, table)


def _layernorm(sizes: Sizes, dtype: torch.dtype, device: torch.device) -> Built:
    cols = sizes["cols"]
    weight, bias = (torch.ones(cols, dtype=dtype, device=device) for _ in range(2))

    def normalise(x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, (cols,), weight, bias)

    return normalise, (_rows(sizes, dtype),)


def _rmsnorm(sizes: Sizes, dtype: torch.dtype, device: torch.device) -> Built:
    cols = sizes["cols"]
    weight = torch.ones(cols, dtype=dtype, device=device)

    def normalise(x: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, (cols,), weight)

    return normalise, (_rows(sizes, dtype),)


def _rowwise(function: Function, inputs: int = 1) -> Callable[..., Built]:
    """Builder of an operator over tensors of one shape."""

    def build(sizes: Sizes, dtype: torch.dtype, _device: torch.device) -> Built:
        return function, (_rows(sizes, dtype),) * inputs

    return build


def _rows(sizes: Sizes, dtype: torch.dtype) -> Operand:
    return Operand(shape=(sizes["rows"], sizes["cols"]), dtype=dtype)


def _softmax(x: torch.Tensor) -> torch.Tensor:
    return functional.softmax(x, dim=-1)


def _mean(x: torch.Tensor) -> torch.Tensor:
    return x.mean(dim=-1)


def _cast_fp8(x: torch.Tensor) -> torch.Tensor:
    return x.to(FP8)


def _quant_fp8(x: torch.Tensor) -> torch.Tensor:
    """Per tensor, dynamic: the largest magnitude becomes e4m3's largest value."""
    scale = FP8_LARGEST / x.abs().amax()
    return (x * scale).clamp(-FP8_LARGEST, FP8_LARGEST).to(FP8)


BUILDERS: dict[str, Callable[[Sizes, torch.dtype, torch.device], Built]] = {
    "bmm": _bmm,
    "attention": _attention,
    "conv2d": _conv2d,
    "embedding": _embedding,
    "layernorm": _layernorm,
    "rmsnorm": _rmsnorm,
    "add": _rowwise(torch.add, 2),
    "mul": _rowwise(torch.mul, 2),
    "relu": _rowwise(torch.relu),
    "gelu": _rowwise(functional.gelu),
    "silu": _rowwise(functional.silu),
    "softmax": _rowwise(_softmax),
    "reduce_mean": _rowwise(_mean),
    "cast_fp8": _rowwise(_cast_fp8),
    "quant_fp8": _rowwise(_quant_fp8),
}
