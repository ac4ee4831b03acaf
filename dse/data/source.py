"""Sources of samples: arrays, token files, folders of images, a user's function."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from dse import zoo
from dse.data.layout import Shapes, check_values, pooled
from dse.errors import DataError, nearest
from dse.files import is_there
from dse.plugins import code_file, named_object
from dse.text.documents import SUFFIXES
from dse.text.reader import TextReader
from dse.zoo.split import Split
from hwmodels.errors import PluginError

ZOO_PREFIX = "zoo:"
DEFAULT_PIXELS = 224
"""Height and width of images for a graph that leaves them open: ImageNet's."""
BYTES = 256
"""Vocabulary of a model whose tokens are bytes."""
COLOURS = (1, 3)
"""Channels that a picture can have."""
UNREADABLE = (ValueError, OSError, zipfile.BadZipFile, NotImplementedError, EOFError, KeyError)
"""Errors of numpy and zipfile about a file that is none of theirs."""

ARRAYS = (".npz", ".npy")


def check_source(source: str, folder: Path = Path()) -> None:
    """Raises `DataError` for a source that no model could use, before a model is loaded."""
    if source.startswith(ZOO_PREFIX):
        zoo.resolve(source.removeprefix(ZOO_PREFIX))
        return
    path = folder / source
    if is_there(path) and path.is_dir():
        return
    _check_known(source, path)
    code_of(source, folder)
    if path.suffix == ".npz":
        for name, values in archive(path).items():
            check_values(values, f"{path}: {name}")
    elif path.suffix in (".npy", *SUFFIXES):
        _existing(path)


def is_code(source: str, folder: Path) -> bool:
    """Whether a source is a function that is called."""
    path = folder / source
    plain = source.startswith(ZOO_PREFIX) or path.suffix in (*ARRAYS, *SUFFIXES)
    return not plain and ":" in source and not is_there(path)


def code_of(source: str, folder: Path) -> Path | None:
    """The file that `module:function` runs; None for an installed module, or another source.

    Raises:
        DataError: neither an installed module nor a file in the folder.
    """
    if not is_code(source, folder):
        return None
    try:
        return code_file(source, folder)
    except PluginError as error:
        raise DataError(str(error)) from error


def read_pool(
    source: str,
    limit: int,
    sequence: int,
    inputs: Shapes,
    folder: Path,
    *,
    vocabulary: int | None = None,
    text: TextReader | None = None,
) -> Split:
    """All samples of a source (of images at most `limit`), see `load_splits`."""
    path = folder / source
    if path.is_dir():
        return _image_folder(path, inputs, limit)
    if path.suffix == ".npz":
        return pooled(archive(path), inputs, str(path))
    if text is not None and path.suffix in SUFFIXES:
        return text.read(path, samples=limit, sequence=sequence, inputs=inputs)
    if path.suffix in SUFFIXES:
        return _windows(path, _bytes(path, vocabulary), inputs, sequence, vocabulary)
    if path.suffix == ".npy":
        return _windows(path, _token_ids(path), inputs, sequence, vocabulary)
    _check_known(source, path)
    return _function(source, inputs, folder)


def _check_known(source: str, path: Path) -> None:
    if path.suffix in (*ARRAYS, *SUFFIXES) or ":" in source:
        return
    if is_there(path):
        raise DataError(
            f"{source}: expected .npz, .npy, {', '.join(SUFFIXES)}, a folder or module:function"
        )
    known = [f"{ZOO_PREFIX}{name}" for name in zoo.CATALOGUE]
    raise DataError(
        f"{source}: no such data{nearest(source, known)}; expected a zoo name, an .npz, tokens "
        "(.npy), text (.txt, .jsonl, .parquet), a folder of images by class, or module:function"
    )


def archive(path: Path) -> Mapping[str, np.ndarray]:
    """The arrays of an `.npz`, by name.

    Raises:
        DataError: no such file, or one that cannot be read.
    """
    stat = _existing(path).stat()
    return _read_arrays(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1)
def _read_arrays(path: Path, _changed_ns: int, _size: int) -> Mapping[str, np.ndarray]:
    """The arrays of an archive; kept, as they are checked before the model is loaded."""
    if not zipfile.is_zipfile(path):
        raise DataError(
            f"{path}: cannot be read as an .npz, the archive that numpy.savez writes: it is "
            "something else, or cut off"
        )
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (*UNREADABLE, AttributeError, zipfile.LargeZipFile) as error:
        raise DataError(f"{path}: cannot be read as an .npz of plain arrays: {error}") from error


