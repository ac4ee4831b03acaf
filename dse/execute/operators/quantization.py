"""ONNX's own quantised operators: what a model that is already quantised contains."""

# Positional parameters are the inputs of an ONNX operator, however many it has.
# ruff: noqa: PLR0917

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dse.execute.operators.cast import converted
from dse.execute.operators.convolution import conv_macs, convolving
from dse.execute.operators.dtype import BY_CARRIER, BY_CODE, BY_NAME, ElementType
from dse.execute.operators.linear import matmul_macs
from dse.execute.operators.operator import Operator, operator


def _spread(parameter: Tensor, x: Tensor, axis: int, block_size: int) -> Tensor:
    """A scale or zero point of a tensor, an axis or blocks along it, broadcastable to x."""
    if parameter.dim() == 0 or (parameter.numel() == 1 and not block_size):
        return parameter.reshape(())
    axis = axis % x.dim()
    if block_size:
        spread = parameter.repeat_interleave(block_size, axis)
        return spread.narrow(axis, 0, x.shape[axis])
    return parameter.reshape([-1 if i == axis else 1 for i in range(x.dim())])


def _quantized_type(zero_point: Tensor | None, name: str | None, output_dtype: int) -> ElementType:
    if zero_point is not None:
        return BY_NAME[name] if name else BY_CARRIER[zero_point.dtype]
    return BY_CODE[output_dtype] if output_dtype else BY_NAME["uint8"]


def _to_integer(scaled: Tensor, zero_point: Tensor | float, element: ElementType) -> Tensor:
    low, high = element.integer_range or (0, 0)
    y = torch.round(scaled) + zero_point
    y = y.clamp(low, high)
    return (y.to(torch.int32) if element.carrier == torch.uint16 else y).to(element.carrier)


def quantize_linear(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
    input_types: tuple[str | None, ...],
) -> Tensor:
    """round(x / scale) + zero point, ties to even, limited to the output type.

    The scale is one for the tensor, one per entry of `axis`, or one per block along it.
    """
    name = input_types[2] if len(input_types) > 2 else None
    element = _quantized_type(zero_point, name, output_dtype)
    wide = BY_CODE[precision].carrier if precision else torch.promote_types(
        x.dtype if x.is_floating_point() else torch.float32, scale.float().dtype
        if scale.element_size() == 1 else scale.dtype,
    )  # fmt: skip
    scaled = x.to(wide) / _spread(scale.to(wide), x, axis, block_size)
    if element.integer_range is None:
        return converted(scaled, element, saturate=bool(saturate))
    offset = 0.0 if zero_point is None else _spread(zero_point.to(wide), x, axis, block_size)
    return _to_integer(scaled, offset, element)


