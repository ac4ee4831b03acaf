"""Codebooks: element grids that are lists of numbers."""

from __future__ import annotations

from itertools import pairwise
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from hwmodels.formats.quantizer import Encoding

BITSANDBYTES = "bitsandbytes 0.50, functional.py"
KBIT = "The case for 4-bit precision, arXiv 2212.09720, section 2"
ALONE = "no second implementation"
NF4_CODES = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip
"""QLoRA, arXiv 2305.14314, appendix E."""
FP4_MAGNITUDES = (0.0, 0.0625, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
"""The FP4 of bitsandbytes (`get_4bit_type`) before it divides by the largest."""


def codebook(name: str, bits: int, codes: tuple[float, ...], source: str) -> Encoding:
    """An encoding of listed values."""
    return Encoding(
        name=name,
        kind="codebook",
        bits=bits,
        signed=min(codes) < 0,
        codes=tuple(sorted(codes)),
        source=source,
    )


def dynamic_codes(bits: int, *, signed: bool) -> tuple[float, ...]:
    """Values of the dynamic tree data type, largest 1.

    For each exponent 10^(i - n), midpoints of an even division of [0.1, 1] into as many parts as
    the remaining bits can tell apart; then 0 and 1. In float32 steps, so that the values are those
    of the tables in use.

    Source: 8-bit Optimizers via Block-wise Quantization, arXiv 2110.02861, section 2.1, as in
    bitsandbytes `create_dynamic_map`.
    """
    codes = [0.0, 1.0]
    for i in range(bits - 1):
        borders = _division(2**i if signed else 2 ** (i + 1))
        means = (borders[:-1] + borders[1:]) / np.float32(2)
        scaled = (np.float32(10.0 ** (i - bits + 2)) * means).tolist()
        codes += [*scaled, *(-value for value in scaled)] if signed else scaled
    return tuple(codes)


def _division(parts: int) -> npt.NDArray[np.float32]:
    """[0.1, 1] in even parts: a float32 step from both ends, each border rounded once."""
    low = float(np.float32(0.1))
    step = float((np.float32(1) - np.float32(0.1)) / np.float32(parts))
    half = (parts + 1) // 2
    borders = [low + step * i if i < half else 1.0 - step * (parts - i) for i in range(parts + 1)]
    return np.array(borders, np.float32)


def quantile_codes(bits: int) -> tuple[float, ...]:
    """Midpoints between neighbouring quantiles of the normal distribution, largest 1.

    Source: The case for 4-bit precision, arXiv 2212.09720, section 2 (quantile quantization), for
    a standard normal in place of the empirical distribution; 0 replaces the value nearest to it.
    """
    count = 2**bits
    normal = NormalDist()
    quantiles = [normal.inv_cdf(i / (count + 1)) for i in range(1, count + 1)]
    codes = [(a + b) / 2 for a, b in pairwise(quantiles)]
    largest = max(abs(code) for code in codes)
    return tuple(sorted({0.0, *(code / largest for code in codes)}))


def fp4_codes() -> tuple[float, ...]:
    """The FP4 of bitsandbytes, largest 1."""
    magnitudes = [value / max(FP4_MAGNITUDES) for value in FP4_MAGNITUDES]
    return tuple({*magnitudes, *(-value for value in magnitudes)})


TERNARY = "Ternary Weight Networks, arXiv 1605.04711, equation 3"

IQ4_NL_CODES = (
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0,
    1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0,
)  # fmt: skip
"""`kvalues_iq4nl` in llama.cpp's ggml-common.h."""

CODEBOOKS = (
    codebook("nf4", 4, NF4_CODES, "QLoRA, arXiv 2305.14314, appendix E (NF4)"),
    codebook("fp4_bnb", 4, fp4_codes(), f"{BITSANDBYTES}, get_4bit_type"),
    codebook("dynamic8", 8, dynamic_codes(8, signed=True), "arXiv 2110.02861, section 2.1"),
    codebook("udynamic8", 8, dynamic_codes(8, signed=False), "arXiv 2110.02861, section 2.1"),
    *(
        codebook(f"quantile{bits}", bits, quantile_codes(bits), f"{KBIT} (quantile); {ALONE}")
        for bits in range(2, 9)
    ),
    *(
        codebook(f"dynexp{bits}", bits, dynamic_codes(bits, signed=True), f"{KBIT} (dynexp)")
        for bits in range(3, 8)
    ),
    codebook("binary", 1, (-1.0, 1.0), "BinaryConnect, arXiv 1511.00363, equation 1"),
    codebook("iq4_nl_element", 4, IQ4_NL_CODES, "llama.cpp, ggml-common.h (kvalues_iq4nl)"),
    codebook("ternary", 2, (-1.0, 0.0, 1.0), TERNARY),
)  # fmt: skip
