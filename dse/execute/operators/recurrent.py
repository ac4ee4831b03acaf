"""RNN, GRU and LSTM, unrolled over time."""

# Positional parameters are the inputs of an ONNX operator, however many it has.
# ruff: noqa: PLR0917

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from dse.execute.operators.linear import tensor
from dse.execute.operators.operator import Operator, Value, operator
from dse.execute.operators.quantization import dynamic_quantize_linear

Activation = Callable[[Tensor], Tensor]
Cell = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]
"""One step: (input projection, states) -> states; the first state is the output."""

_ACTIVATIONS: Mapping[str, Activation] = {
    "elu": functional.elu,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "softplus": functional.softplus,
    "softsign": functional.softsign,
    "tanh": torch.tanh,
}

_SCALED: Mapping[str, tuple[Callable[[Tensor, float, float], Tensor], float, float]] = {
    "affine": (lambda x, a, b: a * x + b, 1.0, 0.0),
    "hardsigmoid": (lambda x, a, b: torch.clamp(a * x + b, 0, 1), 0.2, 0.5),
    "leakyrelu": (lambda x, a, _: functional.leaky_relu(x, a), 0.01, 0.0),
    "scaledtanh": (lambda x, a, b: a * torch.tanh(b * x), 1.0, 1.0),
    "thresholdedrelu": (lambda x, a, _: torch.where(x > a, x, torch.zeros_like(x)), 1.0, 0.0),
}
"""Activations with parameters and the defaults of alpha and beta."""


def _activations(
    names: Sequence[str], alpha: Sequence[float], beta: Sequence[float]
) -> list[Activation]:
    """The activations with their parameters, which are consumed in the order of use."""
    alphas, betas = list(alpha), list(beta)
    found: list[Activation] = []
    for name in (name.lower() for name in names):
        if name not in _SCALED:
            found.append(_ACTIVATIONS[name])
            continue
        function, a, b = _SCALED[name]
        a = alphas.pop(0) if alphas else a
        b = betas.pop(0) if betas else b
        found.append(partial(_scaled, function, a, b))
    return found


def _scaled(
    function: Callable[[Tensor, float, float], Tensor], alpha: float, beta: float, x: Tensor
) -> Tensor:
    return function(x, alpha, beta)


