"""The compiled path of `quantize`: CPU tensors, rows shared by threads."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dse.numerics.grids.grid import Grid, Method, Thresholds, grid_of, thresholds_of
from dse.numerics.grids.layout import Layout
from dse.numerics.grids.scaling import Rule, Scaling, kernels_derive, scaling_of
from dse.numerics.grids.state import QuantizerState
from dse.numerics.grids.unscaled import is_plain
from dse.numerics.numba import columns, groups
from dse.numerics.numba import factors as compiled
from dse.numerics.numba.offsets import quantize_with_offsets
from dse.numerics.numba.rows import APART, OVER
from dse.numerics.numba.stochastic import draw_general, draw_plain, draw_table
from dse.numerics.numba.threads import shared
from dse.numerics.on_device import scales_of
from dse.numerics.scales import GroupScales, group_length, largest_finite, tensor_scale_of
from hwmodels.formats.quantizer import Quantizer

Floats = npt.NDArray[np.float32]

_GIVEN = np.int64(Rule.GIVEN)
_ONE, _ZERO = np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rounding:
    """Everything that kernels take beside values and scales, for groups of one length."""

    method: Method
    grid: Grid
    table: Thresholds
    scaling: Scaling
    """Of a tensor scale of 1."""
    derives: bool
    """Whether kernels derive scales by themselves."""
    draw: Callable[..., None] | None
    """The kernel of a stochastic rounding."""


@lru_cache(maxsize=2048)
def _rounding(quantizer: Quantizer, group: int) -> _Rounding:
    format = quantizer.format
    grid = grid_of(format.element, quantizer.rounding, quantizer.random_bits)
    return _Rounding(
        method=Method(int(grid.method)),
        grid=grid,
        table=thresholds_of(format.element, quantizer.rounding),
        scaling=scaling_of(format, group=group),
        derives=kernels_derive(quantizer),
        draw=_drawing(quantizer, grid),
    )


def _drawing(quantizer: Quantizer, grid: Grid) -> Callable[..., None] | None:
    if grid.method == Method.TABLE_STOCHASTIC:
        kernel = draw_table
    elif grid.method != Method.STOCHASTIC:
        return None
    elif grid.random_bits or quantizer.format.zero_point or not is_plain(grid):
        kernel = draw_general
    else:
        kernel = draw_plain
    return cast("Callable[..., None]", kernel)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Vector:
    """Values in a layout's order, where their results go, and how they are rounded."""

    x: Floats
    out: Floats
    over: bool
    """Whether results go where the values are."""
    how: _Rounding
    scaling: Scaling
    seed: np.uint32


def compiles(quantizer: Quantizer) -> bool:
    """Whether there are kernels of a quantizer.

    Kernels that draw know no offsets, and those of one scale for a tensor neither.
    """
    format = quantizer.format
    plain = format.granularity != "tensor" and not quantizer.is_random
    return format.offset is None or plain


def quantize_on_cpu(
    x: Tensor,
    quantizer: Quantizer,
    layout: Layout,
    state: QuantizerState,
    *,
    out: Tensor | None,
    seed: int,
) -> Tensor:
    """See `dse.numerics.quantize`; `x` has at least one element, and the quantizer `compiles`."""
    source = layout.flat(x.to(torch.float32))
    direct = out is not None and out.dtype == torch.float32 and layout.is_view(out)
    target = layout.flat(out) if out is not None and direct else torch.empty_like(source)
    _fill(source, target, quantizer, layout, state=state, seed=seed)
    if out is None:
        return layout.restored(target).to(x.dtype)
    return out if direct else out.copy_(layout.restored(target))


def _fill(
    source: Tensor,
    target: Tensor,
    quantizer: Quantizer,
    layout: Layout,
    *,
    state: QuantizerState,
    seed: int,
) -> None:
    """Writes the quantized values of a vector in the layout's order."""
    format = quantizer.format
    x, out = source.numpy(), target.numpy()
    per_row = format.granularity != "tensor"
    group = group_length(format, layout.depth) if per_row else x.size
    how = _rounding(quantizer, group)
    if how.method == Method.IDENTITY and format.scale is None:
        np.copyto(out, x)
        return
    level = _level(x, quantizer, state)
    vector = _Vector(
        x=x,
        out=out,
        over=source.data_ptr() == target.data_ptr(),
        how=how,
        scaling=how.scaling
        if level == 1
        else how.scaling._replace(tensor_scale=np.float32(level)),
        seed=np.uint32(seed & 0xFFFFFFFF),
    )
    derived = how.derives and state.scales is None
    if not per_row:
        _span(vector, *_tensor_scale(source, quantizer, vector, derived=derived, state=state))
    elif not derived:
        rows = layout.row_matrix(source)
        _rows(rows, target, layout, vector, scales_of(rows, quantizer, state, level))
    elif how.method == Method.MAGIC and layout.inner > 1:
        _columns(vector, layout)
    elif how.method == Method.MAGIC and layout.depth % group == 0:
        _groups(vector)
    else:
        _rows(layout.row_matrix(source), target, layout, vector, None)


