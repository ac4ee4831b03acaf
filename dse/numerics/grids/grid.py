"""An encoding and a rounding mode as plain numbers that a kernel can follow.

Every kernel, compiled or eager, reads the same `Grid`: a format is data, never a kernel.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dse.numerics.grids.table import table_of
from hwmodels.formats.numbers import sorted_values
from hwmodels.formats.quantizer import Encoding, Rounding

FLOAT32_BIAS = 127
_NEAREST: dict[str, tuple[int, int]] = {
    # (fraction of a step, in 2^-32, from which on a value rounds away from zero; added if even)
    "nearest_even": (1 << 31, 1),
    "nearest_away": (1 << 31, 0),
    "nearest_zero": ((1 << 31) + 1, 0),
}


class Method(IntEnum):
    """The way in which a kernel reaches the grid."""

    IDENTITY = 0
    """Every float32 is on the grid."""
    MAGIC = 1
    """Nearest-even by adding and subtracting 1.5 * 2^(exponent + 23 - mantissa_bits)."""
    WIDE = 2
    """Nearest-even for float32's own exponent range, where the magic number would overflow."""
    GENERAL = 3
    """Any deterministic rounding of a float or an integer, in integer arithmetic."""
    TABLE = 4
    """Look-up: one comparison after the upper 16 bits have chosen the cell."""
    SEARCH = 5
    """Look-up with a bisection, for grids of more than one threshold in a cell."""
    STOCHASTIC = 6
    """GENERAL with random bits."""
    TABLE_STOCHASTIC = 7
    """Look-up of the lower neighbour, then random bits."""


class Grid(NamedTuple):
    """An encoding as a kernel needs it; exponents are biased as in float32."""

    method: np.int64
    mantissa_bits: np.int32
    lowest_exponent: np.int32
    """Binade below which the step no longer shrinks."""
    lowest_step: np.int32
    """Exponent of that last step."""
    positive_max: np.float32
    negative_max: np.float32
    positive_overflow: np.float32
    """The result of a finite value that rounds above `positive_max`."""
    negative_overflow: np.float32
    positive_infinity: np.float32
    """The result of +Inf."""
    negative_infinity: np.float32
    zero: np.float32
    """Added at the end: -0.0 keeps the sign of zero, +0.0 strips it."""
    threshold: np.uint32
    """Fraction of a step, in 2^-32, from which on a value rounds away from zero."""
    threshold_if_even: np.uint32
    """Added to it where the lower neighbour is even."""
    away_if_positive: np.uint32
    """0: positive values never round away from zero."""
    away_if_negative: np.uint32
    away_if_odd: np.uint32
    """0: a value whose lower neighbour is odd stays there (rounding to odd)."""
    random_bits: np.uint32
    """Stochastic rounding: 0 uses 32 bits; 33 flips a coin whatever the fraction."""


class Thresholds(NamedTuple):
    """A table's arrays for a kernel; of length one where the grid has no table.

    Apart from `Grid`, because arrays are reference counted, and counting inside a loop keeps the
    compiler from vectorising it.
    """

    lower: npt.NDArray[np.int32]
    """Number of thresholds at or below the first value of each cell."""
    upper: npt.NDArray[np.int32]
    """Number of thresholds at or below the last value of each cell."""
    thresholds: npt.NDArray[np.float32]
    values: npt.NDArray[np.float32]


_NO_TABLE = Thresholds(
    lower=np.zeros(1, np.int32),
    upper=np.zeros(1, np.int32),
    thresholds=np.zeros(1, np.float32),
    values=np.zeros(1, np.float32),
)


@lru_cache(maxsize=512)
def thresholds_of(encoding: Encoding, rounding: Rounding = "nearest_even") -> Thresholds:
    """The table of an encoding, or an empty one where the grid has a closed form."""
    if not is_tabled(encoding):
        return _NO_TABLE
    table = table_of(encoding, rounding)
    return Thresholds(table.lower, table.upper, table.thresholds, table.values)


def is_tabled(encoding: Encoding) -> bool:
    """Whether rounding is a look-up: everything but integers and floats with a mantissa."""
    if encoding.kind in ("int", "fixed"):
        return False
    return encoding.kind != "float" or encoding.mantissa_bits == 0


