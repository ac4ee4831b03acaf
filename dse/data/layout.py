"""The axis of an input that counts samples: the first, another one, or none.

Recurrent states have it in the middle, flags such as `use_cache_branch` not at all. Within `dse`
arrays have samples in front; `Split.axes` says where the graph wants them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from dse.errors import DataError, nearest
from dse.graph.ir.graph import Graph
from dse.zoo.split import Split

LOGGER = logging.getLogger(__name__)
BATCH = "batch"
Shape = tuple[int | str | None, ...] | None
Shapes = Mapping[str, Shape]
Arrays = Mapping[str, np.ndarray]


def graph_shapes(graph: Graph) -> dict[str, Shape]:
    """The shapes of a graph's inputs; sizes that recurrences take for samples are called batch."""
    counted = set(_counted(graph))
    return {
        name: None
        if (shape := graph.shape(name)) is None
        else tuple(
            BATCH if size in counted or graph.samples.get(name) == axis else size
            for axis, size in enumerate(shape)
        )
        for name in graph.inputs
    }


def samples_name(graph: Graph) -> str | None:
    """The name of the size that counts samples: as recurrences say, else by `batch_name`."""
    named = batch_name([graph.shape(name) for name in graph.inputs])
    return next(_counted(graph), named)


def _counted(graph: Graph) -> Iterator[str]:
    """Names of sizes that recurrences take for samples."""
    for name, axis in graph.samples.items():
        size = (graph.shape(name) or ())[axis]
        if isinstance(size, str):
            yield size


def batch_name(shapes: Iterable[Shape]) -> str | None:
    """The name of the size that counts samples: called batch, else the most common first one."""
    known = [shape for shape in shapes if shape]
    names = [size for shape in known for size in shape if isinstance(size, str)]
    called = [name for name in names if "batch" in name.lower() and name.isidentifier()]
    if called:
        return called[0]
    first = Counter(shape[0] for shape in known if isinstance(shape[0], str))
    return first.most_common(1)[0][0] if first else None


def pooled(arrays: Arrays, shapes: Shapes, where: str) -> Split:
    """The samples of arrays as the graph takes them, those of an archive or of a program.

    Args:
        arrays: by input name, and `labels`; others are left out, with a warning.
        shapes: of the graph's inputs.
        where: what errors call the arrays.

    Raises:
        DataError: an input without an array, or what `samples_first` says.
    """
    missing = [name for name in shapes if name not in arrays]
    if missing:
        hints = "".join(nearest(name, arrays) for name in missing)
        raise DataError(
            f"{where}: expected arrays named as the graph's inputs ({', '.join(shapes)}) plus "
            f"labels, got {', '.join(arrays) or 'nothing'}; missing {', '.join(missing)}{hints}"
        )
    known = (*shapes, "labels")
    for name in (name for name in arrays if name not in known):
        LOGGER.warning(
            "%s: array %s is left out: no input of the graph has that name%s",
            where, name, nearest(name, known),
        )  # fmt: skip
    labels = None if "labels" in shapes else arrays.get("labels")
    return samples_first({name: arrays[name] for name in shapes}, labels, shapes, where)


def samples_first(arrays: Arrays, labels: np.ndarray | None, shapes: Shapes, where: str) -> Split:
    """Arrays as the graph takes them, all samples in one, as a pool with samples in front.

    Args:
        arrays: by input name; an input without an axis for samples has its one value.
        labels: one row a sample.
        shapes: of the graph's inputs.
        where: what errors call the arrays.

    Raises:
        DataError: an array that does not fit its input, or counts of samples that differ.
    """
    count = _count(arrays, shapes, where)
    found: dict[str, np.ndarray] = {}
    axes: dict[str, int | None] = {}
    for name, shape in shapes.items():
        values, axis = _in_front(arrays[name], shape, batch_name(shapes.values()), count)
        if values is None:
            raise DataError(_misfit(f"{where}: {name}", shape, arrays[name], count))
        found[name], axes[name] = values, axis
    if labels is not None and (labels.ndim == 0 or len(labels) != count):
        raise DataError(
            f"{where}: labels: expected one row for each of {count} samples, got an array of "
            f"shape {labels.shape}"
        )
    rows = any(array.dtype.kind in "iu" and array.ndim > 1 for array in found.values())
    moved = {name: axis for name, axis in axes.items() if axis != 0}
    return Split(inputs=found, labels=labels, kind="tokens" if rows else "images", axes=moved)