def _level(x: Floats, quantizer: Quantizer, state: QuantizerState) -> float:
    """The scale of the second level; 1 where there is none."""
    if quantizer.format.tensor_scale is None:
        return 1.0
    if state.tensor_scale is not None:
        return state.tensor_scale
    return tensor_scale_of(_largest(x), quantizer.format)


def _tensor_scale(
    source: Tensor, quantizer: Quantizer, vector: _Vector, *, derived: bool, state: QuantizerState
) -> tuple[Floats, Floats]:
    """The one scale and zero point of a tensor; 1 for a format without."""
    if quantizer.format.scale is None:
        return _ONE, _ZERO
    if derived:
        scale = compiled.scale_of(np.float32(_largest(vector.x)), vector.scaling)
        return np.full((1, 1), scale, np.float32), _ZERO
    return _arrays(scales_of(source.reshape(1, -1), quantizer, state, 1.0))


def _arrays(found: GroupScales) -> tuple[Floats, Floats]:
    return found.scales.numpy(), found.points.numpy()


def _largest(x: Floats) -> float:
    """The largest magnitude of the values that are numbers."""
    largest = _absmax(x)
    return largest if math.isfinite(largest) else float(largest_finite(torch.from_numpy(x)))


def _absmax(x: Floats) -> float:
    parts = shared(x.size, x.size, lambda first, last: compiled.absmax(x, first, last))
    return float(np.max(parts)) if len(parts) > 1 else float(parts[0])


def _span(vector: _Vector, scales: Floats, zero_points: Floats) -> None:
    """One scale for all: threads share the elements."""
    scaling = vector.scaling._replace(rule=_GIVEN)

    def run(first: int, last: int) -> None:
        part = replace(vector, x=vector.x[first:last], out=vector.out[first:last], scaling=scaling)
        _run(part, (0, 1, last - first), scales, zero_points, inner=1, offset=first)

    shared(vector.x.size, vector.x.size, run)


def _groups(vector: _Vector) -> None:
    """Threads share groups, whose scales come from the values."""
    x, out, grid, scaling = vector.x, vector.out, vector.how.grid, vector.scaling

    def run(first: int, last: int) -> None:
        if vector.over:
            groups.overwrite_groups(x, first, last, grid, scaling)
        else:
            groups.quantize_groups(x, out, first, last, grid, scaling)

    shared(x.size // int(scaling.group), x.size, run)


def _columns(vector: _Vector, layout: Layout) -> None:
    """Threads share tiles of columns, whose scales come from the values."""
    depth, inner = layout.depth, layout.inner
    width = columns.columns_of(min(int(vector.scaling.group), depth), inner)

    def run(first: int, last: int) -> None:
        columns.quantize_columns(
            vector.x, vector.out, first, last, depth, inner, width, vector.how.grid, vector.scaling
        )

    shared(layout.outer * -(-inner // width), vector.x.size, run)


def _rows(
    rows: Tensor, target: Tensor, layout: Layout, vector: _Vector, found: GroupScales | None
) -> None:
    """Threads share rows, which columns were gathered into and are scattered back from.

    Scales are given, or come from the values.
    """
    if layout.inner > 1:
        matrix = rows.contiguous().reshape(-1)
        result = torch.empty_like(matrix)
        vector = replace(vector, x=matrix.numpy(), out=result.numpy(), over=False)
    scales, points = (_ONE, _ZERO) if found is None else _arrays(found)
    if found is not None:
        vector = replace(vector, scaling=vector.scaling._replace(rule=_GIVEN))
    offsets = None if found is None or found.offsets is None else found.offsets.numpy()

    def run(first: int, last: int) -> None:
        place = (first, last, layout.depth)
        if offsets is None:
            _run(vector, place, scales, points, inner=layout.inner, offset=0)
        else:
            how, scaling = vector.how, vector.scaling
            quantize_with_offsets(
                vector.x, vector.out, *place, how.grid, how.table, scaling, scales, offsets
            )

    shared(layout.rows, vector.x.size, run)
    if layout.inner > 1:
        target.reshape(layout.outer, layout.depth, layout.inner).copy_(
            result.reshape(layout.outer, layout.inner, layout.depth).transpose(1, 2)
        )


def _run(
    vector: _Vector,
    place: tuple[int, int, int],
    scales: Floats,
    zero_points: Floats,
    *,
    inner: int,
    offset: int,
) -> None:
    """The kernel of the rounding method, on rows first to last of a depth."""
    how = vector.how
    given = (*place, how.grid, how.table, vector.scaling, scales, zero_points)
    if how.draw is not None:
        how.draw(vector.x, vector.out, *given, inner, vector.seed, offset)
    elif vector.over:
        OVER[how.method](vector.x, *given)
    else:
        APART[how.method](vector.x, vector.out, *given)
