"""The stream of weights: bytes that are stored, and read again.

Weights are coded without loss in the order in which the array takes them, filled up with zeros
to whole steps and micro-blocks of all cores; how well they code is an assumption of the device's
file: so many bytes for a byte, or the entropy of normal weights whose largest one of a channel
takes the most that b bits can say,

    bits of a weight = log2((2**(b - 1) - 1) / z sqrt(2 pi e)) + u / sqrt(n)
    bits of a place  = H(share of zeros that fill up)

with z the median of the largest of n weights of a channel and H the binary entropy. One code
serves all channels, whose largest weights differ the more the fewer they are: u is what Vela's
coder took beyond the entropy on layers of random shapes (`studies/npu_vela/coding.py`).
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

from hwmodels.devices.npu import Npu
from hwmodels.estimators.npu.blocks import Tiling
from hwmodels.estimators.npu.operation import Operation
from hwmodels.granules import up

UNEVEN = 4.2
"""Bits of a weight times the root of their number by which one code for all channels is longer."""

OF_CHANNEL = 32
"""Bits of a scale a channel, which `channel_bytes` count; those of blocks are stored beside it."""


def weight_bytes(operation: Operation, tiling: Tiling, npu: Npu) -> float:
    """Bytes of an operation's coded weights; 0 without weights."""
    if not operation.weights or operation.weights_are_activations:
        return 0.0
    stream, zeros = npu.weights, _padded(operation, tiling, npu) - operation.weights
    if stream.share is not None and stream.padding is not None:
        plain = operation.weights * operation.weight_bits / 8
        return _aligned(plain * stream.share + zeros * stream.padding, stream.align)
    bits = operation.weight_bits if operation.element_bits is None else operation.element_bits
    each = operation.weights // operation.target[2]
    scales = max(operation.weight_bits - bits - OF_CHANNEL / each, 0.0)
    coded = operation.weights * (coded_bits(each, bits) + scales) / 8
    places = operation.weights + zeros
    return _aligned(coded + places * _binary_entropy(zeros / places) / 8, stream.align)


@lru_cache(maxsize=4096)
def coded_bits(count: int, bits: float) -> float:
    """Bits of one of so many normal weights, scaled so that the largest takes all of `bits`."""
    largest = NormalDist().inv_cdf((1 + 0.5 ** (1 / count)) / 2)
    deviation = (2 ** (bits - 1) - 1) / largest
    if deviation <= 0:
        return bits
    entropy = max(math.log2(deviation * math.sqrt(2 * math.pi * math.e)), 0.0)
    return min(entropy + UNEVEN / math.sqrt(count), bits)


def _binary_entropy(share: float) -> float:
    """Bits of whether a place is one of a share."""
    if share in (0, 1):
        return 0.0
    return -share * math.log2(share) - (1 - share) * math.log2(1 - share)


def scale_bytes(operation: Operation, tiling: Tiling, npu: Npu) -> float:
    """Bytes of the scales and biases of an operation's output channels."""
    if not operation.weights:
        return 0.0
    channels = up(operation.target[2], tiling.micro[2])
    return _aligned(channels * npu.weights.channel_bytes, npu.weights.align)


def _padded(operation: Operation, tiling: Tiling, npu: Npu) -> int:
    """Weights with the zeros that fill up steps."""
    steps = tiling.steps
    taps = up(operation.taps, steps.chosen_by_taps or steps.taps)
    outputs = up(operation.target[2], tiling.micro[2] * npu.blocks.cores)
    if operation.kind == "depthwise":
        return taps * outputs
    return taps * up(operation.source[2], steps.chosen_by_inputs or steps.inputs) * outputs


def _aligned(count: float, granule: int) -> float:
    return float(-(-count // granule) * granule)
