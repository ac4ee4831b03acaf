"""The data that comes with a zoo model, in three disjoint splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy
from numpy.typing import NDArray

from dse.zoo import held_out
from dse.zoo.catalogue import FOLDER, resolve
from dse.zoo.errors import ZooError
from dse.zoo.images import normalised
from dse.zoo.split import Split, Splits

IMAGES_FILE = FOLDER / "fashion-resnet" / "images.npz"
# The longest window that byte-gpt was trained on.
LONGEST_SEQUENCE = 512
NO_LIMITS: Mapping[str, int] = {}


def splits(name: str, *, limits: Mapping[str, int] = NO_LIMITS, sequence: int = 256) -> Splits:
    """Calibration, search and report data of a zoo model, the same in every process.

    Args:
        name: a model of the catalogue.
        limits: at most so many samples (windows of text or images) by split name; the samples
            that remain are spread evenly over the whole split.
        sequence: tokens of a window of text.

    Raises:
        ZooError: no such model, or one without data of its own.
    """
    readers: Mapping[str, Callable[[str], Split]] = {
        "byte-gpt": lambda split: windows(held_out.SPLITS[split], sequence),
        "fashion-resnet": fashion,
    }
    model = resolve(name)
    if name not in readers:
        reason = "has no weights" if model.kind == "shape" else "comes without data"
        raise ZooError(
            f"{name} {reason}, so it has no splits; give a token file, an .npz with arrays named "
            f"as its inputs, or a folder of images; with data: {', '.join(readers)}"
        )
    parts = {split: limited(readers[name](split), limits.get(split)) for split in held_out.SPLITS}
    return Splits(**parts)


def windows(split: held_out.HeldOut, sequence: int) -> Split:
    """Windows of the held-out texts, side by side; labels are the next bytes.

    tokens and labels: (windows, sequence) int64. What is left at the end of a text is dropped.

    Raises:
        ZooError: a sequence outside 1..512, or a Python without its library's source.
    """
    if not 1 <= sequence <= LONGEST_SEQUENCE:
        raise ZooError(f"byte-gpt: expected a sequence of 1..{LONGEST_SEQUENCE}, got {sequence}")
    inputs: list[NDArray[numpy.int64]] = []
    labels: list[NDArray[numpy.int64]] = []
    for text in held_out.texts(split).values():
        data = numpy.frombuffer(text, numpy.uint8).astype(numpy.int64)
        count = (len(data) - 1) // sequence
        inputs.append(data[: count * sequence].reshape(count, sequence))
        labels.append(data[1 : count * sequence + 1].reshape(count, sequence))
    if not inputs:
        raise ZooError(
            "byte-gpt: its data is the source text of Python's standard library, which this "
            "Python does not have; give a token file instead"
        )
    return Split(
        inputs={"tokens": numpy.concatenate(inputs)},
        labels=numpy.concatenate(labels),
        kind="tokens",
    )


def fashion(split: str) -> Split:
    """Fashion-MNIST images (n, 1, 28, 28) float32, normalised, and their classes (n) int64."""
    with numpy.load(IMAGES_FILE, allow_pickle=False) as archive:
        pixels, labels = archive[f"{split}_images"], archive[f"{split}_labels"]
    return Split(
        inputs={"image": normalised(pixels)}, labels=labels.astype(numpy.int64), kind="images"
    )


def limited(split: Split, limit: int | None) -> Split:
    """At most `limit` samples, spread evenly over the split."""
    count = len(next(iter(split.inputs.values())))
    if limit is None or limit >= count:
        return split
    rows = numpy.arange(limit) * count // max(limit, 1)
    return Split(
        inputs={name: values[rows] for name, values in split.inputs.items()},
        labels=None if split.labels is None else split.labels[rows],
        kind=split.kind,
    )
