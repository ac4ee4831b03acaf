"""The number of axes of a model's inputs, as the data show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dse.data.layout import Arrays
from dse.data.source import ZOO_PREFIX, archive
from dse.graph.onnx.rank import ANY
from dse.text.documents import SUFFIXES
from dse.zoo.split import Splits

IMAGES = 4
"""Axes of a batch of images."""
TOKENS = 2
"""Axes of a batch of tokens."""


def source_ranks(source: str, folder: Path = Path()) -> Mapping[str, int]:
    """The axes of inputs by name, or of any input, as far as a source shows them unread.

    A function is not called for it, and what is not there is no error here.

    Raises:
        DataError: an archive that cannot be read.
    """
    path = folder / source
    if source.startswith(ZOO_PREFIX):
        return {}
    if path.is_dir():
        return {ANY: IMAGES}
    if path.suffix in (".npy", *SUFFIXES):
        return {ANY: TOKENS}
    if path.suffix == ".npz" and path.is_file():
        return {name: values.ndim for name, values in archive(path).items()}
    return {}


def given_ranks(given: Splits | Arrays) -> Mapping[str, int]:
    """The axes of inputs by name, as arrays of a program have them.

    Args:
        given: arrays as the graph takes them, or splits, which have samples in front.
    """
    inputs = given.report.inputs if isinstance(given, Splits) else given
    return {name: values.ndim for name, values in inputs.items()}
