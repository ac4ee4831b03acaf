"""The place of this folder's compiled kernels between processes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from hwmodels.kernel_cache import kernel_cache as cache_of

_SOURCES = (
    "numba/accumulation.py", "numba/bits.py", "numba/clipping.py", "numba/columns.py",
    "numba/factors.py", "numba/groups.py", "numba/offsets.py", "numba/rounding.py",
    "numba/rows.py", "numba/stochastic.py", "numba/summation.py", "grids/grid.py",
    "grids/scaling.py",
)  # fmt: skip


def kernel_cache() -> AbstractContextManager[None]:
    """Kernels that are defined inside keep their machine code in this version's folder."""
    return cache_of(*(Path(__file__).parents[1] / name for name in _SOURCES))
