"""Compiled groups that lie whole and side by side in memory, with dynamic scales.

For grids of method MAGIC. `overwrite_groups` has one array only, so that the compiler knows that
an element is read before it is written, and vectorises.
"""

# Kernels take everything by position, since numba reads them, not mypy.
# ruff: noqa: PLR0917
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"

from __future__ import annotations

import numpy as np

from dse.numerics.numba.bits import bits_of, conjunction
from dse.numerics.numba.factors import derive, divides, u64
from dse.numerics.numba.kernel_cache import compiled
from dse.numerics.numba.rounding import MAGNITUDE, f32, inlined, magic, u32

BATCH = 4096
"""Elements whose scales are derived together, in vector lanes; they stay in the first cache."""


@inlined
def _largest(x, start, length, count, largest):
    """The bits of the largest magnitude of each group."""
    for g in range(u64(count)):
        first = start + g * u64(length)
        found = u32(0)
        for j in range(u64(length)):
            found = max(found, conjunction(bits_of(x[first + j]), MAGNITUDE))
        largest[g] = found


@inlined
def _round(x, out, start, length, count, factors, grid, divided):
    """Writes the rounded groups."""
    for g in range(u64(count)):
        first = start + g * u64(length)
        multiplier, divisor, total = factors[0, g], factors[1, g], factors[2, g]
        if divided:
            for j in range(u64(length)):
                y = f32(f32(x[first + j] * multiplier) / divisor)
                out[first + j] = magic(y, grid) * total
        else:
            for j in range(u64(length)):
                out[first + j] = magic(f32(x[first + j] * multiplier), grid) * total


@inlined
def _quantize(x, out, first, last, grid, scaling):
    # Of a length that is known only when it runs: shorter loops of known length are unrolled into
    # scalars, at half the speed.
    length = scaling.group
    together = max(BATCH // length, 1)
    largest = np.empty(together, np.uint32)
    factors = np.empty((4, together), np.float32)
    for top in range(first, last, together):
        count = min(together, last - top)
        start = u64(top) * u64(length)
        _largest(x, start, length, count, largest)
        derive(largest, count, scaling, factors)
        _round(x, out, start, length, count, factors, grid, divides(scaling))


@compiled
def quantize_groups(x, out, first, last, grid, scaling):
    """Groups first..last of a vector, each `scaling.group` long."""
    _quantize(x, out, first, last, grid, scaling)


@compiled
def overwrite_groups(x, first, last, grid, scaling):
    """As `quantize_groups`, in place."""
    _quantize(x, x, first, last, grid, scaling)
