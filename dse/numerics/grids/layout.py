"""Any tensor as rows of one contraction, without a copy where its memory allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The reading of a tensor's memory as (outer, depth, inner), `depth` the contraction.

    Row r = (o, i) of the outer and inner index is one slice of the contraction.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    """Permutation of the axes under which memory is contiguous after `flat`."""
    outer: int
    depth: int
    inner: int
    in_order: bool
    """Whether `order` is that of the axes."""

    @property
    def rows(self) -> int:
        """Number of slices that are contracted."""
        return self.outer * self.inner

    def flat(self, x: Tensor) -> Tensor:
        """`x` as a contiguous vector in this layout's order: a view if its strides allow."""
        return self._permuted(x).reshape(-1)

    def is_view(self, x: Tensor) -> bool:
        """Whether `flat` would be a view of `x`."""
        return self._permuted(x).is_contiguous()

    def restored(self, flat: Tensor) -> Tensor:
        """A tensor of the original shape over a vector in this layout's order."""
        if self.in_order:
            return flat.reshape(self.shape)
        permuted = flat.reshape([self.shape[axis] for axis in self.order])
        inverse = sorted(range(len(self.order)), key=self.order.__getitem__)
        return permuted.permute(inverse)

    def _permuted(self, x: Tensor) -> Tensor:
        return x if self.in_order else x.permute(self.order)

    def row_matrix(self, flat: Tensor) -> Tensor:
        """A vector in this layout's order as (rows, depth); a copy if `inner` is above one."""
        rows = flat.reshape(self.outer, self.depth, self.inner).transpose(1, 2)
        return rows.reshape(self.rows, self.depth)

    def from_rows(self, rows: Tensor) -> Tensor:
        """The inverse of `row_matrix`."""
        return rows.reshape(self.outer, self.inner, self.depth).transpose(1, 2).reshape(-1)


def layout_of(x: Tensor, axes: Sequence[int], *, logical: bool = False) -> Layout:
    """The layout of `x` contracted over `axes`; without axes, over the last one.

    Takes the order of the memory if it keeps the contraction axes together and in their order;
    otherwise, and where `logical` order is asked for, that of the axes, the contraction moved
    behind the others only if its axes are apart.
    """
    return _layout(tuple(x.shape), x.stride(), tuple(axes), logical)


@lru_cache(maxsize=4096)
def _layout(
    shape: tuple[int, ...], strides: tuple[int, ...], axes: tuple[int, ...], logical: bool
) -> Layout:
    dims = len(shape)
    contracted = sorted({axis % dims for axis in (axes or (-1,))}) if dims else []
    by_memory = tuple(sorted(range(dims), key=lambda axis: (-strides[axis], axis)))
    if not logical and _is_contiguous(shape, strides, by_memory):
        found = _adjacent(shape, by_memory, contracted)
        if found is not None:
            return found
    in_order = _adjacent(shape, tuple(range(dims)), contracted)
    if in_order is not None:
        return in_order
    kept = [axis for axis in range(dims) if axis not in contracted]
    moved = _adjacent(shape, (*kept, *contracted), contracted)
    if moved is None:
        raise AssertionError("contraction axes at the end are adjacent")
    return moved


def _is_contiguous(
    shape: tuple[int, ...], strides: tuple[int, ...], order: tuple[int, ...]
) -> bool:
    """Whether the axes in that order follow each other in memory without gaps."""
    step = 1
    for axis in reversed(order):
        if shape[axis] != 1 and strides[axis] != step:
            return False
        step *= shape[axis]
    return True


def _adjacent(
    shape: tuple[int, ...], order: tuple[int, ...], contracted: Sequence[int]
) -> Layout | None:
    """The layout of an order of axes, if the contraction axes stand together in theirs."""
    places = [place for place, axis in enumerate(order) if axis in contracted]
    together = [order[place] for place in places] == list(contracted)
    if places and (not together or places[-1] - places[0] != len(places) - 1):
        return None
    first, last = (places[0], places[-1] + 1) if places else (0, 0)
    sizes = [shape[axis] for axis in order]
    return Layout(
        shape=shape,
        order=order,
        in_order=order == tuple(range(len(order))),
        outer=math.prod(sizes[:first]),
        depth=math.prod(sizes[first:last]),
        inner=math.prod(sizes[last:]),
    )
