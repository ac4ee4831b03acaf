"""Codes as the bytes of GGUF's blocks; the layouts are those of llama.cpp's ggml-common.h.

A block type's packer takes codes (blocks, elements), whole numbers from 0, and what stands above
them, and gives (blocks, bytes).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_2, _3, _4, _6, _15 = (np.uint8(number) for number in (2, 3, 4, 6, 15))
"""Python's own would widen bytes in type checkers' eyes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Numbers that a packer packs."""

    codes: Bytes
    """(blocks, elements): place on the element's grid, from 0; of floats the bits."""
    scales: Floats
    """(blocks, groups): as they multiply, or codes of them where `above` has what multiplies."""
    offsets: Floats
    """(blocks, groups): as they are added, or codes as above."""
    above: Floats
    """(blocks, 1): what multiplies codes of scales."""
    offset_above: Floats
    """(blocks, 1): what multiplies codes of offsets, which are subtracted."""


def folded(codes: Bytes, width: int, bits: int) -> Bytes:
    """Codes of `bits` in bytes: what shares a byte lies `width` elements apart."""
    parts = codes.reshape(len(codes), -1, 8 // bits, width)
    shifts = np.arange(8 // bits, dtype=np.uint8)[:, None] * np.uint8(bits)
    found: Bytes = np.bitwise_or.reduce(parts << shifts, axis=2)
    return found.reshape(len(codes), -1)


def _half(values: Floats) -> Bytes:
    return np.ascontiguousarray(values.astype("<f2")).view(np.uint8)


def _joined(*parts: Bytes) -> Bytes:
    return np.concatenate(parts, axis=1)


def _q4_0(blocks: Blocks) -> Bytes:
    return _joined(_half(blocks.scales), folded(blocks.codes, 16, 4))


def _q4_1(blocks: Blocks) -> Bytes:
    return _joined(_half(blocks.scales), _half(blocks.offsets), folded(blocks.codes, 16, 4))


def _fifth_bits(codes: Bytes) -> Bytes:
    return np.packbits(codes >> _4, axis=1, bitorder="little")


def _q5_0(blocks: Blocks) -> Bytes:
    low = folded(blocks.codes & _15, 16, 4)
    return _joined(_half(blocks.scales), _fifth_bits(blocks.codes), low)


def _q5_1(blocks: Blocks) -> Bytes:
    above = _joined(_half(blocks.scales), _half(blocks.offsets))
    return _joined(above, _fifth_bits(blocks.codes), folded(blocks.codes & _15, 16, 4))


def _q8_0(blocks: Blocks) -> Bytes:
    return _joined(_half(blocks.scales), blocks.codes - np.uint8(128))


def _q2_k(blocks: Blocks) -> Bytes:
    scales = blocks.scales.astype(np.uint8) | blocks.offsets.astype(np.uint8) << _4
    above = _joined(_half(blocks.above), _half(blocks.offset_above))
    return _joined(scales, folded(blocks.codes, 32, 2), above)


def _q3_k(blocks: Blocks) -> Bytes:
    high, low = folded(blocks.codes >> _2, 32, 1), folded(blocks.codes & _3, 32, 2)
    scales = (blocks.scales + 32).astype(np.uint8)
    packed = _joined(folded(scales & _15, 8, 4), folded(scales >> _4, 4, 2))
    return _joined(high, low, packed, _half(blocks.above))


def _scales_and_offsets(blocks: Blocks) -> Bytes:
    """Eight scales and eight offsets of 6 bits in twelve bytes."""
    scales, offsets = blocks.scales.astype(np.uint8), blocks.offsets.astype(np.uint8)
    return _joined(
        scales[:, :4] | scales[:, 4:] >> _4 << _6,
        offsets[:, :4] | offsets[:, 4:] >> _4 << _6,
        scales[:, 4:] & _15 | (offsets[:, 4:] & _15) << _4,
    )


def _q4_k(blocks: Blocks) -> Bytes:
    above = _joined(_half(blocks.above), _half(blocks.offset_above))
    return _joined(above, _scales_and_offsets(blocks), folded(blocks.codes, 32, 4))


def _q5_k(blocks: Blocks) -> Bytes:
    above = _joined(_half(blocks.above), _half(blocks.offset_above))
    high, low = folded(blocks.codes >> _4, 32, 1), folded(blocks.codes & _15, 32, 4)
    return _joined(above, _scales_and_offsets(blocks), high, low)


def _q6_k(blocks: Blocks) -> Bytes:
    low, high = folded(blocks.codes & _15, 64, 4), folded(blocks.codes >> _4, 32, 2)
    scales = blocks.scales.astype(np.int8).view(np.uint8)
    return _joined(low, high, scales, _half(blocks.above))


def _iq4_xs(blocks: Blocks) -> Bytes:
    scales = (blocks.scales + 32).astype(np.uint8)
    high = np.bitwise_or.reduce(
        (scales >> 4).astype("<u2") << (2 * np.arange(8, dtype="<u2")), axis=1, keepdims=True
    )
    low = scales[:, 0::2] & _15 | (scales[:, 1::2] & _15) << _4
    return _joined(_half(blocks.above), high.view(np.uint8), low, folded(blocks.codes, 16, 4))


def _mxfp4(blocks: Blocks) -> Bytes:
    exponents = blocks.scales.astype(ml_dtypes.float8_e8m0fnu).view(np.uint8)
    return _joined(exponents, folded(blocks.codes, 16, 4))


def _nvfp4(blocks: Blocks) -> Bytes:
    scales = blocks.scales.astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    return _joined(scales, folded(blocks.codes, 8, 4))


PACKERS: dict[str, Callable[[Blocks], Bytes]] = {
    "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0,
    "Q2_K": _q2_k, "Q3_K": _q3_k, "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k,
    "IQ4_NL": _q4_0, "IQ4_XS": _iq4_xs, "MXFP4": _mxfp4, "NVFP4": _nvfp4,
}  # fmt: skip
"""By the name of the type in gguf-py."""