def _unroll(
    projected: Tensor,
    states: tuple[Tensor, ...],
    cell: Cell,
    lengths: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """All outputs (S, B, H) and the last states; a sequence that has ended keeps its state."""
    steps = range(projected.shape[0])
    outputs: list[Tensor] = [states[0]] * len(steps)
    for step in reversed(steps) if reverse else steps:
        new = cell(projected[step], states)
        if lengths is not None:
            alive = (lengths > step).unsqueeze(1)
            new = tuple(torch.where(alive, n, s) for n, s in zip(new, states, strict=True))
            outputs[step] = torch.where(alive, new[0], torch.zeros_like(new[0]))
        else:
            outputs[step] = new[0]
        states = new
    return torch.stack(outputs), states


def _limited(activation: Activation, clip: float | None) -> Activation:
    return activation if clip is None else lambda x: activation(x.clamp(-clip, clip))


def _rnn_cell(activations: Sequence[Activation], recurrent: Tensor, bias: Tensor) -> Cell:
    (f,) = activations

    def cell(projected: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (f(projected + torch.addmm(bias, states[0], recurrent)),)

    return cell


def _gru_cell(
    activations: Sequence[Activation], recurrent: Tensor, bias: Tensor, linear_before_reset: int
) -> Cell:
    f, g = activations
    hidden = recurrent.shape[0]
    gates, candidate = recurrent[:, : 2 * hidden], recurrent[:, 2 * hidden :]
    gates_bias, candidate_bias = bias[: 2 * hidden], bias[2 * hidden :]

    def cell(projected: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (h,) = states
        zr = f(projected[:, : 2 * hidden] + torch.addmm(gates_bias, h, gates))
        z, r = zr.chunk(2, 1)
        if linear_before_reset:
            inner = r * torch.addmm(candidate_bias, h, candidate)
        else:
            inner = torch.addmm(candidate_bias, r * h, candidate)
        return ((1 - z) * g(projected[:, 2 * hidden :] + inner) + z * h,)

    return cell


def _lstm_cell(
    activations: Sequence[Activation], recurrent: Tensor, bias: Tensor,
    peephole: Tensor | None, input_forget: int,
) -> Cell:  # fmt: skip
    f, g, h = activations

    def cell(projected: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, memory = states
        i, o, forget, c = (projected + torch.addmm(bias, hidden, recurrent)).chunk(4, 1)
        if peephole is not None:
            to_i, to_o, to_forget = peephole.chunk(3)
            i, forget = i + to_i * memory, forget + to_forget * memory
        i = f(i)
        forget = 1 - i if input_forget else f(forget)
        memory = forget * memory + i * g(c)
        if peephole is not None:
            o = o + to_o * memory
        return (f(o) * h(memory), memory)

    return cell


def _run(
    x: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    bias: Tensor | None,
    lengths: Tensor | None,
    states: Sequence[Tensor | None],
    *,
    direction: str,
    layout: int,
    make_cell: Callable[[int, Tensor, Tensor], Cell],
) -> tuple[Tensor, ...]:
    """Both directions of a recurrent layer: Y (S, D, B, H) and the last states (D, B, H)."""
    x = x.transpose(0, 1) if layout else x
    directions, gates, _ = recurrent.shape
    hidden = recurrent.shape[-1]
    if bias is None:
        bias = x.new_zeros(directions, 2 * gates)
    if lengths is not None:
        uneven = bool((lengths != x.shape[0]).any())
        lengths = lengths.to(x.device) if uneven else None
    outputs, finals = [], []
    for index in range(directions):
        initial = tuple(
            x.new_zeros(x.shape[1], hidden) if state is None
            else (state[:, index] if layout else state[index])
            for state in states
        )  # fmt: skip
        projected = functional.linear(x, weight[index], bias[index, :gates])
        cell = make_cell(index, recurrent[index].T, bias[index, gates:])
        reverse = direction == "reverse" or index == 1
        output, final = _unroll(projected, initial, cell, lengths, reverse)
        outputs.append(output)
        finals.append(final)
    y = torch.stack(outputs, 1)
    last = tuple(torch.stack(parts) for parts in zip(*finals, strict=True))
    if layout:
        return y.permute(2, 0, 1, 3), *(state.transpose(0, 1) for state in last)
    return y, *last


def _chosen(
    defaults: tuple[str, ...], given: tuple[str, ...] | None, index: int,
    alpha: tuple[float, ...], beta: tuple[float, ...], clip: float | None,
) -> list[Activation]:  # fmt: skip
    names = given or defaults * (index + 1)
    count = len(defaults)
    found = _activations(names, alpha, beta)[count * index : count * (index + 1)]
    return [_limited(activation, clip) for activation in found]


def rnn(
    x: Tensor, weight: Tensor, recurrent: Tensor, bias: Tensor | None = None,
    sequence_lens: Tensor | None = None, initial_h: Tensor | None = None,
    *,
    activation_alpha: tuple[float, ...] = (), activation_beta: tuple[float, ...] = (),
    activations: tuple[str, ...] | None = None, clip: float | None = None,
    direction: str = "forward", hidden_size: int | None = None, layout: int = 0,
) -> tuple[Tensor, ...]:  # fmt: skip
    """H = f(x W^T + h R^T + b); x: (S, B, I) -> Y (S, D, B, H), Y_h (D, B, H)."""

    def make_cell(index: int, r: Tensor, b: Tensor) -> Cell:
        return _rnn_cell(_chosen(
            ("Tanh",), activations, index, activation_alpha, activation_beta, clip
        ), r, b)  # fmt: skip

    return _run(
        x, weight, recurrent, bias, sequence_lens, (initial_h,),
        direction=direction, layout=layout, make_cell=make_cell,
    )  # fmt: skip


def gru(
    x: Tensor, weight: Tensor, recurrent: Tensor, bias: Tensor | None = None,
    sequence_lens: Tensor | None = None, initial_h: Tensor | None = None,
    *,
    activation_alpha: tuple[float, ...] = (), activation_beta: tuple[float, ...] = (),
    activations: tuple[str, ...] | None = None, clip: float | None = None,
    direction: str = "forward", hidden_size: int | None = None, layout: int = 0,
    linear_before_reset: int = 0,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gated recurrent unit, gates in the order update, reset, candidate."""

    def make_cell(index: int, r: Tensor, b: Tensor) -> Cell:
        return _gru_cell(_chosen(
            ("Sigmoid", "Tanh"), activations, index, activation_alpha, activation_beta, clip
        ), r, b, linear_before_reset)  # fmt: skip

    return _run(
        x, weight, recurrent, bias, sequence_lens, (initial_h,),
        direction=direction, layout=layout, make_cell=make_cell,
    )  # fmt: skip


def lstm(
    x: Tensor, weight: Tensor, recurrent: Tensor, bias: Tensor | None = None,
    sequence_lens: Tensor | None = None, initial_h: Tensor | None = None,
    initial_c: Tensor | None = None, peephole: Tensor | None = None,
    *,
    activation_alpha: tuple[float, ...] = (), activation_beta: tuple[float, ...] = (),
    activations: tuple[str, ...] | None = None, clip: float | None = None,
    direction: str = "forward", hidden_size: int | None = None, input_forget: int = 0,
    layout: int = 0, rounded: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Long short-term memory, gates in the order input, output, forget, candidate.

    `rounded` is no attribute: what becomes of the hidden state before it meets its weights.
    """

    def make_cell(index: int, r: Tensor, b: Tensor) -> Cell:
        chosen = _chosen(
            ("Sigmoid", "Tanh", "Tanh"), activations, index,
            activation_alpha, activation_beta, clip,
        )  # fmt: skip
        cell = _lstm_cell(
            chosen, r, b, None if peephole is None else peephole[index], input_forget
        )
        if rounded is None:
            return cell
        return lambda projected, states: cell(projected, (rounded(states[0]), *states[1:]))

    return _run(
        x, weight, recurrent, bias, sequence_lens, (initial_h, initial_c),
        direction=direction, layout=layout, make_cell=make_cell,
    )  # fmt: skip


def recurrent_macs(inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> int:
    """Positions times the elements of both weight matrices."""
    positions = tensor(inputs[0]).shape[:2].numel()
    return positions * (tensor(inputs[1]).numel() + tensor(inputs[2]).numel())


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


OPERATORS: Mapping[str, Operator] = {
    "GRU": operator(gru, host=(4,), macs=recurrent_macs),
    "LSTM": operator(lstm, host=(4,), macs=recurrent_macs),
    "RNN": operator(rnn, host=(4,), macs=recurrent_macs),
}

MICROSOFT: Mapping[str, Operator] = {
    "DynamicQuantizeLSTM": operator(dynamic_quantize_lstm, host=(4,), macs=recurrent_macs),
}
