"""ONNX Runtime's LSTM over 8-bit weights."""

# Positional parameters are the inputs of an ONNX operator, however many it has.
# ruff: noqa: PLR0917

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from dse.execute.operators.operator import Operator, operator
from dse.execute.operators.quantization import dynamic_quantize_linear
from dse.execute.operators.recurrent import lstm, recurrent_macs


def dynamic_quantize_lstm(
    x: Tensor, weight: Tensor, recurrent: Tensor, bias: Tensor | None,
    sequence_lens: Tensor | None, initial_h: Tensor | None, initial_c: Tensor | None,
    peephole: Tensor | None, weight_scale: Tensor, weight_zero_point: Tensor,
    recurrent_scale: Tensor, recurrent_zero_point: Tensor,
    *,
    activation_alpha: tuple[float, ...] = (), activation_beta: tuple[float, ...] = (),
    activations: tuple[str, ...] | None = None, clip: float | None = None,
    direction: str = "forward", hidden_size: int | None = None, input_forget: int = 0,
) -> tuple[Tensor, ...]:  # fmt: skip
    """The LSTM of 8-bit weights, whose inputs are rounded to 8 bits as they come.

    Weights are (D, I, 4 H) and (D, H, 4 H) integers, a scale and a zero point for each direction,
    or for each of its columns. The whole input is rounded once, the hidden state at every step.

    Source: ONNX Runtime, contrib operator `DynamicQuantizeLSTM`.
    """
    return lstm(
        _rounded(x),
        _real(weight, weight_scale, weight_zero_point),
        _real(recurrent, recurrent_scale, recurrent_zero_point),
        bias, sequence_lens, initial_h, initial_c, peephole,
        activation_alpha=activation_alpha, activation_beta=activation_beta,
        activations=activations, clip=clip, direction=direction, hidden_size=hidden_size,
        input_forget=input_forget, rounded=_rounded,
    )  # fmt: skip


def _rounded(x: Tensor) -> Tensor:
    """The values on the grid that DynamicQuantizeLinear finds for them."""
    codes, scale, zero_point = dynamic_quantize_linear(x)
    return (codes.float() - zero_point.float()) * scale


def _real(codes: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Weights as (D, 4 H, inputs) floats."""
    directions = codes.shape[0]
    shape = (directions, 1, -1)
    real = (codes.float() - zero_point.float().reshape(shape)) * scale.reshape(shape)
    return real.transpose(1, 2)


MICROSOFT: Mapping[str, Operator] = {
    "DynamicQuantizeLSTM": operator(dynamic_quantize_lstm, host=(4,), macs=recurrent_macs),
}
