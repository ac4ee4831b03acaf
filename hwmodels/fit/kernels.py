"""Fitting the constants of convolutions, attention and moves to an operator table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwmodels.devices.device import Device
from hwmodels.estimators.gpu.constants import MoveConstants, SkeletonConstants
from hwmodels.estimators.gpu.kernels import TERMS
from hwmodels.estimators.gpu.skeleton import GpuFigures
from hwmodels.fit.simplex import least
from hwmodels.operators.lower import compute_elements, op_kernels
from hwmodels.operators.optable import OpTable, read_optable
from hwmodels.work.kernel import Kernel

Floats = NDArray[np.float64]

MOVE_OPS = {
    "pointwise": ("add", "mul", "relu", "gelu", "silu"), "softmax": ("softmax",),
    "layernorm": ("layernorm",), "rmsnorm": ("rmsnorm",), "reduce": ("reduce_mean",),
    "embedding": ("embedding",), "quantize": ("cast_fp8",),
}  # fmt: skip
SIXTEEN = ("bf16", "fp16")
WIDE_CONVOLUTION = ("fp32_efficiency", "fp32_ramp_cycles", "fp32_step_cycles")
EVALUATIONS = 500
SIMPLEXES = 2
STEP = 0.4


def fit_kernels(path: Path, device: Device, constants: SkeletonConstants) -> SkeletonConstants:
    """The constants with the least mean |log ratio|, kind by kind, on cold operators of a device.

    Convolutions and attention on 16-bit rows, what attention in 32 bit differs in on its own.
    """
    table = read_optable(path, timed=True)
    found = replace(
        constants,
        moves=dict(constants.moves)
        | {
            name: _fit_move(_Rows.of(table, ops, None, device), device, constants, name)
            for name, ops in MOVE_OPS.items()
        },
    )
    sixteen = _Rows.of(table, ("conv2d",), SIXTEEN, device)
    others = [name for name in _fields(found.convolution) if name not in WIDE_CONVOLUTION]
    found = _fit(sixteen, device, found, "convolution", tuple(others))
    wide = _Rows.of(table, ("conv2d",), ("fp32",), device)
    found = _fit(wide, device, found, "convolution", WIDE_CONVOLUTION)
    attention = _Rows.of(table, ("attention",), SIXTEEN, device)
    plain = ("efficiency", "ramp_cycles", "dram_efficiency")
    found = _fit(attention, device, found, "attention", plain)
    wide = _Rows.of(table, ("attention",), ("fp32",), device)
    fp32 = ("fp32_efficiency", "fp32_step_cycles", "fp32_expansions")
    return _fit(wide, device, found, "attention", fp32)


class _Rows:
    """Single kernels with their measured seconds."""

    def __init__(self, kernels: Sequence[Kernel], measured: Floats) -> None:
        self.kernels = kernels
        self.measured = measured

    @classmethod
    def of(
        cls, table: OpTable, ops: Sequence[str], dtypes: Sequence[str] | None, device: Device
    ) -> _Rows:
        """The rows of some operators, in some number types or all."""
        rows = [
            index
            for index, (op, dtype) in enumerate(zip(table.ops, table.dtypes, strict=True))
            if op in ops and (dtypes is None or dtype in dtypes)
        ]
        kernels = [
            op_kernels(
                table.ops[row],
                table.shapes[row],
                table.dtypes[row],
                compute_elements(table.dtypes[row], device),
                cold=True,
            )[-1]
            for row in rows
        ]
        seconds = table.frame["median_us"].to_numpy(dtype=float)[rows] * 1e-6
        return cls(kernels, seconds)


def _fields(constants: object) -> list[str]:
    return list(type(constants).__dataclass_fields__)  # type: ignore[attr-defined]


def _fit(
    rows: _Rows, device: Device, constants: SkeletonConstants, part: str, names: tuple[str, ...]
) -> SkeletonConstants:
    start = getattr(constants, part)

    def changed(values: Floats) -> SkeletonConstants:
        found = replace(start, **dict(zip(names, map(float, values), strict=True)))
        return replace(constants, **{part: found})

    best = _least(rows, device, changed, np.array([getattr(start, name) for name in names]))
    return changed(best)


def _fit_move(
    rows: _Rows, device: Device, constants: SkeletonConstants, name: str
) -> MoveConstants:
    start = constants.moves[name]
    serial = start.step_cycles > 0

    def changed(values: Floats) -> SkeletonConstants:
        found = replace(
            start,
            efficiency=min(float(values[0]), 1.0),
            ramp_cycles=float(values[1]),
            step_cycles=float(values[2]) if serial else 0.0,
        )
        return replace(constants, moves={**constants.moves, name: found})

    first = np.array([start.efficiency, start.ramp_cycles, max(start.step_cycles, 1e-3)])
    return changed(_least(rows, device, changed, first)).moves[name]


def _least(
    rows: _Rows,
    device: Device,
    changed: Callable[[Floats], SkeletonConstants],
    start: Floats,
) -> Floats:
    gpu = GpuFigures.of(device)
    kind = rows.kernels[0].kind

    def loss(logs: Floats) -> float:
        terms = TERMS[kind](rows.kernels, device, gpu, changed(np.exp(logs)))
        return float(np.abs(np.log(terms.latency_s / rows.measured)).mean())

    logs = least(loss, np.log(start), step=STEP, evaluations=EVALUATIONS, simplexes=SIMPLEXES)
    return np.asarray(np.exp(logs))
