"""Normalisations and softmax."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from dse.execute.operators.dtype import BY_CODE
from dse.execute.operators.operator import Operator, Value, operator


def softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """exp(x) over its sum along an axis."""
    return torch.softmax(x, axis)


def log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """The logarithm of softmax."""
    return torch.log_softmax(x, axis)


def hardmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """One at the first largest element of an axis, zero elsewhere."""
    best = (x == x.amax(axis, keepdim=True)).to(torch.uint8).argmax(axis, keepdim=True)
    return torch.zeros_like(x).scatter(axis, best, 1)


def _two_axes(x: Tensor, axis: int) -> Tensor:
    return x.flatten(axis % x.dim()).reshape(x.shape[: axis % x.dim()].numel(), -1)


def softmax_flattened(x: Tensor, *, axis: int = 1) -> Tensor:
    """Softmax before opset 13: over all axes from `axis` on."""
    return torch.softmax(_two_axes(x, axis), 1).reshape(x.shape)


def log_softmax_flattened(x: Tensor, *, axis: int = 1) -> Tensor:
    """LogSoftmax before opset 13: over all axes from `axis` on."""
    return torch.log_softmax(_two_axes(x, axis), 1).reshape(x.shape)


def hardmax_flattened(x: Tensor, *, axis: int = 1) -> Tensor:
    """Hardmax before opset 13: over all axes from `axis` on."""
    return hardmax(_two_axes(x, axis), axis=1).reshape(x.shape)


def _per_channel(x: Tensor, vector: Tensor) -> Tensor:
    return vector.reshape(-1, *(1,) * (x.dim() - 2))


def batch_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """X normalised per channel (axis 1) by the given or, in training, by its own statistics."""
    if not training_mode:
        if mean.dtype == x.dtype == scale.dtype:
            return functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)
        wide = functional.batch_norm(
            x.float(), mean.float(), variance.float(), scale.float(), bias.float(), eps=epsilon
        )
        return wide.to(x.dtype)
    axes = [axis for axis in range(x.dim()) if axis != 1]
    own_mean = x.mean(axes)
    own_variance = x.var(axes, unbiased=False)
    y = (x - _per_channel(x, own_mean)) / (_per_channel(x, own_variance) + epsilon).sqrt()
    y = y * _per_channel(x, scale) + _per_channel(x, bias)
    running_mean = mean * momentum + own_mean * (1 - momentum)
    running_variance = variance * momentum + own_variance * (1 - momentum)
    return y.to(x.dtype), running_mean, running_variance


def batch_normalization_spatial(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
    is_test: int = 1,
) -> Tensor:
    """BatchNormalization before opset 14, in inference."""
    return functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)


def instance_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5
) -> Tensor:
    """X normalised over its spatial axes, then scaled per channel."""
    axes = tuple(range(2, x.dim()))
    centred = x - x.mean(axes, keepdim=True)
    deviation = (centred.square().mean(axes, keepdim=True) + epsilon).sqrt()
    return centred / deviation * _per_channel(x, scale) + _per_channel(x, bias)


def group_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    epsilon: float = 1e-5,
    num_groups: int,
    stash_type: int = 1,
) -> Tensor:
    """X normalised over groups of channels, then scaled per channel."""
    stash = BY_CODE[stash_type].carrier
    y = functional.group_norm(x.to(stash), num_groups, scale.to(stash), bias.to(stash), epsilon)
    return y.to(x.dtype)


def group_normalization_18(
    x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5, num_groups: int
) -> Tensor:
    """GroupNormalization of opset 18, which scales per group."""
    repeats = x.shape[1] // num_groups
    scale, bias = scale.repeat_interleave(repeats), bias.repeat_interleave(repeats)
    return functional.group_norm(x, num_groups, scale, bias, epsilon)


def layer_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    output_count: int = 1,
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """X normalised over the axes from `axis` on; also its mean and inverse deviation."""
    axes = tuple(range(axis % x.dim(), x.dim()))
    shape = x.shape[axes[0] :]
    if output_count == 1 and scale.shape == shape and x.dtype == torch.float32:
        return functional.layer_norm(x, shape, scale, bias, epsilon)
    wide = x.to(BY_CODE[stash_type].carrier)
    mean = wide.mean(axes, keepdim=True)
    inverse = (wide - mean).square().mean(axes, keepdim=True).add(epsilon).rsqrt()
    y = ((wide - mean) * inverse).to(x.dtype) * scale
    y = y if bias is None else y + bias
    return y if output_count == 1 else (y, mean, inverse)


def rms_normalization(
    x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    """X over the root mean square of the axes from `axis` on, scaled."""
    axes = tuple(range(axis % x.dim(), x.dim()))
    shape = x.shape[axes[0] :]
    if scale.shape == shape and x.dtype == scale.dtype == torch.float32:
        return functional.rms_norm(x, shape, scale, epsilon)
    wide = x.to(BY_CODE[stash_type].carrier)
    inverse = wide.square().mean(axes, keepdim=True).add(epsilon).rsqrt()
    return (wide * inverse).to(x.dtype) * scale


def simplified_layer_normalization(
    x: Tensor,
    scale: Tensor,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    output_count: int = 1,
) -> Tensor | tuple[Tensor, Tensor]:
    """RMS normalisation; also the inverse root mean square."""
    y = rms_normalization(x, scale, axis=axis, epsilon=epsilon, stash_type=stash_type)
    if output_count == 1:
        return y
    axes = tuple(range(axis % x.dim(), x.dim()))
    return y, x.float().square().mean(axes, keepdim=True).add(epsilon).rsqrt()


def _skipped(x: Tensor, skip: Tensor, bias: Tensor | None) -> Tensor:
    total = x + skip
    return total if bias is None else total + bias


def skip_layer_normalization(
    x: Tensor,
    skip: Tensor,
    gamma: Tensor,
    beta: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
    output_count: int = 1,
) -> Tensor | tuple[Value, ...]:
    """The layer norm of x + skip + bias; its fourth output is that sum."""
    total = _skipped(x, skip, bias)
    y = functional.layer_norm(total, total.shape[-1:], gamma, beta, epsilon)
    return y if output_count == 1 else (y, None, None, total)


def skip_simplified_layer_normalization(
    x: Tensor,
    skip: Tensor,
    gamma: Tensor,
    bias: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
    output_count: int = 1,
) -> Tensor | tuple[Value, ...]:
    """The RMS norm of x + skip + bias; its fourth output is that sum."""
    total = _skipped(x, skip, bias)
    y = rms_normalization(total, gamma, epsilon=epsilon)
    return y if output_count == 1 else (y, None, None, total)


def lp_normalization(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    """X over its p-norm along an axis; a zero vector stays zero."""
    norm = x.norm(p, dim=axis, keepdim=True)
    return x / torch.where(norm == 0, torch.ones_like(norm), norm)


def local_response_normalization(
    x: Tensor, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int
) -> Tensor:
    """X over a power of the square sum of `size` neighbouring channels."""
    before = (size - 1) // 2
    squares = x.square().movedim(1, -1)
    total = functional.pad(squares, (before, size - 1 - before)).unfold(-1, size, 1).sum(-1)
    return x / (bias + alpha / size * total.movedim(-1, 1)) ** beta


def mean_variance_normalization(x: Tensor, *, axes: tuple[int, ...] = (0, 2, 3)) -> Tensor:
    """X less its mean, over its deviation, along the axes."""
    mean = x.mean(axes, keepdim=True)
    deviation = (x.square().mean(axes, keepdim=True) - mean.square()).sqrt()
    return (x - mean) / (deviation + 1e-9)


OPERATORS: Mapping[str, Operator] = {
    "BatchNormalization": Operator(
        versions={1: batch_normalization_spatial, 14: batch_normalization}
    ),
    "GroupNormalization": Operator(versions={18: group_normalization_18, 21: group_normalization}),
    "Hardmax": Operator(versions={1: hardmax_flattened, 13: hardmax}),
    "InstanceNormalization": operator(instance_normalization),
    "LRN": operator(local_response_normalization),
    "LayerNormalization": operator(layer_normalization),
    "LogSoftmax": Operator(versions={1: log_softmax_flattened, 13: log_softmax}),
    "LpNormalization": operator(lp_normalization),
    "MeanVarianceNormalization": operator(mean_variance_normalization),
    "RMSNormalization": operator(rms_normalization),
    # onnxruntime writes its own fusion of RMS normalisation into the ONNX domain.
    "SimplifiedLayerNormalization": operator(simplified_layer_normalization),
    "Softmax": Operator(versions={1: softmax_flattened, 13: softmax}),
}

MICROSOFT: Mapping[str, Operator] = {
    "SimplifiedLayerNormalization": operator(simplified_layer_normalization),
    "SkipLayerNormalization": operator(skip_layer_normalization),
    "SkipSimplifiedLayerNormalization": operator(skip_simplified_layer_normalization),
}
