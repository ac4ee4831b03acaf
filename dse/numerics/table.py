"""Grids of any shape as sorted thresholds, found by the upper half of a float32.

The upper 16 bits of a float32 (its bf16 pattern, truncated) name a cell. A grid whose thresholds
fall into different cells needs one comparison after the look-up, others a short bisection; either
way the result is exact for every float32, because thresholds are compared as float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from hwmodels.codes import midpoint, sorted_values
from hwmodels.formats import Encoding, Rounding

_SMALLEST = Fraction(1, 2**149)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """`values[i]` is the result between `thresholds[i - 1]` (included) and `thresholds[i]`."""

    lower: npt.NDArray[np.uint16]
    upper: npt.NDArray[np.uint16]
    thresholds: npt.NDArray[np.float32]
    values: npt.NDArray[np.float32]


def table_of(encoding: Encoding, rounding: Rounding) -> Table:
    """The look-up table of an encoding.

    Stochastic modes get the table of rounding down: a kernel then draws between the value found
    and the next one. Codes that float32 cannot hold are left out. Ties go to the even code.
    """
    values = sorted_values(encoding)
    mode = "down" if rounding.startswith("stochastic") else rounding
    results, thresholds = _steps(encoding, values, mode)
    padded = np.append(thresholds, np.float32(np.inf)).astype(np.float32)
    first, last = _cells()
    lower = np.searchsorted(thresholds, first, side="right")
    upper = np.searchsorted(thresholds, last, side="right")
    return Table(
        lower=lower.astype(np.uint16),
        upper=upper.astype(np.uint16),
        thresholds=padded,
        values=np.append(results, results[-1]).astype(np.float32),
    )


def _steps(
    encoding: Encoding, values: Sequence[Fraction], mode: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Results in increasing order and the smallest float32 that leads to each but the first."""
    exact = [float(value) for value in values]
    if mode == "odd":
        return _odd_steps(encoding, values)
    starts = [_start(encoding, values, index, mode) for index in range(1, len(values))]
    return np.array(exact, np.float32), np.array(starts, np.float32)


def _start(encoding: Encoding, values: Sequence[Fraction], index: int, mode: str) -> np.float32:
    """The smallest float32 that rounds to `values[index]` rather than to its lower neighbour."""
    low, high = values[index - 1], values[index]
    towards_high = mode == "up" or (mode == "zero" and high <= 0)
    if mode in ("up", "down", "zero"):
        return _above(low) if towards_high else _at_least(high)
    middle = midpoint(encoding, low, high)
    if mode == "nearest_even":
        tie_up = index % 2 == _even_parity(values)
    else:
        tie_up = (low + high > 0) == (mode == "nearest_away")
    return _at_least(middle) if tie_up else _above(middle)


def _odd_steps(
    encoding: Encoding, values: Sequence[Fraction]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Values between two codes go to the odd one: even codes are met by equality only."""
    even = _even_parity(values)
    starts = [
        _at_least(value) if index % 2 == even else _above(values[index - 1])
        for index, value in enumerate(values)
    ]
    return np.array([float(value) for value in values], np.float32), np.array(
        starts[1:], np.float32
    )


def _even_parity(values: Sequence[Fraction]) -> int:
    """Parity of the index of even codes: zero has code 0, codes count up and down from there."""
    nearest_zero = min(range(len(values)), key=lambda index: abs(values[index]))
    return nearest_zero % 2


def _at_least(value: Fraction) -> np.float32:
    """The smallest float32 that is not below `value`."""
    nearest = np.float32(float(value))
    while Fraction(float(nearest)) < value:
        nearest = np.nextafter(nearest, np.float32(np.inf))
    below = np.nextafter(nearest, np.float32(-np.inf))
    while np.isfinite(below) and Fraction(float(below)) >= value:
        nearest, below = below, np.nextafter(below, np.float32(-np.inf))
    return np.float32(nearest)


def _above(value: Fraction) -> np.float32:
    """The smallest float32 above `value`."""
    nearest = _at_least(value)
    if Fraction(float(nearest)) == value:
        return np.float32(np.nextafter(nearest, np.float32(np.inf)))
    return nearest


def _cells() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The smallest and the largest float32 of each of the 65,536 cells; NaN cells hold zeros."""
    patterns = np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)
    near_zero = patterns.view(np.float32)
    far_from_zero = (patterns | np.uint32(0xFFFF)).view(np.float32)
    infinite = np.isinf(near_zero)
    far_from_zero = np.where(infinite, near_zero, far_from_zero)
    nan = np.isnan(near_zero)
    first = np.where(patterns >> 31 == 1, far_from_zero, near_zero)
    last = np.where(patterns >> 31 == 1, near_zero, far_from_zero)
    return np.where(nan, 0, first).astype(np.float32), np.where(nan, 0, last).astype(np.float32)
