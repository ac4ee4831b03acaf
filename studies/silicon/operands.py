"""The operands of the measured products: the same on every machine and in every version."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dse.numerics import quantize
from hwmodels.formats.catalog import quantizer

Distribution = Literal["normal", "positive", "outliers"]
ROWS, COLUMNS = 8, 32
"""Outputs that are kept of each product: its first rows and columns."""
SPREAD = 64.0
"""Standard deviation of the normal operands, which uses the upper half of e4m3's range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One measured matrix product: sizes, what fills it, and how it is summed."""

    kernel: str
    rows: int
    columns: int
    depth: int
    distribution: Distribution
    seed: int

    @property
    def key(self) -> str:
        """Name of its outputs in the recorded file."""
        sizes = f"{self.rows}x{self.columns}x{self.depth}"
        return f"{self.kernel}/{sizes}/{self.distribution}/{self.seed}"


def product_of(key: str) -> Product:
    """The inverse of `Product.key`."""
    kernel, sizes, distribution, seed = key.split("/")
    rows, columns, depth = (int(size) for size in sizes.split("x"))
    return Product(
        kernel=kernel, rows=rows, columns=columns, depth=depth,
        distribution=distribution, seed=int(seed),  # type: ignore[arg-type]
    )  # fmt: skip


def operands(product: Product, left: str, right: str) -> tuple[Tensor, Tensor]:
    """(ROWS, depth) and (COLUMNS, depth) float32 values on the grids of two quantizers."""
    a = _values(product, ROWS, "left")
    b = _values(product, COLUMNS, "right")
    return quantize(a, quantizer(left), axes=(1,)), quantize(b, quantizer(right), axes=(1,))


def _values(product: Product, slices: int, side: str) -> Tensor:
    # RandomState's streams never change between numpy versions; Generator's may.
    seed = zlib.crc32(f"{product.depth}/{product.distribution}/{product.seed}/{side}".encode())
    stream = np.random.RandomState(seed)
    found: npt.NDArray[np.float64] = stream.standard_normal((slices, product.depth)) * SPREAD
    if product.distribution == "positive":
        found = np.abs(found)
    elif product.distribution == "outliers":
        # One channel in 32 is 16 times larger, as activations of large language models have it.
        found[:, ::32] *= 16 / 4
        found /= 4
    return torch.from_numpy(found.astype(np.float32))
