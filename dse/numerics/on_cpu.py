"""The compiled path of `quantize`: CPU tensors, rows shared by threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dse.numerics import columns, compiled, in_place, rows
from dse.numerics.drawing import draw_rows
from dse.numerics.grid import Grid, Method, Thresholds, grid_of, thresholds_of
from dse.numerics.layout import Layout
from dse.numerics.on_device import scales_of
from dse.numerics.scales import GroupScales, group_length, tensor_scale_of
from dse.numerics.scaling import Rule, Scaling, kernels_derive, scaling_of
from dse.numerics.state import QuantizerState
from hwmodels.formats import Quantizer

ELEMENTS_PER_THREAD = 1 << 18
"""Below this a thread costs more than it saves."""
LONG_ROW = 1024
"""From here on a row's groups are faster one by one than from a buffer of the row."""
PARTS_PER_THREAD = 4
"""So that a thread that is held up leaves work to the others."""

Result = TypeVar("Result")
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rounding:
    """What kernels take beside values and scales."""

    grid: Grid
    table: Thresholds
    scaling: Scaling
    seed: np.uint32

    def given(self, found: GroupScales) -> tuple[object, ...]:
        """Arguments of a kernel from the grid to the zero points."""
        scales, points = found.scales.numpy(), found.points.numpy()
        return (self.grid, self.table, self.scaling, scales, points)

    @property
    def draws(self) -> bool:
        """Whether the rounding is stochastic."""
        return bool(self.grid.method >= Method.STOCHASTIC)


def quantize_on_cpu(
    x: Tensor,
    quantizer: Quantizer,
    layout: Layout,
    state: QuantizerState,
    *,
    out: Tensor | None,
    seed: int,
) -> Tensor:
    """See `dse.numerics.quantize`; `x` has at least one element."""
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
    level = _level(x, quantizer, state)
    per_row = format.granularity != "tensor"
    group = group_length(format, layout.depth) if per_row else x.size
    rounding = _Rounding(
        grid=grid_of(format.element, quantizer.rounding, quantizer.random_bits),
        table=thresholds_of(format.element, quantizer.rounding),
        scaling=scaling_of(format, group=group, tensor_scale=level),
        seed=np.uint32(seed & 0xFFFFFFFF),
    )
    if rounding.grid.method == Method.IDENTITY and format.scale is None:
        np.copyto(out, x)
        return
    given = replace(rounding, scaling=rounding.scaling._replace(rule=np.int64(Rule.GIVEN)))
    if not per_row:
        _by_span(x, out, given, _tensor_scale(source, quantizer, rounding.scaling, state))
    elif state.scales is None and kernels_derive(quantizer):
        long = layout.inner == 1 and layout.depth >= LONG_ROW
        if rounding.grid.method == Method.MAGIC and not long:
            _with_derived_scales(x, out, layout, rounding)
        else:
            _by_rows(source, target, layout, rounding, GroupScales(scales=torch.ones(1, 1)))
    else:
        found = scales_of(layout.row_matrix(source), quantizer, state, level)
        _by_rows(source, target, layout, given, found)


def _tensor_scale(
    source: Tensor, quantizer: Quantizer, scaling: Scaling, state: QuantizerState
) -> GroupScales:
    """The one scale of a tensor; 1 for a format without."""
    if quantizer.format.scale is None:
        return GroupScales(scales=torch.ones(1, 1))
    if state.scales is None and kernels_derive(quantizer):
        scale = compiled.scale_of(np.float32(_absmax(source.numpy())), scaling)
        return GroupScales(scales=torch.full((1, 1), float(scale)))
    return scales_of(source.reshape(1, -1), quantizer, state, 1.0)


def _level(x: Floats, quantizer: Quantizer, state: QuantizerState) -> float:
    if quantizer.format.tensor_scale is None:
        return 1.0
    if state.tensor_scale is not None:
        return state.tensor_scale
    return tensor_scale_of(_absmax(x), quantizer.format)


def _absmax(x: Floats) -> float:
    parts = _shared(x.size, x.size, lambda first, last: compiled.absmax(x, first, last))
    return float(np.max(parts))


def _by_span(x: Floats, out: Floats, rounding: _Rounding, found: GroupScales) -> None:
    """One scale for all: threads share the elements."""
    given = rounding.given(found)

    def run(first: int, last: int) -> None:
        part = slice(first, last)
        row = (x[part], out[part], 0, 1, last - first, *given)
        if rounding.draws:
            draw_rows(*row, 1, rounding.seed, first)
        elif _same(x, out):
            _overwrite(x[part], given)
        else:
            compiled.quantize_rows(*row)

    _shared(x.size, x.size, run)


def _overwrite(x: Floats, given: tuple[object, ...]) -> None:
    """Values that share one given scale, in place."""
    whole = x.size // in_place.SPAN
    in_place.overwrite_rows(x, 0, whole, in_place.SPAN, *given)
    rest = x[whole * in_place.SPAN :]
    in_place.overwrite_rows(rest, 0, 1, rest.size, *given)


def _same(x: Floats, out: Floats) -> bool:
    """Whether results go where the values are."""
    return bool(x.ctypes.data == out.ctypes.data)


def _with_derived_scales(x: Floats, out: Floats, layout: Layout, rounding: _Rounding) -> None:
    """Threads share rows, or tiles of columns; scales come from the values."""
    grid, scaling = rounding.grid, rounding.scaling
    depth, inner = layout.depth, layout.inner
    if inner == 1:
        _shared(
            layout.outer,
            x.size,
            lambda first, last: rows.quantize_derived_rows(
                x, out, first, last, depth, grid, scaling
            ),
        )
        return
    width = columns.columns_of(min(int(scaling.group), depth), inner)
    _shared(
        layout.outer * -(-inner // width),
        x.size,
        lambda first, last: columns.quantize_columns(
            x, out, first, last, depth, inner, width, grid, scaling
        ),
    )


def _by_rows(
    source: Tensor, target: Tensor, layout: Layout, rounding: _Rounding, found: GroupScales
) -> None:
    """Threads share the rows; columns are gathered into rows and scattered back."""
    matrix = layout.row_matrix(source).contiguous()
    result = target if layout.inner == 1 else torch.empty_like(matrix)
    x, out = matrix.reshape(-1).numpy(), result.reshape(-1).numpy()
    given = rounding.given(found)

    def run(first: int, last: int) -> None:
        if rounding.draws:
            draw_rows(x, out, first, last, layout.depth, *given, layout.inner, rounding.seed, 0)
        elif _same(x, out):
            in_place.overwrite_rows(x, first, last, layout.depth, *given)
        else:
            compiled.quantize_rows(x, out, first, last, layout.depth, *given)

    _shared(layout.rows, x.size, run)
    if layout.inner > 1:
        target.reshape(layout.outer, layout.depth, layout.inner).copy_(
            result.reshape(layout.outer, layout.inner, layout.depth).transpose(1, 2)
        )


def _shared(items: int, elements: int, run: Callable[[int, int], Result]) -> list[Result]:
    """Results of `run(first, last)` over parts of `range(items)`, in threads if it is worth it."""
    threads = min(torch.get_num_threads(), max(elements // ELEMENTS_PER_THREAD, 1), items)
    if threads == 1:
        return [run(0, items)]
    parts = min(threads * PARTS_PER_THREAD, items)
    borders = [items * part // parts for part in range(parts + 1)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, borders[:-1], borders[1:]))
