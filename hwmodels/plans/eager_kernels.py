"""Dynamic quantisation where every operation is a kernel of its own.

Eager torch runs |x|, its maximum, the scale, the division, the clamp and the cast one by one, each
through memory; a compiler or a serving runtime has one kernel. The lists are the operations of
`dse/profile/gemm.py` and `operators.py`, which is how users write them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hwmodels.formats.quantizer import Format
from hwmodels.work.kernel import Kernel, KernelKind
from hwmodels.work.loops import RowLoops
from hwmodels.work.work import plain_format


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    kind: KernelKind = "pointwise"
    detail: str = ""
    read: int = 0
    """Bytes an element of the tensor; none for steps on the scales, which are small."""
    write: int = 0


_MAXIMUM = (
    _Step(detail="abs", read=2, write=2),
    _Step(kind="reduce", detail="compute_scale", read=2),
)
_SCALE = _Step(detail="scale")
PER_TENSOR = (
    *_MAXIMUM, _SCALE, _SCALE, _Step(detail="mul", read=2, write=2),
    _Step(detail="clip", read=2, write=2), _Step(kind="quantize", detail="cast", read=2, write=1),
)  # fmt: skip
"""The scale is a 16-bit scalar: everything stays in 16 bit."""
PER_ROW = (
    *_MAXIMUM, _SCALE, _SCALE, _SCALE, _Step(detail="div", read=2, write=4),
    _Step(detail="clip", read=4, write=4), _Step(kind="quantize", detail="cast", read=4, write=1),
)  # fmt: skip
"""The scales are float32, which the division carries to every element."""
ROUND = _Step(detail="round", read=4, write=4)
"""Integers are rounded before they are cast."""
RESCALE = (
    _Step(detail="mul", read=4, write=4), _Step(detail="mul", read=4, write=4),
    _Step(detail="cast", read=4, write=2),
)  # fmt: skip
"""An int32 product times the scales of its rows and of its columns."""


def eager_quantisation(
    rows: int, cols: int, *, stored: Format, per_row: bool, cold: bool
) -> tuple[Kernel, ...]:
    """The kernels that bring a 16-bit tensor to 8 bit; the first one finds it `cold`."""
    steps = [*(PER_ROW if per_row else PER_TENSOR)]
    if stored.element.kind == "int":
        steps.insert(-2, ROUND)
    kernels = [_kernel(step, rows, cols, cold=cold and not i) for i, step in enumerate(steps)]
    return (*kernels[:-1], replace(kernels[-1], output_format=stored))


def eager_rescaling(rows: int, cols: int) -> tuple[Kernel, ...]:
    """The kernels that bring an int32 product to 16 bit."""
    return tuple(_kernel(step, rows, cols, cold=False) for step in RESCALE)


def _kernel(step: _Step, rows: int, cols: int, *, cold: bool) -> Kernel:
    count = rows * cols
    return Kernel(
        kind=step.kind,
        detail=step.detail,
        loops=RowLoops(rows=rows, cols=cols),
        input_format=plain_format(8 * step.read) if step.read else None,
        output_format=plain_format(8 * step.write) if step.write else None,
        input_bytes=step.read * count,
        write_bytes=step.write * count,
        inputs_are_cold=cold,
    )
