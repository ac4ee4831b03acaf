"""A user's folder of labelled images, as networks trained on ImageNet want them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from dse.zoo.errors import ZooError

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})
# What EfficientNet-Lite was trained with (its authors' efficientnet_lite_builder.py).
PIXEL_MEAN = 127.0
PIXEL_DEVIATION = 128.0
# The usual evaluation crop: the middle 87.5 % of the shorter side.
CROP = 0.875


def read_image_folder(
    folder: Path,
    *,
    channels: int = 3,
    size: tuple[int, int] = (224, 224),
    limit: int | None = None,
    mean: float = PIXEL_MEAN,
    deviation: float = PIXEL_DEVIATION,
) -> tuple[NDArray[numpy.float32], NDArray[numpy.int64]]:
    """Images (n, channels, height, width), normalised, and their classes (n).

    The folder has one sub-folder a class. A class is the sub-folder's name where all names are
    numbers, else its place in the sorted list. Images are resized, cropped in the middle, and
    scaled to (pixel - mean) / deviation. A limit keeps images spread evenly over the folder.

    Raises:
        ZooError: Pillow is missing, or the folder has no images.
    """
    try:
        # Optional (extra `[zoo]`), and only this function reads pictures.
        from PIL import Image  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415
    except ImportError as error:
        raise ZooError("reading images needs Pillow: pip install 'dse[zoo]'") from error
    classes = sorted(child for child in folder.iterdir() if child.is_dir())
    numbered = bool(classes) and all(child.name.isdecimal() for child in classes)
    found = [
        (path, int(child.name) if numbered else index)
        for index, child in enumerate(classes)
        for path in sorted(child.iterdir())
        if path.suffix.lower() in SUFFIXES
    ]
    if not found:
        raise ZooError(
            f"{folder}: expected one sub-folder a class with {', '.join(sorted(SUFFIXES))} files, "
            "found no image"
        )
    if limit is not None and limit < len(found):
        found = [found[index * len(found) // limit] for index in range(limit)]
    images = numpy.empty((len(found), channels, *size), dtype=numpy.float32)
    for row, (path, _) in enumerate(found):
        with Image.open(path) as opened:
            pixels = _cropped(opened.convert("L" if channels == 1 else "RGB"), size)
        images[row] = (pixels - mean) / deviation
    return images, numpy.array([label for _, label in found], dtype=numpy.int64)


def _cropped(image: Any, size: tuple[int, int]) -> NDArray[numpy.float32]:
    """Pixels (channels, height, width) of the middle of an image."""
    height, width = size
    scale = max(height / image.height, width / image.width) / CROP
    resized = image.resize((round(image.width * scale), round(image.height * scale)), resample=3)
    left, top = (resized.width - width) // 2, (resized.height - height) // 2
    pixels = numpy.asarray(resized.crop((left, top, left + width, top + height)), numpy.float32)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
