"""Conversions between element types, and constants of a given type."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from dse.execute.operators.dtype import BY_CARRIER, BY_CODE, BY_NAME, ElementType
from dse.execute.operators.operator import Operator, operator

_E8M0_BIAS = 127
_FLOAT8 = frozenset({"float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"})
_NARROW = frozenset({"float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn"})


def rounded(x: Tensor, element: ElementType) -> Tensor:
    """X (float32) on the grid of a narrow float, ties to even, unbounded above."""
    _, exponent = torch.frexp(x)
    exponent = (exponent - 1).clamp(min=element.min_exponent) - element.mantissa_bits
    step = torch.ldexp(torch.ones_like(x), exponent)
    return torch.where(x.isfinite(), torch.round(x / step) * step, x)


def to_float8(x: Tensor, element: ElementType, *, saturate: bool = True) -> Tensor:
    """X in an 8-bit float; beyond the range the largest value, or Inf or NaN.

    Explicit because torch's own cast changed: NaN before 2.12, saturating since (pytorch #178817).
    """
    x = x.float()
    nearest = rounded(x, element)
    over = nearest.abs() > element.max
    if saturate:
        limited = nearest.clamp(-element.max, element.max)
    else:
        outside = math.inf if element.has_infinity else math.nan
        limited = torch.where(over, torch.copysign(torch.full_like(x, outside), x), nearest)
    result = limited.to(element.carrier)
    # Newer torch saturates on its own, so what must not is written as bits.
    if not saturate and element.name == "float8_e4m3fn":
        missing = torch.full_like(x, math.nan).to(element.carrier)
        bits = torch.where(over, missing.view(torch.uint8), result.view(torch.uint8))
        result = bits.view(element.carrier)
    return result


def to_e8m0(x: Tensor, *, saturate: bool = True, round_mode: str = "up") -> Tensor:
    """|x| as a power of two, rounded `up`, `down` or to the `nearest` (ties up)."""
    fraction, exponent = torch.frexp(
        x.float().abs()
    )  # x = fraction 2^exponent, 0.5 <= fraction < 1
    power = exponent - 1
    match round_mode:
        case "up":
            power = power + (fraction > 0.5).int()
        case "nearest":
            power = power + (fraction >= 0.75).int()
    code = power + _E8M0_BIAS
    code = torch.where(x == 0, torch.zeros_like(code), code)
    code = code.clamp(0, 254) if saturate else torch.where((code < 0) | (code > 254), 255, code)
    code = torch.where(torch.isinf(x), torch.full_like(code, 254 if saturate else 255), code)
    code = torch.where(torch.isnan(x), torch.full_like(code, 255), code)
    return code.to(torch.uint8).view(torch.float8_e8m0fnu)


def _to_narrow_integer(x: Tensor, element: ElementType) -> Tensor:
    low, high = element.integer_range or (0, 0)
    span = high - low + 1
    return ((x.to(torch.int64) - low).remainder(span) + low).to(element.carrier)


def converted(
    x: Tensor, element: ElementType, *, saturate: bool = True, round_mode: str = "up"
) -> Tensor:
    """X in another element type, by the rules of ONNX's Cast."""
    if element.name in _FLOAT8:
        return to_float8(x, element, saturate=saturate)
    if element.name in _NARROW:
        narrow = rounded(x.float(), element).clamp(-element.max, element.max)
        # They have no NaN; ml_dtypes, and with it ONNX, write the code of -0.
        return torch.where(torch.isnan(narrow), -torch.zeros_like(narrow), narrow)
    if element.name == "float8_e8m0fnu":
        return to_e8m0(x, saturate=saturate, round_mode=round_mode)
    if element.name in ("int2", "uint2", "int4", "uint4"):
        return _to_narrow_integer(x, element)
    if (
        x.is_floating_point()
        and element.integer_range is not None
        and not element.carrier.is_signed
    ):
        return x.to(torch.int64).to(element.carrier)
    return x.to(element.carrier)


def cast(x: Tensor, *, to: int, saturate: int = 1, round_mode: str = "up") -> Tensor:
    """X in the element type `to`."""
    return converted(x, BY_CODE[to], saturate=bool(saturate), round_mode=round_mode)


def cast_name(x: Tensor, *, to: str) -> Tensor:
    """Cast before opset 6, which names the type."""
    names = {"FLOAT": "float32", "DOUBLE": "float64"}
    return converted(x, BY_NAME[names.get(to, to.lower())])


def cast_like(
    x: Tensor,
    target: Tensor,
    *,
    saturate: int = 1,
    round_mode: str = "up",
    input_types: tuple[str | None, ...],
) -> Tensor:
    """X in the element type of the target."""
    name = input_types[1]
    element = BY_NAME[name] if name else BY_CARRIER[target.dtype]
    return converted(x, element, saturate=bool(saturate), round_mode=round_mode)


def bit_cast(x: Tensor, *, to: int) -> Tensor:
    """The same bits read as another element type of the same width."""
    return x.contiguous().view(BY_CODE[to].carrier)


def constant_of_shape(
    shape: Tensor, *, value: Tensor | None = None, device: torch.device
) -> Tensor:
    """A tensor of one value, float32 zero by default."""
    if value is None:
        return torch.zeros(shape.tolist(), device=device)
    return torch.full(shape.tolist(), value.item(), dtype=value.dtype, device=device)


def range_(start: Tensor, limit: Tensor, delta: Tensor, *, device: torch.device) -> Tensor:
    """start, start + delta, ... before the limit."""
    count = max(0, math.ceil((limit.item() - start.item()) / delta.item()))
    steps = torch.arange(count, dtype=start.dtype, device=device)
    return steps * delta.item() + start.item()


OPERATORS: Mapping[str, Operator] = {
    "BitCast": operator(bit_cast),
    "Cast": Operator(versions={1: cast_name, 6: cast}),
    "CastLike": operator(cast_like),
    "ConstantOfShape": operator(constant_of_shape, host=(0,), generates=True),
    "Range": operator(range_, host=(0, 1, 2), generates=True),
}
