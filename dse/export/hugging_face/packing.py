"""Codes as the bytes of a checkpoint; a row's first element lies in the lowest bits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

WORD = 32


def float4_pairs(codes: npt.NDArray[np.generic]) -> Tensor:
    """E2M1 codes (rows, depth), two a byte: (rows, depth / 2) uint8."""
    bits = codes.view(np.uint8) & 0xF
    return torch.from_numpy(np.ascontiguousarray(bits[:, 0::2] | bits[:, 1::2] << 4))


def float6_quads(codes: npt.NDArray[np.generic]) -> Tensor:
    """E2M3 codes (rows, depth), four in three bytes: (rows, 3 * depth / 4) uint8."""
    bits = (codes.view(np.uint8) & 0x3F).astype(np.uint32).reshape(len(codes), -1, 4)
    word = bits[..., 0] | bits[..., 1] << 6 | bits[..., 2] << 12 | bits[..., 3] << 18
    parts = np.stack([word, word >> 8, word >> 16], axis=-1) & 0xFF
    return torch.from_numpy(parts.astype(np.uint8).reshape(len(codes), -1))


def words(codes: npt.NDArray[np.generic], bits: int) -> Tensor:
    """Integers below 2^bits (rows, depth) without gaps: (rows, ceil(depth * bits / 32)) int32.

    An element may begin in one word and end in the next.
    """
    stream = np.unpackbits(
        codes.astype(np.uint8)[:, :, None], axis=2, count=bits, bitorder="little"
    ).reshape(len(codes), -1)
    padded = np.pad(stream, ((0, 0), (0, -stream.shape[1] % WORD)))
    packed = np.packbits(padded, axis=1, bitorder="little")
    return torch.from_numpy(packed.view("<i4"))
