"""The fused path of `quantize`: CUDA tensors whose groups lie whole and contiguous in memory."""

from __future__ import annotations

import importlib.util
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from dse.numerics.grids.grid import Method, grid_of, thresholds_of
from dse.numerics.grids.layout import Layout
from dse.numerics.grids.scaling import Rule, Scaling, kernels_derive, scaling_of
from dse.numerics.grids.state import QuantizerState
from dse.numerics.grids.unscaled import is_plain
from dse.numerics.on_device import scales_of, tensor_scale
from dse.numerics.scales import group_length
from dse.numerics.triton.arguments import (
    grid_numbers,
    plain_numbers,
    rounds_scales,
    scaling_numbers,
)
from hwmodels.formats.quantizer import Encoding, Quantizer, Rounding

SPAN = 4096
"""Elements that one program handles under one scale."""
TILE = 4096
"""Elements of all groups that one program handles."""
LARGEST_SPAN = 16384
"""Elements that one program reduces for the statistic of a whole tensor."""
WARPS = 8
LARGEST_GROUP = 8192
_SLOW = (Method.IDENTITY, Method.SEARCH, Method.TABLE_STOCHASTIC)
"""Methods that are left to the torch path."""


def fuses(x: Tensor, quantizer: Quantizer, layout: Layout, state: QuantizerState) -> bool:
    """Whether a fused kernel can do the whole quantization."""
    format = quantizer.format
    grid = grid_of(format.element, quantizer.rounding, quantizer.random_bits)
    if x.device.type != "cuda" or grid.method in _SLOW or not _has_triton():
        return False
    if not layout.is_view(x) or format.zero_point is not None:
        return False
    if format.scale is None or format.granularity == "tensor":
        return True
    group = group_length(format, layout.depth)
    scaling = scaling_of(format, group=group)
    in_registers = kernels_derive(quantizer) and state.scales is None and layout.inner == 1
    whole = layout.depth % group == 0 and group & (group - 1) == 0 and group <= LARGEST_GROUP
    return in_registers and whole and _is_derived_simply(scaling)


def quantize_on_cuda(
    x: Tensor,
    quantizer: Quantizer,
    layout: Layout,
    state: QuantizerState,
    *,
    out: Tensor | None,
    seed: int,
) -> Tensor:
    """See `dse.numerics.quantize`; `fuses` has said that a kernel can do it."""
    source = layout.flat(x)
    direct = out is not None and layout.is_view(out)
    target = layout.flat(out) if out is not None and direct else torch.empty_like(source)
    _launch(source, target, quantizer, layout, state=state, seed=seed)
    if out is None:
        return layout.restored(target)
    return out if direct else out.copy_(layout.restored(target))


def _launch(
    flat: Tensor,
    out: Tensor,
    quantizer: Quantizer,
    layout: Layout,
    *,
    state: QuantizerState,
    seed: int,
) -> None:
    """Fills `out` by one kernel, after the tensor's own statistic if it needs one."""
    from dse.numerics.triton import kernels as fused  # noqa: PLC0415 - imports triton

    format = quantizer.format
    per_row = format.scale is not None and format.granularity != "tensor"
    group = group_length(format, layout.depth) if per_row else flat.numel()
    level = tensor_scale(flat, format, state)
    scaling = scaling_of(format, group=group, tensor_scale=level)
    numbers, how = _rounding(quantizer)
    table = _table(format.element, quantizer.rounding, flat.device)
    given = (
        _mixed(seed & 0xFFFFFFFF), numbers, table,
        scaling_numbers(scaling), plain_numbers(scaling.grid),
    )  # fmt: skip
    if per_row:
        tile, groups = max(TILE // group, 1), flat.numel() // group
        fused.group_kernel[(-(-groups // tile),)](
            flat, out, groups, *given, **how, RULE=int(scaling.rule),
            TWO_LEVEL=scaling.two_level, GROUP=group, TILE=tile, num_warps=WARPS,
        )  # fmt: skip
        return
    source, rule = _scale(flat, quantizer, scaling, state)
    fused.span_kernel[(-(-flat.numel() // SPAN),)](
        flat, out, source, flat.numel(), *given, **how, RULE=int(rule),
        SCALED=format.scale is not None, BLOCK=SPAN, num_warps=WARPS,
    )  # fmt: skip


def _rounding(quantizer: Quantizer) -> tuple[tuple[int | float, ...], dict[str, int]]:
    """The grid as numbers, and what kernels are compiled for."""
    grid = grid_of(quantizer.format.element, quantizer.rounding, quantizer.random_bits)
    plain = is_plain(grid)
    how = {
        "METHOD": int(grid.method), "BITS": int(grid.random_bits), "PLAIN": plain,
        "SIGNED_ZERO": bool(np.signbit(grid.zero)),
    }  # fmt: skip
    return plain_numbers(grid) if plain else grid_numbers(grid), how


def _scale(
    flat: Tensor, quantizer: Quantizer, scaling: Scaling, state: QuantizerState
) -> tuple[Tensor, Rule]:
    """One number on the device and how a kernel makes the scale of it: no wait for the host."""
    if quantizer.format.scale is None:
        return torch.ones(1, device=flat.device), Rule.GIVEN
    if state.scales is None and kernels_derive(quantizer) and _is_derived_simply(scaling):
        return _largest(flat), Rule(int(scaling.rule))
    row = flat.reshape(1, -1)
    row = row if state.scales is not None else row.float()
    return scales_of(row, quantizer, state, 1.0).scales, Rule.GIVEN


def _is_derived_simply(scaling: Scaling) -> bool:
    return scaling.rule != Rule.ROUNDED or rounds_scales(scaling.grid)


def _largest(flat: Tensor) -> Tensor:
    """The largest magnitude of the values that are numbers, as one float32 on the device."""
    from dse.numerics.triton import kernels as fused  # noqa: PLC0415 - imports triton

    bits = torch.zeros(1, dtype=torch.int32, device=flat.device)
    programs = (-(-flat.numel() // LARGEST_SPAN),)
    fused.largest_kernel[programs](flat, bits, flat.numel(), BLOCK=LARGEST_SPAN, num_warps=WARPS)
    return bits.view(torch.float32)


@lru_cache(maxsize=64)
def _table(encoding: Encoding, rounding: Rounding, device: torch.device) -> tuple[Tensor, ...]:
    table = thresholds_of(encoding, rounding)
    return tuple(
        torch.from_numpy(array).to(device)
        for array in (table.lower, table.thresholds, table.values)
    )


def _mixed(x: int) -> int:
    """As `rounding.mixed`, for the seed."""
    x ^= x >> 16
    x = x * 0x7FEB352D & 0xFFFFFFFF
    x ^= x >> 15
    x = x * 0x846CA68B & 0xFFFFFFFF
    return x ^ x >> 16


def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
