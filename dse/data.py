"""Calibration, search and report splits: three disjoint parts of whatever source a user has.

A source is a zoo name, an `.npz`, a token file, a folder of images or a user's function. Samples
are dealt in a fixed order, so that the same source gives the same splits in every process.
"""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dse import zoo
from dse.errors import DataError, nearest
from dse.zoo.split import Split, Splits

ZOO_PREFIX = "zoo:"
DEFAULT_PIXELS = 224
"""Height and width of images for a graph that leaves them open: ImageNet's."""
SPLIT_NAMES = ("calibration", "search", "report")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How many samples each split has."""

    calibration: int
    search: int
    report: int

    @property
    def total(self) -> int:
        """Samples needed of a source."""
        return self.calibration + self.search + self.report


def load_splits(
    source: str,
    sizes: Sizes,
    *,
    sequence: int,
    inputs: Mapping[str, tuple[int | str | None, ...]],
    folder: Path = Path(),
) -> Splits:
    """The three splits of a source.

    Args:
        source: see the module.
        sizes: samples a split.
        sequence: tokens of one sample, where the source is text.
        inputs: shape of every graph input: what arrays must be there, and what fits them.
        folder: what relative paths are relative to.

    Raises:
        DataError: no such source, wrong names or shapes, too few samples, NaN.
    """
    if source.startswith(ZOO_PREFIX):
        splits = _from_zoo(source.removeprefix(ZOO_PREFIX), sizes, sequence)
    else:
        pool = _read(source, sizes, sequence, inputs, folder)
        splits = deal(pool, sizes, origin=source)
    _check_inputs(splits, inputs, source)
    return splits


def deal(pool: Split, sizes: Sizes, *, origin: str) -> Splits:
    """Three disjoint parts of a pool, each spread over the whole of it.

    Raises:
        DataError: the pool has fewer samples than the parts need together.
    """
    count = len(next(iter(pool.inputs.values())))
    if count < sizes.total:
        raise DataError(
            f"{origin}: has {count} samples, but calibration {sizes.calibration} + search "
            f"{sizes.search} + report {sizes.report} need {sizes.total}; give more samples or "
            "lower data.calibration, data.search or data.report"
        )
    order = np.random.default_rng(0).permutation(count)
    edges = np.cumsum([sizes.calibration, sizes.search, sizes.report])
    parts = np.split(order[: edges[-1]], edges[:-1])
    taken = [_take(pool, np.sort(part)) for part in parts]
    return Splits(calibration=taken[0], search=taken[1], report=taken[2])


def _take(split: Split, rows: np.ndarray) -> Split:
    return Split(
        inputs={name: values[rows] for name, values in split.inputs.items()},
        labels=None if split.labels is None else split.labels[rows],
        kind=split.kind,
    )


def _from_zoo(name: str, sizes: Sizes, sequence: int) -> Splits:
    limits = {part: getattr(sizes, part) for part in SPLIT_NAMES}
    splits = zoo.splits(name, limits=limits, sequence=sequence)
    for part, limit in limits.items():
        available = len(next(iter(getattr(splits, part).inputs.values())))
        if available < limit:
            raise DataError(
                f"zoo:{name}: the {part} split has {available} samples of this length, "
                f"data.{part} asks for {limit}"
            )
    return splits


def _read(
    source: str,
    sizes: Sizes,
    sequence: int,
    inputs: Mapping[str, tuple[int | str | None, ...]],
    folder: Path,
) -> Split:
    path = folder / source
    if path.is_dir():
        return _image_folder(path, inputs, sizes.total)
    if path.suffix == ".npz":
        return _npz(path, inputs)
    if path.suffix in (".npy", ".txt"):
        return _tokens(path, inputs, sequence)
    if ":" in source:
        return _function(source)
    if path.exists():
        raise DataError(f"{source}: expected .npz, .npy, .txt, a folder or module:function")
    known = [f"{ZOO_PREFIX}{name}" for name in zoo.CATALOGUE]
    raise DataError(
        f"{source}: no such data{nearest(source, known)}; expected a zoo name, an .npz, a token "
        "file (.npy, .txt), a folder of images by class, or module:function"
    )


def _npz(path: Path, inputs: Mapping[str, tuple[int | str | None, ...]]) -> Split:
    try:
        with _existing(path).open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as an .npz of plain arrays: {error}") from error
    missing = [name for name in inputs if name not in arrays]
    if missing:
        hints = "".join(nearest(name, arrays) for name in missing)
        raise DataError(
            f"{path}: expected arrays named as the graph's inputs ({', '.join(inputs)}) plus "
            f"labels, got {', '.join(arrays) or 'nothing'}; missing {', '.join(missing)}{hints}"
        )
    labels = arrays.get("labels")
    return pool({name: arrays[name] for name in inputs}, labels)


def _tokens(
    path: Path, inputs: Mapping[str, tuple[int | str | None, ...]], sequence: int
) -> Split:
    """Consecutive windows; labels are the next tokens. Text is read as UTF-8 bytes."""
    _existing(path)
    if path.suffix == ".txt":
        tokens = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    else:
        tokens = np.load(path, allow_pickle=False)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise DataError(
            f"{path}: expected one axis of integer tokens, got {tokens.dtype} {tokens.shape}"
        )
    integer_inputs = [name for name, shape in inputs.items() if len(shape) == 2]
    if len(inputs) != 1 or not integer_inputs:
        raise DataError(
            f"{path}: a token file feeds a graph with one input of shape (batch, sequence), this "
            f"one has {', '.join(inputs)}; use an .npz with an array for each"
        )
    windows = (len(tokens) - 1) // sequence
    if windows < 1:
        raise DataError(f"{path}: {len(tokens)} tokens are fewer than one sample of {sequence}")
    cut = tokens[: windows * sequence + 1].astype(np.int64)
    return Split(
        inputs={integer_inputs[0]: cut[:-1].reshape(windows, sequence)},
        labels=cut[1:].reshape(windows, sequence),
        kind="tokens",
    )


def _image_folder(
    path: Path, inputs: Mapping[str, tuple[int | str | None, ...]], limit: int
) -> Split:
    shapes = [(name, shape) for name, shape in inputs.items() if len(shape) == 4]
    if len(inputs) != 1 or not shapes:
        raise DataError(
            f"{path}: a folder of images feeds a graph with one input of shape (batch, channels, "
            f"height, width), this one has {', '.join(inputs)}"
        )
    name, (_, channels, height, width) = shapes[0]
    images, labels = zoo.read_image_folder(
        path,
        channels=channels if isinstance(channels, int) else 3,
        size=(_pixels(height), _pixels(width)),
        limit=limit,
    )
    return Split(inputs={name: images}, labels=labels, kind="images")


def _pixels(dim: int | str | None) -> int:
    return dim if isinstance(dim, int) else DEFAULT_PIXELS


def _function(source: str) -> Split:
    """A user's function, called without arguments: a mapping of arrays, or a `Split`."""
    module_name, _, name = source.partition(":")
    try:
        function: Callable[[], object] = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise DataError(f"{source}: {error}; expected an importable module:function") from error
    result = function()
    if isinstance(result, Split):
        return result
    if not isinstance(result, Mapping):
        raise DataError(
            f"{source}: expected a mapping of arrays named as the graph's inputs plus labels, "
            f"got {type(result).__name__}"
        )
    arrays = {key: np.asarray(value) for key, value in result.items()}
    labels = arrays.pop("labels", None)
    return pool(arrays, labels)