def _bytes(path: Path, vocabulary: int | None) -> np.ndarray:
    """The bytes of a text in UTF-8: its tokens, for a model without a tokenizer.

    Raises:
        DataError: a vocabulary that is not bytes, or documents of JSONL or parquet.
    """
    content = _existing(path).read_bytes()
    if vocabulary not in (None, BYTES) or path.suffix != ".txt":
        raise DataError(
            f"{path}: the model came without a tokenizer, so text cannot be read for its "
            f"vocabulary{f' of {vocabulary} entries' if vocabulary else ''}; import it from its "
            "Hugging Face folder, or give token ids as an .npy file (one axis of integers), made "
            "with the model's own tokenizer"
        )
    return np.frombuffer(content, dtype=np.uint8)


def _token_ids(path: Path) -> np.ndarray:
    try:
        tokens = np.load(_existing(path), allow_pickle=False)
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as an array of tokens: {error}") from error
    if not isinstance(tokens, np.ndarray) or tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        found = (
            f"{tokens.dtype} {tokens.shape}" if isinstance(tokens, np.ndarray) else "an archive"
        )
        raise DataError(f"{path}: expected one axis of integer tokens, got {found}")
    return tokens


def _windows(
    path: Path, tokens: np.ndarray, inputs: Shapes, sequence: int, vocabulary: int | None
) -> Split:
    """Consecutive windows; labels are the next tokens."""
    integer_inputs = [name for name, shape in inputs.items() if shape and len(shape) == 2]
    if len(inputs) != 1 or not integer_inputs:
        raise DataError(
            f"{path}: a token file feeds a graph with one input of shape (batch, sequence), this "
            f"one has {', '.join(inputs)}; use an .npz with an array for each"
        )
    windows = (len(tokens) - 1) // sequence
    if windows < 1:
        raise DataError(f"{path}: {len(tokens)} tokens are fewer than one sample of {sequence}")
    cut = tokens[: windows * sequence + 1].astype(np.int64)
    if vocabulary is not None and not 0 <= cut.min() <= cut.max() < vocabulary:
        raise DataError(
            f"{path}: tokens run from {cut.min()} to {cut.max()}, the model's vocabulary has "
            f"{vocabulary} entries: they are of another tokenizer"
        )
    return Split(
        inputs={integer_inputs[0]: cut[:-1].reshape(windows, sequence)},
        labels=cut[1:].reshape(windows, sequence),
        kind="tokens",
    )


def _image_folder(path: Path, inputs: Shapes, limit: int) -> Split:
    shapes = [(name, shape) for name, shape in inputs.items() if shape and len(shape) == 4]
    if len(inputs) != 1 or not shapes:
        raise DataError(
            f"{path}: a folder of images feeds a graph with one input of shape (batch, channels, "
            f"height, width) or (batch, height, width, channels), this one has "
            f"{', '.join(inputs)}"
        )
    name, shape = shapes[0]
    last = shape[1] not in COLOURS and shape[3] in COLOURS
    channels, height, width = (shape[3], *shape[1:3]) if last else shape[1:]
    if isinstance(channels, int) and channels not in COLOURS:
        raise DataError(
            f"{path}: pictures have 1 or 3 channels, input {name} takes {list(shape)}: neither "
            "its second axis nor its last one has"
        )
    images, labels = zoo.read_image_folder(
        path,
        channels=channels if isinstance(channels, int) else 3,
        size=(_pixels(height), _pixels(width)),
        limit=limit,
    )
    if last:
        images = np.ascontiguousarray(np.moveaxis(images, 1, -1))
    return Split(inputs={name: images}, labels=labels, kind="images")


def _pixels(dim: int | str | None) -> int:
    return dim if isinstance(dim, int) else DEFAULT_PIXELS


def _function(source: str, inputs: Shapes, folder: Path) -> Split:
    """A user's function, called without arguments: a mapping of arrays, or a `Split`."""
    try:
        function = named_object(source, folder)
    except PluginError as error:
        raise DataError(str(error)) from error
    if not callable(function):
        raise DataError(f"{source}: expected a function, got {type(function).__name__}")
    try:
        result = function()
    except (Exception, SystemExit) as error:  # a user's function may raise anything
        raise DataError(
            f"{source}: {type(error).__name__}: {error}; it is called without arguments and "
            "returns a mapping of arrays"
        ) from error
    if isinstance(result, Split):
        return result
    if not isinstance(result, Mapping):
        raise DataError(
            f"{source}: expected a mapping of arrays named as the graph's inputs plus labels, "
            f"got {type(result).__name__}"
        )
    arrays = {key: np.asarray(value) for key, value in result.items()}
    return pooled(arrays, inputs, source)


def _existing(path: Path) -> Path:
    if not path.is_file():
        siblings = [str(found) for found in path.parent.glob(f"*{path.suffix}")]
        raise DataError(f"{path}: no such file{nearest(str(path), siblings)}")
    return path