@lru_cache(maxsize=512)
def grid_of(encoding: Encoding, rounding: Rounding = "nearest_even", random_bits: int = 0) -> Grid:
    """The grid of an encoding under a rounding mode.

    `random_bits` counts for stochastic rounding only.
    """
    tabled = is_tabled(encoding)
    stochastic = rounding.startswith("stochastic")
    mantissa, exponent, step = _steps(encoding) if not tabled else (0, 0, 0)
    limits, overflow = _limits(encoding), _overflow(encoding, rounding)
    threshold, if_even = _NEAREST.get(rounding, (1, 0))
    return Grid(
        method=np.int64(_method(encoding, rounding)),
        mantissa_bits=np.int32(mantissa),
        lowest_exponent=np.int32(exponent),
        lowest_step=np.int32(step),
        positive_max=np.float32(limits[0]),
        negative_max=np.float32(limits[1]),
        positive_overflow=np.float32(overflow[0]),
        negative_overflow=np.float32(overflow[1]),
        positive_infinity=np.float32(overflow[2]),
        negative_infinity=np.float32(overflow[3]),
        zero=np.float32(-0.0 if encoding.has_negative_zero else 0.0),
        threshold=np.uint32(threshold),
        threshold_if_even=np.uint32(if_even),
        away_if_positive=np.uint32(rounding not in ("zero", "down")),
        away_if_negative=np.uint32(rounding not in ("zero", "up")),
        away_if_odd=np.uint32(rounding != "odd"),
        random_bits=np.uint32(33 if rounding == "stochastic_equal" else random_bits * stochastic),
    )


def _limits(encoding: Encoding) -> tuple[float, float]:
    """Magnitudes of the largest and of the most negative value that float32 holds."""
    if is_tabled(encoding):
        values = sorted_values(encoding)
        return float(values[-1]), -float(values[0])
    return encoding.max, -encoding.min if encoding.signed else 0.0


def _steps(encoding: Encoding) -> tuple[int, int, int]:
    """Mantissa bits, lowest exponent and lowest step, the exponents biased as in float32."""
    if encoding.kind in ("int", "fixed"):
        step = FLOAT32_BIAS - encoding.mantissa_bits
        return 22, step + 22, step
    lowest = 1 - encoding.bias + FLOAT32_BIAS
    return (
        encoding.mantissa_bits,
        lowest,
        lowest - encoding.mantissa_bits if encoding.subnormals else lowest,
    )


def _method(encoding: Encoding, rounding: Rounding) -> Method:
    tabled = is_tabled(encoding)
    if rounding.startswith("stochastic"):
        return Method.TABLE_STOCHASTIC if tabled else Method.STOCHASTIC
    if tabled:
        table = thresholds_of(encoding, rounding)
        single = (table.upper - table.lower).max() <= 1
        return Method.TABLE if single else Method.SEARCH
    if encoding.kind == "float" and encoding.mantissa_bits == 23:
        return Method.IDENTITY
    if rounding != "nearest_even" or not encoding.subnormals:
        return Method.GENERAL
    if encoding.kind == "float" and encoding.exponent_bits == 8:
        return Method.WIDE if encoding.bias == FLOAT32_BIAS else Method.GENERAL
    return Method.MAGIC


def _overflow(encoding: Encoding, rounding: Rounding) -> tuple[float, float, float, float]:
    """Results of values beyond the maximum: finite positive, finite negative, +Inf, -Inf.

    All are magnitudes. Modes that round towards zero never leave the finite range (IEEE 754-2019,
    section 7.4), nor does rounding to odd.
    """
    positive, negative = _limits(encoding)
    if encoding.overflow == "saturate":
        return positive, negative, positive, negative
    beyond = float("inf") if encoding.overflow == "inf" else float("nan")
    return (
        positive if rounding in ("zero", "down", "odd") else beyond,
        negative if rounding in ("zero", "up", "odd") or not encoding.signed else beyond,
        beyond,
        beyond if encoding.signed else negative,
    )
