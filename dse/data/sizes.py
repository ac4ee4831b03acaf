"""Sizes that a model leaves open and its data show: what one sample looks like."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dse.data.layout import Shape, samples_first
from dse.data.source import COLOURS, DEFAULT_PIXELS, archive

Shapes = Mapping[str, tuple[int | str, ...]]
IMAGE_AXES = 4


def source_sizes(
    source: str, folder: Path, shapes: Shapes, taken: Mapping[str, Shape]
) -> dict[str, int]:
    """The open sizes of inputs that do not count samples, by name, as far as a source shows them.

    Args:
        source: of data; only archives and folders of images are looked at.
        folder: what its path is relative to.
        shapes: of the graph's inputs, where sizes without a name are called `<input>.<axis>`.
        taken: the same as data are read by them (`graph_shapes`).

    Raises:
        DataError: an archive that cannot be read, or that does not fit the model.
    """
    path = folder / source
    if path.is_dir():
        return {name: DEFAULT_PIXELS for shape in shapes.values() for name in _pixels(shape)}
    if path.suffix != ".npz" or not path.is_file():
        return {}
    arrays = archive(path)
    if not all(value in arrays for value in shapes):
        return {}
    axes = samples_first(arrays, None, taken, str(path)).axes
    return {
        name: arrays[value].shape[axis]
        for value, shape in shapes.items()
        for axis, name in enumerate(shape)
        if isinstance(name, str) and axis != axes.get(value, 0)
    }


def _pixels(shape: tuple[int | str, ...]) -> tuple[str, ...]:
    """The open sizes of a picture that are its height and width."""
    if len(shape) != IMAGE_AXES:
        return ()
    last = shape[1] not in COLOURS and shape[3] in COLOURS
    return tuple(size for size in (shape[1:3] if last else shape[2:]) if isinstance(size, str))
