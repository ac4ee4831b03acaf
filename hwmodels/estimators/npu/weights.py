"""The stream of weights: bytes that are stored, and read again.

Weights are coded without loss in the order in which the array takes them, filled up with zeros
to whole steps and micro-blocks; how well they code is an assumption of the device's file.
"""

from __future__ import annotations

from hwmodels.devices.npu import Npu
from hwmodels.estimators.npu.blocks import Tiling
from hwmodels.estimators.npu.operation import Operation


def weight_bytes(operation: Operation, tiling: Tiling, npu: Npu) -> float:
    """Bytes of an operation's coded weights; 0 without weights."""
    if not operation.weights or operation.weights_are_activations:
        return 0.0
    stream = npu.weights
    zeros = _padded(operation, tiling, npu) - operation.weights
    code = operation.weights * stream.share * operation.weight_bits / 8
    return _aligned(code + zeros * stream.padding, stream.align)


def scale_bytes(operation: Operation, tiling: Tiling, npu: Npu) -> float:
    """Bytes of the scales and biases of an operation's output channels."""
    if not operation.weights:
        return 0.0
    channels = _up(operation.target[2], tiling.micro[2])
    return _aligned(channels * npu.weights.channel_bytes, npu.weights.align)


def _padded(operation: Operation, tiling: Tiling, npu: Npu) -> int:
    """Weights with the zeros that fill up steps."""
    steps = tiling.steps
    taps = _up(operation.taps, steps.chosen_by_taps or steps.taps)
    outputs = _up(operation.target[2], tiling.micro[2])
    if operation.kind == "depthwise":
        return taps * outputs
    return taps * _up(operation.source[2], steps.chosen_by_inputs or steps.inputs) * outputs


def _aligned(count: float, granule: int) -> float:
    return float(-(-count // granule) * granule)


def _up(value: int, granule: int) -> int:
    return -(-value // granule) * granule
