"""Four Over Six: the largest value of each block mapped to 6 or to 4, whichever errs less."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from dse.numerics.grids.errors import QuantizeError
from dse.numerics.grids.state import QuantizerState
from dse.numerics.quantize import quantize
from dse.numerics.scales import E2M1_TARGETS, group_length, largest_finite, tensor_scale_of
from hwmodels.formats.quantizer import Format, Quantizer

LARGEST_SCALE = 256.0
"""The code that the largest block's scale gets: E4M3 has 3/2 of it, too, which the mapping to 4
takes (Four Over Six, arXiv 2512.02010, section 3.2)."""


def four_over_six(rows: Tensor, quantizer: Quantizer, *, seed: int = 0) -> Tensor:
    """The values of `rows` (slices, depth), each block under the better one of two scales.

    E2M1 has no value between 4 and 6, so that under a largest value of 6 whatever lies near 5 errs
    most. The better scale is that of the smaller squared error; of equals, that of 6. (A search of
    ranges has the 4 among what it tries: `dse.numerics.scales.range_shares`.)

    Raises:
        QuantizeError: A format that is not E2M1 in blocks whose scales have a mantissa.

    Source: Cook et al., Four Over Six, arXiv 2512.02010.
    """
    format = quantizer.format
    scale = format.scale
    if (
        format.element.name != "e2m1"
        or format.granularity not in ("group", "block")
        or scale is None
        or scale.encoding.kind == "exponent"
    ):
        raise QuantizeError(
            f"{quantizer.name}: four-over-six chooses between two scales of a block of e2m1, 3/2 "
            "apart; expected groups or blocks of e2m1 whose scales have a mantissa (nvfp4)"
        )
    state = QuantizerState(tensor_scale=level_below(rows, format))
    six, four = (
        quantize(
            rows,
            quantizer.replaced(format=replace(format, scale=replace(scale, target=target))),
            axes=(1,),
            state=state,
            seed=seed,
        )
        for target in E2M1_TARGETS
    )
    return torch.where(_errors(four, rows, format) < _errors(six, rows, format), four, six)


def level_below(rows: Tensor, format: Format) -> float | None:
    """The tensor scale under which the largest block's scale is `LARGEST_SCALE`, not the last."""
    if format.tensor_scale is None or format.scale is None:
        return None
    room = format.scale.encoding.max / LARGEST_SCALE
    return tensor_scale_of(largest_finite(rows) * room, format)


def _errors(values: Tensor, rows: Tensor, format: Format) -> Tensor:
    """Squared error of each element's block, (slices, depth)."""
    slices, depth = rows.shape
    across = group_length(format, depth)
    down = format.block_rows if format.granularity == "block" else 1
    short = (0, -depth % across, 0, -slices % down)
    squares = functional.pad((values - rows).square(), short)
    tiles = squares.reshape(squares.shape[0] // down, down, squares.shape[1] // across, across)
    sums = tiles.sum((1, 3), keepdim=True).expand_as(tiles)
    return sums.reshape(squares.shape)[:slices, :depth]
