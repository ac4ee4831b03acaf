"""Unary, binary and variadic operators that work element by element."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from dse.execute.operators.operator import Operator, operator


def _legacy_broadcast(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """Binary operators before opset 7: `b` aligns with `a` from `axis` on."""

    def legacy(a: Tensor, b: Tensor, *, broadcast: int = 0, axis: int | None = None) -> Tensor:
        if broadcast and axis is not None:
            b = b.reshape(b.shape + (1,) * (a.dim() - axis % a.dim() - b.dim()))
        return function(a, b)

    return legacy


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return Operator(versions={1: _legacy_broadcast(function), 7: function})


def divide(a: Tensor, b: Tensor) -> Tensor:
    """A / b; integers are truncated toward zero as in C."""
    if a.is_floating_point():
        return a / b
    return torch.div(a, b, rounding_mode="trunc")


def power(a: Tensor, b: Tensor) -> Tensor:
    """A ** b in the type of `a`; a scalar exponent is applied as a number (no broadcast)."""
    if b.dim() == 0 and b.device.type == "cpu" and not b.requires_grad:
        exponent = b.item()
        if a.is_floating_point() or (isinstance(exponent, int) and exponent >= 0):
            return torch.pow(a, exponent)
    if not a.is_floating_point() and (b.is_floating_point() or bool((b < 0).any())):
        return torch.pow(a.double(), b).to(a.dtype)
    return torch.pow(a, b).to(a.dtype)


def modulo(a: Tensor, b: Tensor, *, fmod: int = 0) -> Tensor:
    """Remainder with the sign of `b`, or of `a` where `fmod` is set."""
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


def bit_shift(a: Tensor, b: Tensor, *, direction: Literal["LEFT", "RIGHT"]) -> Tensor:
    """`a` shifted by `b` bits."""
    return a << b if direction == "LEFT" else a >> b


def round_half_even(x: Tensor) -> Tensor:
    """The nearest integer, ties to even."""
    return torch.round(x)


def is_infinite(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    """A mask of x that is infinite with a wanted sign."""
    x = x.float() if x.element_size() == 1 else x
    infinite = torch.isinf(x)
    if not detect_negative:
        infinite &= x > 0
    if not detect_positive:
        infinite &= x < 0
    return infinite


def is_nan(x: Tensor) -> Tensor:
    """A mask of x that is NaN."""
    return torch.isnan(x.float() if x.element_size() == 1 else x)


def clip_attributes(x: Tensor, *, min: float | None = None, max: float | None = None) -> Tensor:
    """Clip before opset 11: the bounds are attributes."""
    return x if min is None and max is None else torch.clamp(x, min, max)


def clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """X limited to low..high; high wins where they cross; NaN stays NaN."""
    minimum = None if low is None else low.item()
    maximum = None if high is None else high.item()
    return x if low is None and high is None else torch.clamp(x, minimum, maximum)


def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    """X where positive, alpha x elsewhere."""
    return functional.leaky_relu(x, alpha)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """X where positive, slope x elsewhere; slope broadcasts to x."""
    return torch.where(x < 0, x * slope, x)


def prelu_channel(x: Tensor, slope: Tensor) -> Tensor:
    """PRelu before opset 7: a vector of slopes belongs to axis 1."""
    if slope.dim() == 1 and x.dim() > 2:
        slope = slope.reshape(-1, *(1,) * (x.dim() - 2))
    return prelu(x, slope)


def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """X where positive, alpha (exp(x) - 1) elsewhere."""
    return functional.elu(x, alpha)


def selu(x: Tensor, *, alpha: float = 1.67326319217681884765625,
         gamma: float = 1.05070102214813232421875) -> Tensor:  # fmt: skip
    """Gamma x where positive, gamma alpha (exp(x) - 1) elsewhere."""
    return gamma * functional.elu(x, alpha)


def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1))."""
    return functional.celu(x, alpha)


def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    """Alpha x + beta limited to 0..1."""
    return torch.clamp(alpha * x + beta, 0, 1)


def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """X times the normal distribution function, exactly or by tanh."""
    return functional.gelu(x, approximate=approximate)


def swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """X sigmoid(alpha x)."""
    return functional.silu(x) if alpha == 1.0 else x * torch.sigmoid(alpha * x)


def swiglu(a: Tensor, b: Tensor, *, alpha: float = 1.0) -> Tensor:
    """swish(a) b."""
    return swish(a, alpha=alpha) * b


