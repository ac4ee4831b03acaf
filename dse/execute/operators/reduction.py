"""Operators that reduce along axes, scans along one, and where an extreme stands."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from dse.execute.operators.operator import Operator, operator

Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _reduced(function: Reduction, x: Tensor, axes: Sequence[int] | None, keepdims: int) -> Tensor:
    return function(x, list(axes or range(x.dim())), bool(keepdims))


def _by_input(function: Reduction) -> Callable[..., Tensor]:
    def reduce(
        x: Tensor, axes: Tensor | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Tensor:
        named = None if axes is None else axes.tolist()
        if noop_with_empty_axes and not named:
            # Only the reduction is skipped: a square or logarithm still happens.
            return function(x.unsqueeze(0), [0], False)
        return _reduced(function, x, named, keepdims)

    return reduce


def _by_attribute(function: Reduction) -> Callable[..., Tensor]:
    def reduce(x: Tensor, *, axes: tuple[int, ...] | None = None, keepdims: int = 1) -> Tensor:
        return _reduced(function, x, axes, keepdims)

    return reduce


def _sum(x: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    return torch.sum(x, axes, keepdim=keepdims, dtype=x.dtype) if x.dim() else x.clone()


def _mean(x: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    if x.is_floating_point():
        return torch.mean(x, axes, keepdim=keepdims) if x.dim() else x.clone()
    count = math.prod(x.shape[axis] for axis in axes)
    return torch.div(_sum(x, axes, keepdims), count, rounding_mode="trunc").to(x.dtype)


def _extreme(x: Tensor, axes: list[int], keepdims: bool, *, largest: bool) -> Tensor:
    if any(x.shape[axis] == 0 for axis in axes):
        # The extreme of nothing is the identity of the reduction.
        shape = _sum(x, axes, keepdims).shape
        return torch.full(shape, _lowest(x, largest), dtype=x.dtype, device=x.device)
    return (torch.amax if largest else torch.amin)(x, axes, keepdim=keepdims)


def _lowest(x: Tensor, largest: bool) -> float:
    if x.dtype == torch.bool:
        return not largest
    if x.is_floating_point():
        return -math.inf if largest else math.inf
    limits = torch.iinfo(x.dtype)
    return limits.min if largest else limits.max


def _max(x: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    return _extreme(x, axes, keepdims, largest=True)


def _min(x: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    return _extreme(x, axes, keepdims, largest=False)


def _prod(x: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    for axis in sorted((axis % max(x.dim(), 1) for axis in axes), reverse=True):
        x = torch.prod(x, axis, keepdim=keepdims, dtype=x.dtype)
    return x


def _l1(x: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    return _sum(x.abs(), axes, keepdims)


def _sum_square(x: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    return _sum(x * x, axes, keepdims)


def _l2(x: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    return _sum_square(x, axes, keepdims).sqrt().to(x.dtype)


def _log_sum(x: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    return _sum(x, axes, keepdims).log().to(x.dtype)


def _log_sum_exp(x: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    values = x if x.is_floating_point() else x.double()
    return torch.logsumexp(values, axes, keepdim=keepdims).to(x.dtype)


def _versions(function: Reduction, axes_input_since: int) -> Operator:
    return Operator(
        versions={1: _by_attribute(function), axes_input_since: _by_input(function)}, host=(1,)
    )


def _arg(x: Tensor, axis: int, keepdims: int, last: int, *, largest: bool) -> Tensor:
    # torch does not promise which of equal extremes it reports; ONNX wants the first or the last.
    best = x.amax(axis, keepdim=True) if largest else x.amin(axis, keepdim=True)
    found = (x == best).to(torch.uint8)
    if last:
        index = x.shape[axis] - 1 - found.flip(axis).argmax(axis, keepdim=bool(keepdims))
    else:
        index = found.argmax(axis, keepdim=bool(keepdims))
    return index


def argmax(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    """Index of the largest element, the first (or last) of equals."""
    return _arg(x, axis, keepdims, select_last_index, largest=True)


def argmin(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    """Index of the smallest element, the first (or last) of equals."""
    return _arg(x, axis, keepdims, select_last_index, largest=False)


def _scan(function: Callable[[Tensor, int], Tensor], neutral: int) -> Callable[..., Tensor]:
    def cumulate(x: Tensor, axis: Tensor, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
        along = int(axis.item()) % x.dim()
        x = x.flip(along) if reverse else x
        if exclusive:
            first = torch.full_like(x.narrow(along, 0, 1), neutral)
            x = torch.cat((first, x.narrow(along, 0, x.shape[along] - 1)), along)
        total = function(x, along).to(x.dtype)
        return total.flip(along) if reverse else total

    return cumulate


def det(x: Tensor) -> Tensor:
    """The determinant of the last two axes."""
    found: Tensor = torch.linalg.det(x)
    return found


OPERATORS: Mapping[str, Operator] = {
    "ArgMax": operator(argmax),
    "ArgMin": operator(argmin),
    "CumProd": operator(_scan(torch.cumprod, 1), host=(1,)),
    "CumSum": operator(_scan(torch.cumsum, 0), host=(1,)),
    "Det": operator(det),
    "ReduceL1": _versions(_l1, 18),
    "ReduceL2": _versions(_l2, 18),
    "ReduceLogSum": _versions(_log_sum, 18),
    "ReduceLogSumExp": _versions(_log_sum_exp, 18),
    "ReduceMax": _versions(_max, 18),
    "ReduceMean": _versions(_mean, 18),
    "ReduceMin": _versions(_min, 18),
    "ReduceProd": _versions(_prod, 18),
    "ReduceSum": _versions(_sum, 13),
    "ReduceSumSquare": _versions(_sum_square, 18),
}
