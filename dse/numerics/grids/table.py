"""Grids of any shape as sorted thresholds, found by the upper half of a float32.

The upper 16 bits of a float32 (its bf16 pattern, truncated) name a cell. A grid whose thresholds
fall into different cells needs one comparison after the look-up, others a short bisection; either
way the result is exact for every float32, because thresholds are float32 themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwmodels.formats.numbers import Values, borders, sorted_values
from hwmodels.formats.quantizer import Encoding, Rounding

Floats = npt.NDArray[np.float32]
_UP, _DOWN = np.float32(np.inf), np.float32(-np.inf)


SPECIAL_SLOTS = 5
"""Entries behind the finite ones: NaN, +Inf, NaN, -Inf, and a pad."""
_POSITIVE_INFINITY, _NEGATIVE_INFINITY = 0x7F80, 0xFF80


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """`values[i]` is the result between `thresholds[i - 1]` (included) and `thresholds[i]`.

    Behind the finite entries, the cells of NaN and of the infinities have entries of their own: a
    NaN fails every comparison, an infinity meets its threshold.
    """

    lower: npt.NDArray[np.int32]
    """For each cell, the number of thresholds at or below its first value."""
    upper: npt.NDArray[np.int32]
    """For each cell, the number of thresholds at or below its last value."""
    thresholds: Floats
    values: Floats


def table_of(encoding: Encoding, rounding: Rounding) -> Table:
    """The look-up table of an encoding.

    Stochastic modes get the table of rounding down: a kernel then draws between the value found
    and the next one. Codes that float32 cannot hold are left out. Ties go to the even code.
    Infinities saturate, or become NaN where the encoding says so.
    """
    values = sorted_values(encoding)
    thresholds = _thresholds(encoding, values, rounding)
    first, last = _cells()
    lower = np.searchsorted(thresholds, first, side="right")
    upper = np.searchsorted(thresholds, last, side="right")
    count = len(values)
    ends = (values[-1], values[0]) if encoding.overflow == "saturate" else (np.nan, np.nan)
    for infinity, slot in ((_POSITIVE_INFINITY, count), (_NEGATIVE_INFINITY, count + 2)):
        lower[infinity : (infinity | 0x7F) + 1] = upper[infinity : (infinity | 0x7F) + 1] = slot
        upper[infinity] = slot + 1
    return Table(
        lower=lower.astype(np.int32),
        upper=upper.astype(np.int32),
        thresholds=np.append(thresholds, _float32([_UP, _UP, _UP, _DOWN, _UP, _UP])),
        values=_float32([*values, np.nan, ends[0], np.nan, ends[1], np.nan]),
    )


def _float32(values: npt.ArrayLike) -> Floats:
    return np.asarray(values, np.float32)


def _thresholds(encoding: Encoding, values: Values, rounding: Rounding) -> Floats:
    """The smallest float32 that rounds to each value but the lowest."""
    low, high = values[:-1], values[1:]
    # Zero has code 0; codes count up and down from there, and with them their parity.
    distance = np.arange(1, len(values)) - int(np.argmin(np.abs(values)))
    even = distance % 2 == 0
    match rounding:
        case "up":
            return _above(low)
        case "zero":
            return np.where(high <= 0, _above(low), _at_least(high))
        case "odd":
            return np.where(even, _at_least(high), _above(low))
        case "nearest_even" | "nearest_away" | "nearest_zero":
            middle = borders(encoding)
            tie_up = even
            if rounding != "nearest_even":
                tie_up = (middle > 0) == (rounding == "nearest_away")
            return np.where(tie_up, _at_least(middle), _above(middle))
        case _:
            return _at_least(high)


def _at_least(values: Values) -> Floats:
    """The smallest float32 that is not below each value."""
    nearest = values.astype(np.float32)
    return np.where(nearest < values, np.nextafter(nearest, _UP), nearest)


def _above(values: Values) -> Floats:
    """The smallest float32 above each value."""
    nearest = _at_least(values)
    return np.where(nearest == values, np.nextafter(nearest, _UP), nearest)


def _cells() -> tuple[Floats, Floats]:
    """The smallest and the largest float32 of each of the 65,536 cells; NaN cells hold zeros."""
    patterns = np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)
    near_zero = patterns.view(np.float32)
    far_from_zero = (patterns | np.uint32(0xFFFF)).view(np.float32)
    far_from_zero = np.where(np.isinf(near_zero), near_zero, far_from_zero)
    negative = patterns >> 31 == 1
    first = np.where(negative, far_from_zero, near_zero)
    last = np.where(negative, near_zero, far_from_zero)
    nan = np.isnan(near_zero)
    zero = np.float32(0)
    return np.where(nan, zero, first), np.where(nan, zero, last)