def shrink(x: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    """X moved by bias toward zero outside -lambd..lambd, zero inside."""
    shrunk = torch.where(x > lambd, x - bias, torch.zeros_like(x))
    return torch.where(x < -lambd, x + bias, shrunk).to(x.dtype)


def thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """X where above alpha, zero elsewhere."""
    return torch.where(x > alpha, x, torch.zeros_like(x))


def _variadic(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda *tensors: reduce(function, tensors)


def mean(*tensors: Tensor) -> Tensor:
    """The mean of the tensors, broadcast."""
    return reduce(torch.add, tensors) / len(tensors)


def where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """A where the condition holds, b elsewhere."""
    return torch.where(condition, a, b)


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """gelu(x + bias)."""
    return functional.gelu(x + bias)


def fast_gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """The tanh approximation of gelu(x + bias)."""
    return functional.gelu(x if bias is None else x + bias, approximate="tanh")


def quick_gelu(x: Tensor, *, alpha: float = 1.702) -> Tensor:
    """X sigmoid(alpha x)."""
    return x * torch.sigmoid(alpha * x)


OPERATORS: Mapping[str, Operator] = {
    "Abs": operator(torch.abs),
    "Acos": operator(torch.acos),
    "Acosh": operator(torch.acosh),
    "Add": _binary(torch.add),
    "And": _binary(torch.logical_and),
    "Asin": operator(torch.asin),
    "Asinh": operator(torch.asinh),
    "Atan": operator(torch.atan),
    "Atanh": operator(torch.atanh),
    "BitShift": operator(bit_shift),
    "BitwiseAnd": operator(torch.bitwise_and),
    "BitwiseNot": operator(torch.bitwise_not),
    "BitwiseOr": operator(torch.bitwise_or),
    "BitwiseXor": operator(torch.bitwise_xor),
    "Ceil": operator(torch.ceil),
    "Celu": operator(celu),
    "Clip": Operator(versions={1: clip_attributes, 11: clip}, host=(1, 2)),
    "Cos": operator(torch.cos),
    "Cosh": operator(torch.cosh),
    "Div": _binary(divide),
    "Elu": operator(elu),
    "Equal": _binary(torch.eq),
    "Erf": operator(torch.erf),
    "Exp": operator(torch.exp),
    "Floor": operator(torch.floor),
    "Gelu": operator(gelu),
    "Greater": _binary(torch.gt),
    "GreaterOrEqual": operator(torch.ge),
    "HardSigmoid": operator(hard_sigmoid),
    "HardSwish": operator(functional.hardswish),
    "IsInf": operator(is_infinite),
    "IsNaN": operator(is_nan),
    "LeakyRelu": operator(leaky_relu),
    "Less": _binary(torch.lt),
    "LessOrEqual": operator(torch.le),
    "Log": operator(torch.log),
    "Max": operator(_variadic(torch.maximum)),
    "Mean": operator(mean),
    "Min": operator(_variadic(torch.minimum)),
    "Mish": operator(functional.mish),
    "Mod": operator(modulo),
    "Mul": _binary(torch.mul),
    "Neg": operator(torch.neg),
    "Not": operator(torch.logical_not),
    "Or": _binary(torch.logical_or),
    "PRelu": Operator(versions={1: prelu_channel, 7: prelu}),
    "Pow": _binary(power),
    "Reciprocal": operator(torch.reciprocal),
    "Relu": operator(torch.relu),
    "Round": operator(round_half_even),
    "Selu": operator(selu),
    "Shrink": operator(shrink),
    "Sigmoid": operator(torch.sigmoid),
    "Sign": operator(torch.sign),
    "Sin": operator(torch.sin),
    "Sinh": operator(torch.sinh),
    "Softplus": operator(functional.softplus),
    "Softsign": operator(functional.softsign),
    "Sqrt": operator(torch.sqrt),
    "Sub": _binary(torch.sub),
    "Sum": operator(_variadic(torch.add)),
    "SwiGLU": operator(swiglu),
    "Swish": operator(swish),
    "Tan": operator(torch.tan),
    "Tanh": operator(torch.tanh),
    "ThresholdedRelu": operator(thresholded_relu),
    "Where": operator(where),
    "Xor": _binary(torch.logical_xor),
}

MICROSOFT: Mapping[str, Operator] = {
    "BiasGelu": operator(bias_gelu),
    "FastGelu": operator(fast_gelu),
    "Gelu": operator(gelu),
    "QuickGelu": operator(quick_gelu),
}