def dequantize_linear(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Tensor:
    """(x - zero point) scale, in the scale's type."""
    wide = x.float()
    if zero_point is not None:
        wide = wide - _spread(zero_point.float(), x, axis, block_size)
    y = wide * _spread(scale.float(), x, axis, block_size)
    return y.to(BY_CODE[output_dtype].carrier if output_dtype else scale.dtype)


def dynamic_quantize_linear(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 values, the scale (max - min) / 255 with zero inside the range, the zero point."""
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero_point = torch.round(-low / scale).clamp(0, 255)
    y = (torch.round(x / scale) + zero_point).clamp(0, 255)
    return y.to(torch.uint8), scale, zero_point.to(torch.uint8)


def _rows(zero_point: Tensor) -> Tensor:
    """A zero point per row, as a column."""
    return zero_point.double().unsqueeze(-1) if zero_point.dim() == 1 else zero_point.double()


def _exact_product(
    a: Tensor, b: Tensor, a_zero_point: Tensor | None, b_zero_point: Tensor | None
) -> Tensor:
    """The product of integers without their zero points; float64 holds every sum exactly."""
    wide_a, wide_b = a.double(), b.double()
    if a_zero_point is not None:
        single = a_zero_point.numel() == 1
        wide_a = wide_a - (a_zero_point.double() if single else _rows(a_zero_point))
    if b_zero_point is not None:
        wide_b = wide_b - b_zero_point.double()
    return torch.matmul(wide_a, wide_b)


def matmul_integer(
    a: Tensor, b: Tensor, a_zero_point: Tensor | None = None, b_zero_point: Tensor | None = None
) -> Tensor:
    """The int32 product of 8-bit matrices less their zero points (per row of a, column of b)."""
    return _exact_product(a, b, a_zero_point, b_zero_point).to(torch.int32)


def qlinear_matmul(
    a: Tensor, a_scale: Tensor, a_zero_point: Tensor,
    b: Tensor, b_scale: Tensor, b_zero_point: Tensor,
    y_scale: Tensor, y_zero_point: Tensor,
) -> Tensor:  # fmt: skip
    """The product of quantised matrices, requantised."""
    product = _exact_product(a, b, a_zero_point, b_zero_point)
    a_factor = _rows(a_scale) if a_scale.numel() > 1 else a_scale.double()
    factor = a_factor * b_scale.double() / y_scale.double()
    return _to_integer(product * factor, y_zero_point.double(), BY_CARRIER[y_zero_point.dtype])


def _without_zero_points(
    x: Tensor,
    weight: Tensor,
    x_zero_point: Tensor | None = None,
    weight_zero_point: Tensor | None = None,
) -> tuple[Tensor, Tensor, None]:
    """8-bit operands of ConvInteger less their zero points, the weight's one or per filter."""
    wide, kernel = x.double(), weight.double()
    if x_zero_point is not None:
        wide = wide - x_zero_point.double()
    if weight_zero_point is not None:
        kernel = kernel - _spread(weight_zero_point.double(), kernel, 0, 0)
    return wide, kernel, None


def _unscaled(
    x: Tensor, _x_scale: Tensor, x_zero_point: Tensor,
    weight: Tensor, _weight_scale: Tensor, weight_zero_point: Tensor,
    _y_scale: Tensor, _y_zero_point: Tensor, bias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Operands of QLinearConv less their zero points; the bias is int32 in product units."""
    wide, kernel, _ = _without_zero_points(x, weight, x_zero_point, weight_zero_point)
    return wide, kernel, None if bias is None else bias.double()


def _requantized(
    y: Tensor, _x: Tensor, x_scale: Tensor, _x_zero_point: Tensor,
    _weight: Tensor, weight_scale: Tensor, _weight_zero_point: Tensor,
    y_scale: Tensor, y_zero_point: Tensor, _bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """A product of QLinearConv on the grid of its output."""
    factor = x_scale.double() * _spread(weight_scale.double(), y, 1, 0) / y_scale.double()
    return _to_integer(y * factor, y_zero_point.double(), BY_CARRIER[y_zero_point.dtype])


OPERATORS: Mapping[str, Operator] = {
    "ConvInteger": operator(
        convolving(_without_zero_points, lambda y, *_: y.to(torch.int32)), macs=conv_macs
    ),
    "DequantizeLinear": operator(dequantize_linear),
    "DynamicQuantizeLinear": operator(dynamic_quantize_linear),
    "MatMulInteger": operator(matmul_integer, macs=matmul_macs),
    "QLinearConv": operator(
        convolving(_unscaled, _requantized),
        macs=lambda inputs, outputs: conv_macs((inputs[0], inputs[3]), outputs),
    ),
    "QLinearMatMul": operator(qlinear_matmul, macs=matmul_macs),
    "QuantizeLinear": operator(quantize_linear),
}

MICROSOFT: Mapping[str, Operator] = {
    "DequantizeLinear": operator(dequantize_linear),
    "QuantizeLinear": operator(quantize_linear),
}
"""The same for element types that the model's opset does not have there yet."""
