"""EDEN: rounding to nearest whose bias is taken out by what scales are multiplied with."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dse.numerics.four_over_six import level_below
from dse.numerics.grids.errors import QuantizeError
from dse.numerics.grids.state import QuantizerState
from dse.numerics.on_device import spread
from dse.numerics.quantize import quantize
from dse.numerics.scales import derived_scales, group_length
from hwmodels.formats.quantizer import Format, Quantizer

GROUP = 128
"""Elements that share a correction, as many as are rotated together (Quartet II's code)."""


def eden(rows: Tensor, quantizer: Quantizer, *, group: int = GROUP, seed: int = 0) -> Tensor:
    """The values of `rows` (slices, depth), unbiased under a random rotation of each group.

    Codes are those of rounding to nearest; the scales of a group are multiplied by
    <x, x> / <x, Q(x)> and rounded stochastically onto their grid. So codes keep the small error of
    rounding to nearest, and only scales, one in a block, carry noise. Values are unbiased over the
    rotations, not for one tensor: callers rotate.

    Args:
        rows: (slices, depth) float32.
        quantizer: Groups with scales that have a mantissa (`nvfp4`); its rounding does not matter.
        group: Elements that share a correction, a multiple of the format's group.
        seed: Of the rounding of scales.

    Raises:
        QuantizeError: A format without such scales, or groups that do not fit.

    Source: MS-EDEN, Quartet II, arXiv 2601.22813, section 3; EDEN, arXiv 2108.08842.
    """
    format = quantizer.format
    scale = format.scale
    if scale is None or format.granularity != "group" or scale.encoding.kind == "exponent":
        raise QuantizeError(
            f"{quantizer.name}: eden puts its correction into the scales of groups; expected "
            "groups whose scales have a mantissa (nvfp4)"
        )
    if group % format.group:
        raise QuantizeError(
            f"{quantizer.name}: eden corrects whole groups; expected a multiple of "
            f"{format.group}, got {group}"
        )
    plain = quantizer.replaced(rounding="nearest_even", transforms=())
    level = level_below(rows, format)
    scales = derived_scales(rows, plain, tensor_scale=1.0 if level is None else level).scales
    nearest = quantize(
        rows, plain, axes=(1,), state=QuantizerState(scales=scales, tensor_scale=level)
    )
    length = group_length(format, rows.shape[1])
    factors = _corrections(rows, nearest, group)[:, ::length]
    wanted = scales * factors[:, : scales.shape[1]]
    grid = Format(name=scale.encoding.name, element=scale.encoding)
    drawn = quantize(wanted, Quantizer(format=grid, rounding="stochastic"), axes=(1,), seed=seed)
    ratio = torch.where(scales > 0, drawn / scales, 0.0)
    return nearest * spread(ratio, length, rows.shape[1])


def _corrections(rows: Tensor, values: Tensor, group: int) -> Tensor:
    """<x, x> / <x, Q(x)> of each element's group, (slices, depth); 1 where all codes are zero."""
    depth = rows.shape[1]
    x, q = (functional.pad(one, (0, -depth % group)) for one in (rows, values))
    tiles = x.reshape(x.shape[0], -1, group)
    along = (tiles * q.reshape(tiles.shape)).sum(-1, keepdim=True)
    ratio = torch.where(along > 0, tiles.square().sum(-1, keepdim=True) / along, 1.0)
    return ratio.expand_as(tiles).reshape(x.shape)[:, :depth]