def pool(inputs: Mapping[str, np.ndarray], labels: np.ndarray | None) -> Split:
    """Samples of any origin: rows of integers are tokens; one a sample may be a time step."""
    rows = any(array.dtype.kind in "iu" and array.ndim > 1 for array in inputs.values())
    return Split(inputs=inputs, labels=labels, kind="tokens" if rows else "images")


def _existing(path: Path) -> Path:
    if not path.is_file():
        siblings = [str(found) for found in path.parent.glob(f"*{path.suffix}")]
        raise DataError(f"{path}: no such file{nearest(str(path), siblings)}")
    return path


def _check_inputs(
    splits: Splits, inputs: Mapping[str, tuple[int | str | None, ...]], source: str
) -> None:
    for part in SPLIT_NAMES:
        given = getattr(splits, part).inputs
        if set(given) != set(inputs):
            raise DataError(
                f"{source}: the graph's inputs are {', '.join(inputs)}, the data has "
                f"{', '.join(given)}"
            )
        for name, expected in inputs.items():
            _check_array(given[name], expected, f"{source}: {part}: {name}")


def _check_array(values: np.ndarray, expected: tuple[int | str | None, ...], where: str) -> None:
    fits = values.ndim == len(expected) and all(
        not isinstance(dim, int) or dim == size
        for dim, size in zip(expected[1:], values.shape[1:], strict=True)
    )
    if not fits:
        raise DataError(f"{where}: the graph takes {expected}, the data has shape {values.shape}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError(f"{where}: contains NaN or Inf")
