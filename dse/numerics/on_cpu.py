"""The compiled path of `quantize`: CPU tensors, rows shared by threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dse.numerics import compiled
from dse.numerics.grid import Grid, Method, grid_of
from dse.numerics.layout import Layout
from dse.numerics.on_device import scales_of
from dse.numerics.scales import GroupScales, group_length, tensor_scale_of
from dse.numerics.scaling import Rule, Scaling, scaling_of
from dse.numerics.state import QuantizerState
from hwmodels.formats import Quantizer

ELEMENTS_PER_THREAD = 1 << 18
"""Below this a thread costs more than it saves."""

Result = TypeVar("Result")
Floats = npt.NDArray[np.float32]
_NO_POINTS = np.zeros((1, 0), np.float32)


def quantize_on_cpu(
    x: Tensor,
    quantizer: Quantizer,
    layout: Layout,
    state: QuantizerState,
    out: Tensor | None,
    seed: int,
) -> Tensor:
    """See `dse.numerics.quantize`; `x` has at least one element."""
    source = layout.flat(x.to(torch.float32))
    direct = out is not None and out.dtype == torch.float32 and layout.is_view(out)
    target = layout.flat(out) if out is not None and direct else torch.empty_like(source)
    _fill(source, target, quantizer, layout, state, seed)
    if out is None:
        return layout.restored(target).to(x.dtype)
    return out if direct else out.copy_(layout.restored(target))


def _fill(
    source: Tensor,
    target: Tensor,
    quantizer: Quantizer,
    layout: Layout,
    state: QuantizerState,
    seed: int,
) -> None:
    """Writes the quantized values of a vector in the layout's order."""
    format = quantizer.format
    grid = grid_of(format.element, quantizer.rounding, quantizer.random_bits)
    x, out = source.numpy(), target.numpy()
    bits = np.uint32(seed & 0xFFFFFFFF)
    if format.scale is None:
        if grid.method == Method.IDENTITY:
            np.copyto(out, x)
        else:
            _uniform(x, out, np.float32(1), grid, bits)
        return
    if format.granularity == "tensor":
        scaling = scaling_of(format, group=x.size)
        found = _tensor_scales(source, x, quantizer, scaling, state)
        points = 0.0 if found.zero_points is None else found.zero_points.item()
        _uniform(x, out, np.float32(found.scales.item()), grid, bits, np.float32(points))
        return
    level = _level(x, quantizer, state)
    scaling = scaling_of(format, group=group_length(format, layout.depth), tensor_scale=level)
    in_kernel = quantizer.statistic == "absmax" and scaling.rule != Rule.GIVEN
    if in_kernel and state.scales is None and format.granularity != "block":
        scales, points = np.ones((1, 1), np.float32), _NO_POINTS
    else:
        found = scales_of(layout.row_matrix(source), quantizer, state, level)
        scales, points = found.scales.numpy(), _NO_POINTS
        if found.zero_points is not None:
            points = found.zero_points.numpy()
        scaling = scaling._replace(rule=np.int64(Rule.GIVEN))
    _by_rows(x, out, layout, grid, scaling, scales, points, bits)


def _tensor_scales(
    source: Tensor, x: Floats, quantizer: Quantizer, scaling: Scaling, state: QuantizerState
) -> GroupScales:
    """The one scale of a tensor."""
    derivable = quantizer.statistic == "absmax" and scaling.rule != Rule.GIVEN
    if state.scales is None and derivable:
        scale = compiled.scale_of(np.float32(_absmax(x)), scaling)
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


def _uniform(
    x: Floats, out: Floats, scale: np.float32, grid: Grid, seed: np.uint32,
    zero_point: np.float32 = np.float32(0),
) -> None:  # fmt: skip
    def run(first: int, last: int) -> None:
        compiled.quantize_span(x, out, first, last, scale, zero_point, grid, seed)

    _shared(x.size, x.size, run)


def _by_rows(
    x: Floats, out: Floats, layout: Layout, grid: Grid, scaling: Scaling,
    scales: Floats, points: Floats, seed: np.uint32,
) -> None:  # fmt: skip
    depth, inner = layout.depth, layout.inner

    def rows(first: int, last: int) -> None:
        compiled.quantize_rows(x, out, first, last, depth, grid, scaling, scales, points, seed)

    def columns(first: int, last: int) -> None:
        compiled.quantize_columns(
            x, out, first, last, depth, inner, grid, scaling, scales, points, seed
        )

    if inner == 1:
        _shared(layout.outer, x.size, rows)
    else:
        _shared(layout.outer * -(-inner // compiled.COLUMNS), x.size, columns)


def _shared(items: int, elements: int, run: Callable[[int, int], Result]) -> list[Result]:
    """Results of `run(first, last)` over parts of `range(items)`, in threads if it is worth it."""
    parts = min(torch.get_num_threads(), max(elements // ELEMENTS_PER_THREAD, 1), items)
    if parts == 1:
        return [run(0, items)]
    borders = [items * part // parts for part in range(parts + 1)]
    with ThreadPoolExecutor(parts) as pool:
        return list(pool.map(run, borders[:-1], borders[1:]))
