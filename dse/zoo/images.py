"""Fashion-MNIST pixels as fashion-resnet wants them."""

from __future__ import annotations

import numpy
from numpy.typing import NDArray

# Mean and standard deviation of the 60,000 training images, pixels in 0..1.
PIXEL_MEAN = 0.2860
PIXEL_DEVIATION = 0.3530


def normalised(pixels: NDArray[numpy.generic]) -> NDArray[numpy.float32]:
    """Zero-mean, unit-deviation images from 0..255 pixels.

    pixels: (n, height, width) gives (n, 1, height, width), other shapes stay as they are.
    """
    scaled = (pixels.astype(numpy.float32) / 255 - PIXEL_MEAN) / PIXEL_DEVIATION
    images = scaled[:, None] if scaled.ndim == 3 else scaled
    return images.astype(numpy.float32)
