"""Operators that pick, place, order and find elements."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dse.execute.operators.dtype import BY_CODE
from dse.execute.operators.operator import Operator, operator


def _wrapped(index: Tensor, length: int) -> Tensor:
    return torch.where(index < 0, index + length, index)


def gather(x: Tensor, index: Tensor, *, axis: int = 0) -> Tensor:
    """Slices of x along an axis; index may be negative and of any rank."""
    index = index.long()
    axis = axis % x.dim()
    if index.dim() == 0 and index.device.type == "cpu":
        return x.select(axis, int(index.item()))
    if axis == 0 and index.dim() > 1 and x.dim() == 2:
        return torch.nn.functional.embedding(_wrapped(index, x.shape[0]), x)
    picked = x.index_select(axis, _wrapped(index.reshape(-1), x.shape[axis]))
    return picked.reshape(x.shape[:axis] + index.shape + x.shape[axis + 1 :])


def gather_elements(x: Tensor, index: Tensor, *, axis: int = 0) -> Tensor:
    """Elements of x at positions of the index's shape along an axis."""
    return torch.gather(x, axis, _wrapped(index.long(), x.shape[axis]))


def gather_nd(x: Tensor, index: Tensor, *, batch_dims: int = 0) -> Tensor:
    """Slices of x at index tuples (last axis of index), batch axes first."""
    batch = x.shape[:batch_dims]
    flat = x.reshape(batch.numel(), *x.shape[batch_dims:])
    tuples = index.long().reshape(batch.numel(), -1, index.shape[-1])
    rows = torch.arange(flat.shape[0], device=x.device).reshape(-1, 1)
    picked = flat[(rows, *tuples.unbind(-1))]
    return picked.reshape(index.shape[:-1] + x.shape[batch_dims + index.shape[-1] :])


_SCATTER_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def scatter_elements(
    x: Tensor, index: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none"
) -> Tensor:
    """A copy of x with updates at positions along an axis, replaced or combined."""
    index = _wrapped(index.long(), x.shape[axis])
    if reduction == "none":
        return x.scatter(axis, index, updates)
    return x.scatter_reduce(axis, index, updates, _SCATTER_REDUCTIONS[reduction])


def scatter_nd(x: Tensor, index: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    """A copy of x with updates at index tuples, replaced or combined."""
    depth = index.shape[-1]
    lengths = torch.tensor(x.shape[:depth], device=index.device)
    tuples = index.long().reshape(-1, depth)
    tuples = torch.where(tuples < 0, tuples + lengths, tuples)
    strides = torch.tensor([x.shape[i + 1 : depth].numel() for i in range(depth)])
    rows = (tuples * strides.to(tuples.device)).sum(-1)
    inner = x.shape[depth:]
    flat = x.reshape(-1, inner.numel())
    values = updates.reshape(rows.shape[0], inner.numel())
    if reduction == "none":
        return flat.index_copy(0, rows, values).reshape(x.shape)
    where = rows.unsqueeze(1).expand_as(values)
    return flat.scatter_reduce(0, where, values, _SCATTER_REDUCTIONS[reduction]).reshape(x.shape)


def one_hot(index: Tensor, depth: Tensor, values: Tensor, *, axis: int = -1) -> Tensor:
    """values[1] at the index, values[0] elsewhere, along a new axis of size depth."""
    length = int(depth.item())
    off, on = values.unbind()
    steps = torch.arange(length, device=index.device)
    hot = _wrapped(index.long(), length).unsqueeze(-1) == steps
    hot = torch.where(hot, on.to(index.device), off.to(index.device))
    return hot.movedim(-1, axis)


def non_zero(x: Tensor) -> Tensor:
    """(rank, count): the positions of the elements that are not zero."""
    return x.nonzero().T.contiguous()


def compress(x: Tensor, condition: Tensor, *, axis: int | None = None) -> Tensor:
    """The slices where the condition (possibly shorter than the axis) holds."""
    positions = condition.bool().nonzero().flatten()
    return x.reshape(-1)[positions] if axis is None else x.index_select(axis, positions)


def _sortable(x: Tensor) -> Tensor:
    return x.float() if x.dtype == torch.float16 and x.device.type == "cpu" else x


def _top_k(x: Tensor, k: int, axis: int, largest: int) -> tuple[Tensor, Tensor]:
    # torch.topk does not promise the lowest index of equal elements; a stable sort does.
    _, order = torch.sort(_sortable(x), dim=axis, descending=bool(largest), stable=True)
    index = order.narrow(axis, 0, k)
    return x.gather(axis, index), index


def top_k(
    x: Tensor, k: Tensor, *, axis: int = -1, largest: int = 1, sorted: int = 1
) -> tuple[Tensor, Tensor]:
    """The k largest or smallest with their positions; the lower index wins a tie."""
    return _top_k(x, int(k.item()), axis, largest)


def top_k_attribute(x: Tensor, *, k: int, axis: int = -1) -> tuple[Tensor, Tensor]:
    """TopK before opset 10."""
    return _top_k(x, k, axis, 1)


def unique(
    x: Tensor, *, axis: int | None = None, sorted: int = 1
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Distinct elements or slices, first positions, inverse, counts."""
    values, inverse, counts = torch.unique(
        x, sorted=True, return_inverse=True, return_counts=True, dim=axis
    )
    inverse = inverse.reshape(-1)
    positions = torch.arange(inverse.numel(), device=x.device)
    first = torch.full_like(counts, inverse.numel())
    first = first.scatter_reduce(0, inverse, positions, "amin")
    if sorted:
        return values, first, inverse, counts
    order = torch.argsort(first)
    rank = torch.argsort(order)
    values = values.index_select(0 if axis is None else axis, order)
    return values, first[order], rank[inverse], counts[order]


def eye_like(x: Tensor, *, dtype: int | None = None, k: int = 0) -> Tensor:
    """Ones on diagonal k of a matrix of x's shape."""
    kind = x.dtype if dtype is None else BY_CODE[dtype].carrier
    rows = torch.arange(x.shape[0], device=x.device).unsqueeze(1)
    columns = torch.arange(x.shape[1], device=x.device)
    return (columns - rows == k).to(kind)


def tensor_scatter(
    cache: Tensor,
    update: Tensor,
    write_indices: Tensor | None = None,
    *,
    mode: str = "linear",
    axis: int = -2,
) -> Tensor:
    """A copy of the cache with the update written from `write_indices[batch]` on."""
    axis = axis % cache.dim()
    steps = torch.arange(update.shape[axis], device=cache.device)
    if write_indices is None:
        write_indices = torch.zeros(cache.shape[0], dtype=torch.int64, device=cache.device)
    index = write_indices.reshape(-1, 1) + steps
    if mode == "circular":
        index = index.remainder(cache.shape[axis])
    sizes = [1] * cache.dim()
    sizes[0], sizes[axis] = index.shape
    return cache.scatter(axis, index.reshape(sizes).expand(update.shape), update)


OPERATORS: Mapping[str, Operator] = {
    "Compress": operator(compress),
    "EyeLike": operator(eye_like),
    "Gather": operator(gather),
    "GatherElements": operator(gather_elements),
    "GatherND": operator(gather_nd),
    "NonZero": operator(non_zero),
    "OneHot": operator(one_hot, host=(1,), generates=True),
    "Scatter": operator(scatter_elements),
    "ScatterElements": operator(scatter_elements),
    "ScatterND": operator(scatter_nd),
    "TensorScatter": operator(tensor_scatter),
    "TopK": Operator(versions={1: top_k_attribute, 10: top_k}, host=(1,)),
    "Unique": operator(unique),
}