def laid_out(split: Split, shapes: Shapes, where: str) -> Split:
    """A split that has samples in front, with the axes that the graph wants them at.

    Raises:
        DataError: an array that does not fit its input.
    """
    if set(split.inputs) != set(shapes):
        raise DataError(
            f"{where}: the graph's inputs are {', '.join(shapes)}, the data has "
            f"{', '.join(split.inputs)}"
        )
    name = batch_name(shapes.values())
    axes: dict[str, int | None] = dict(split.axes)
    for one, shape in shapes.items():
        if one not in axes and shape is not None and name in shape and name is not None:
            axes[one] = shape.index(name)
        axis = axes.get(one, 0)
        values = split.inputs[one]
        given = values.shape[1:]
        wanted = shape if axis is None or shape is None else (*shape[:axis], *shape[axis + 1 :])
        if wanted is not None and not _fits(wanted, given):
            raise DataError(_misfit(f"{where}: {one}", shape, values, len(values)))
        check_values(values, f"{where}: {one}")
    return replace(
        split,
        inputs={one: _native(values) for one, values in split.inputs.items()},
        labels=None if split.labels is None else _native(split.labels),
        axes={one: axis for one, axis in axes.items() if axis != 0},
    )


def _native(values: np.ndarray) -> np.ndarray:
    """The values in this processor's order of bytes, which torch asks for."""
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _count(arrays: Arrays, shapes: Shapes, where: str) -> int:
    """Number of samples."""
    name = batch_name(shapes.values())
    for one, shape in shapes.items():
        axis = _declared(shape, name)
        if axis is not None and axis < arrays[one].ndim:
            return int(arrays[one].shape[axis])
    raise DataError(
        f"{where}: no input has an axis that counts samples (they are "
        f"{', '.join(f'{one} {list(shape or ())}' for one, shape in shapes.items()) or 'none'})"
    )


def _declared(shape: Shape, name: str | None) -> int | None:
    """The axis that an input's shape says counts samples."""
    if shape is None:
        return 0
    if name is not None:
        return shape.index(name) if name in shape else None
    return 0 if shape else None


def _in_front(
    values: np.ndarray, shape: Shape, name: str | None, count: int
) -> tuple[np.ndarray | None, int | None]:
    """An array with samples in front, and their axis in the graph; None where it does not fit."""
    if shape is None:
        return (values, 0) if values.ndim and len(values) == count else (None, 0)
    places = [shape.index(name)] if name in shape and name is not None else _free(shape, name)
    for axis in places:
        rest = (*shape[:axis], *shape[axis + 1 :])
        if values.ndim == len(shape) and values.shape[axis] == count:
            moved = np.moveaxis(values, axis, 0)
            return (moved if _fits(rest, moved.shape[1:]) else None), axis
    if name in shape:
        return None, 0
    return _shared(values, shape, count), None


def _free(shape: tuple[int | str | None, ...], name: str | None) -> list[int]:
    """Axes that may count samples where none has their name; all sizes fixed: the first."""
    free = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
    return free if name is not None or free else [0] if shape else []


def _shared(
    values: np.ndarray, shape: tuple[int | str | None, ...], count: int
) -> np.ndarray | None:
    """The value that all samples share, once a sample (in the memory of one)."""
    if _fits(shape, values.shape):
        return np.broadcast_to(values, (count, *values.shape))
    if values.ndim and len(values) == count:
        one = values[0]
        if shape[:1] == (1,) and one.ndim == len(shape) - 1:
            one = one[None]
        equal = bool((values == values[:1]).all())
        if equal and _fits(shape, one.shape):
            return np.broadcast_to(one, (count, *one.shape))
    return None


def _fits(shape: tuple[int | str | None, ...], found: tuple[int, ...]) -> bool:
    return len(shape) == len(found) and all(
        not isinstance(size, int) or size == there
        for size, there in zip(shape, found, strict=True)
    )


def _misfit(where: str, shape: Shape, values: np.ndarray, count: int) -> str:
    return (
        f"{where}: the graph takes {shape}, the data has shape {values.shape} for {count} samples"
    )


def check_values(values: np.ndarray, where: str) -> None:
    """Raises `DataError` for what is no number. -inf is one: masks are made of it."""
    if values.dtype.kind not in "biuf":
        raise DataError(f"{where}: expected numbers, got {values.dtype}")
    if values.dtype.kind == "f" and (np.isnan(values).any() or np.isposinf(values).any()):
        raise DataError(f"{where}: contains NaN or Inf")
