"""Operators that change or read shapes and move elements without computing on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from dse.execute.operators.operator import Operator, operator


def shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    """The sizes as int64, on the host."""
    return torch.tensor(x.shape[slice(start, end)], dtype=torch.int64)


def size(x: Tensor) -> Tensor:
    """The number of elements, on the host."""
    return torch.tensor(x.numel(), dtype=torch.int64)


def reshape(x: Tensor, target: Tensor, *, allowzero: int = 0) -> Tensor:
    """X with a new shape: -1 is inferred, 0 keeps the size unless `allowzero`."""
    sizes = target.tolist()
    if not allowzero and 0 in sizes:
        sizes = [x.shape[axis] if n == 0 else n for axis, n in enumerate(sizes)]
    return x.reshape(sizes)


def reshape_attribute(x: Tensor, *, shape: tuple[int, ...]) -> Tensor:
    """Reshape before opset 5."""
    return reshape(x, torch.tensor(shape))


def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    """(d0 ... d_axis-1, d_axis ... ), two axes."""
    axis = axis + x.dim() if axis < 0 else axis
    rows = x.shape[:axis].numel()
    return x.reshape(rows, x.shape[axis:].numel())


def transpose(x: Tensor, *, perm: tuple[int, ...] | None = None) -> Tensor:
    """Axes in the order of `perm`, reversed without it."""
    return x.permute(perm if perm is not None else tuple(range(x.dim()))[::-1])


def squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    """X without the named axes of size 1, without all of them where none is named."""
    return x.squeeze() if axes is None else x.squeeze(tuple(axes.reshape(-1).tolist()))


def squeeze_attribute(x: Tensor, *, axes: tuple[int, ...] | None = None) -> Tensor:
    """Squeeze before opset 13."""
    return x.squeeze() if axes is None else x.squeeze(axes)


def _unsqueeze(x: Tensor, axes: Sequence[int]) -> Tensor:
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def unsqueeze(x: Tensor, axes: Tensor) -> Tensor:
    """X with axes of size 1 at the named positions of the result."""
    return _unsqueeze(x, axes.reshape(-1).tolist())


def unsqueeze_attribute(x: Tensor, *, axes: tuple[int, ...]) -> Tensor:
    """Unsqueeze before opset 13."""
    return _unsqueeze(x, axes)


def concat(*tensors: Tensor, axis: int = 1) -> Tensor:
    """The tensors one after the other along an axis."""
    return torch.cat(tensors, dim=axis)


def _split_sizes(total: int, parts: int) -> list[int]:
    chunk = -(-total // parts)
    return [max(0, min(chunk, total - chunk * part)) for part in range(parts)]


def split(
    x: Tensor,
    sizes: Tensor | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
    output_count: int,
) -> tuple[Tensor, ...]:
    """Pieces along an axis: of the given sizes, else equal ones with a smaller last."""
    if sizes is not None:
        return torch.split(x, sizes.tolist(), dim=axis)
    return torch.split(x, _split_sizes(x.shape[axis], num_outputs or output_count), dim=axis)


def split_attribute(
    x: Tensor,
    sizes: Tensor | None = None,
    *,
    axis: int = 0,
    split: tuple[int, ...] | None = None,
    output_count: int,
) -> tuple[Tensor, ...]:
    """Split before opset 13."""
    if split is None and sizes is not None:
        split = tuple(sizes.tolist())
    sizes_ = list(split) if split else _split_sizes(x.shape[axis], output_count)
    return torch.split(x, sizes_, dim=axis)


def expand(x: Tensor, target: Tensor) -> Tensor:
    """X broadcast with a shape (in both directions)."""
    sizes = broadcast_shape(x.shape, target.tolist())
    return x.expand(sizes)


def broadcast_shape(*shapes: Sequence[int]) -> torch.Size:
    """The shape that tensors of these shapes broadcast to."""
    # torch's own function imports its symbolic shapes and sympy: half a second.
    return torch.Size(np.broadcast_shapes(*(tuple(shape) for shape in shapes)))


def tile(x: Tensor, repeats: Tensor) -> Tensor:
    """X repeated along each axis."""
    return x.repeat(repeats.tolist())


def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """(N, C b b, H, W) -> (N, C, H b, W b), the block first (DCR) or the channel first (CRD)."""
    n, c, h, w = x.shape
    depth = c // blocksize**2
    if mode == "DCR":
        x = x.reshape(n, blocksize, blocksize, depth, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        x = x.reshape(n, depth, blocksize, blocksize, h, w).permute(0, 1, 4, 2, 5, 3)
    return x.reshape(n, depth, h * blocksize, w * blocksize)


def space_to_depth(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """(N, C, H b, W b) -> (N, C b b, H, W)."""
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // blocksize, blocksize, w // blocksize, blocksize)
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return x.permute(order).reshape(n, c * blocksize**2, h // blocksize, w // blocksize)


def trilu(x: Tensor, k: Tensor | None = None, *, upper: int = 1) -> Tensor:
    """The upper or lower triangle from diagonal k on, zero elsewhere."""
    diagonal = 0 if k is None else int(k.item())
    return torch.triu(x, diagonal) if upper else torch.tril(x, diagonal)


def identity(x: Tensor) -> Tensor:
    """X itself."""
    return x


def reverse_sequence(
    x: Tensor, lengths: Tensor, *, batch_axis: int = 1, time_axis: int = 0
) -> Tensor:
    """X with the first `lengths[b]` time steps of each batch entry reversed."""
    steps = torch.arange(x.shape[time_axis], device=x.device)
    ends = lengths.unsqueeze(1)
    index = torch.where(steps < ends, ends - 1 - steps, steps)
    swapped = x.movedim((batch_axis, time_axis), (0, 1))
    index = index.reshape(*index.shape, *(1,) * (x.dim() - 2)).expand_as(swapped)
    return swapped.gather(1, index).movedim((0, 1), (batch_axis, time_axis))


OPERATORS: Mapping[str, Operator] = {
    "Concat": operator(concat),
    "DepthToSpace": operator(depth_to_space),
    "Expand": operator(expand, host=(1,), generates=True),
    "Flatten": operator(flatten),
    "Identity": operator(identity),
    "Reshape": Operator(versions={1: reshape_attribute, 5: reshape}, host=(1,)),
    "ReverseSequence": operator(reverse_sequence),
    "Shape": operator(shape),
    "Size": operator(size),
    "SpaceToDepth": operator(space_to_depth),
    "Split": Operator(versions={1: split_attribute, 13: split}, host=(1,)),
    "Squeeze": Operator(versions={1: squeeze_attribute, 13: squeeze}, host=(1,)),
    "Tile": operator(tile, host=(1,), generates=True),
    "Transpose": operator(transpose),
    "Trilu": operator(trilu, host=(1,)),
    "Unsqueeze": Operator(versions={1: unsqueeze_attribute, 13: unsqueeze}, host=(1,)),
}
