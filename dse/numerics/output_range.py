"""Ranges of weights that lower the error of what a layer computes, not of the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from dse.numerics.grids.state import QuantizerState
from dse.numerics.quantize import quantize
from dse.numerics.scales import derived_scales, group_length, range_shares, tensor_scale_of
from hwmodels.formats.quantizer import Format, Quantizer


def output_range(weight: Tensor, hessian: Tensor, quantizer: Quantizer) -> QuantizerState:
    """Scales under which rounding to nearest errs least in the layer's output.

    Every group of elements that share a scale is judged by itself: error times second moment of
    the inputs times error. The widest clipped one of equals is taken.

    Args:
        weight: (outputs, depth), or (groups, outputs, depth) for as many independent products.
        hessian: (depth, depth) second moment of the inputs, with the groups of the weight.
        quantizer: What is applied along the last axis; its statistic and rounding do not matter.

    Returns:
        A state for the rows of the weight, (groups * outputs, depth).

    Source: the clip search of AWQ, arXiv 2306.00978 (`auto_clip` of its code), with the exact
    quadratic form in place of a sample of outputs; of E2M1, Four Over Six, arXiv 2512.02010, by
    the same form.
    """
    depth = weight.shape[-1]
    rows = weight.reshape(-1, depth).float()
    if quantizer.is_fitted:
        return _weighted(rows, hessian.reshape(-1, depth, depth), quantizer)
    products = hessian.reshape(-1, depth, depth).to(rows.dtype)
    plain = quantizer.replaced(statistic="absmax", rounding="nearest_even", timing="static")
    best: QuantizerState | None = None
    least = torch.empty(0)
    for share in _shares(quantizer.format):
        tried = _state(rows, share, plain)
        error = quantize(rows, plain, axes=(1,), state=tried) - rows
        energy = _shared(_energy(error, products, quantizer), quantizer)
        if best is None:
            best, least = tried, energy
            continue
        best = _chosen(energy < least, tried, best)
        least = torch.minimum(energy, least)
    assert best is not None
    return best


def _weighted(rows: Tensor, products: Tensor, quantizer: Quantizer) -> QuantizerState:
    """Fitted scales whose errors count as much as the squares of the inputs that they meet."""
    squares = products.diagonal(dim1=-2, dim2=-1).repeat_interleave(
        len(rows) // len(products), dim=0
    )
    found = derived_scales(rows, quantizer, importance=squares)
    return QuantizerState(scales=found.scales, offsets=found.offsets)


def output_range_macs(outputs: int, depth: int, quantizer: Quantizer) -> int:
    """Multiply-accumulates of `output_range` for one product."""
    return len(_shares(quantizer.format)) * outputs * depth * group_length(quantizer.format, depth)


def _shares(format: Format) -> list[float]:
    """Every other share of statistic `mse`."""
    return [float(share) for share in range_shares(format, step=2)]


def _state(rows: Tensor, share: float, quantizer: Quantizer) -> QuantizerState:
    """The scales of a clipped range."""
    format = quantizer.format
    level = None
    if format.tensor_scale is not None:
        level = tensor_scale_of(rows.abs().amax(), format)
    clipped = rows * share
    if format.granularity == "tensor":
        clipped = clipped.reshape(1, -1)
    found = derived_scales(clipped, quantizer, tensor_scale=1.0 if level is None else level)
    return QuantizerState(scales=found.scales, zero_points=found.zero_points, tensor_scale=level)


def _energy(error: Tensor, products: Tensor, quantizer: Quantizer) -> Tensor:
    """(rows, scales of a row): what each group of elements adds to the squared output."""
    rows, depth = error.shape
    group = group_length(quantizer.format, depth)
    count = -(-depth // group)
    missing = count * group - depth
    padded = torch.nn.functional.pad(error, (0, missing)).reshape(len(products), -1, count, group)
    blocks = torch.stack([
        torch.nn.functional.pad(
            products[:, start : start + group, start : start + group],
            [0, max(start + group - depth, 0)] * 2,
        )
        for start in range(0, depth, group)
    ], dim=1)  # fmt: skip
    spread = padded.transpose(1, 2) @ blocks
    return (spread * padded.transpose(1, 2)).sum(-1).transpose(1, 2).reshape(rows, count)


def _shared(energy: Tensor, quantizer: Quantizer) -> Tensor:
    """Energies summed over the rows that share scales, in the shape of the scales."""
    format = quantizer.format
    if format.granularity == "tensor":
        return energy.sum().reshape(1, 1)
    if format.granularity != "block":
        return energy
    tiles = torch.split(energy, format.block_rows)
    return torch.cat([tile.sum(0, keepdim=True).expand_as(tile) for tile in tiles])


def _chosen(better: Tensor, tried: QuantizerState, best: QuantizerState) -> QuantizerState:
    assert tried.scales is not None
    assert best.scales is not None
    points = None
    if tried.zero_points is not None and best.zero_points is not None:
        points = torch.where(better, tried.zero_points, best.zero_points)
    return QuantizerState(
        scales=torch.where(better, tried.scales, best.scales),
        zero_points=points,
        tensor_scale=tried.tensor_scale,
    )
