"""The compiler of this folder's kernels, which keeps them between processes."""

from __future__ import annotations

from pathlib import Path

from hwmodels.kernel_cache import compiler

_SOURCES = (
    "numba/accumulation.py", "numba/bits.py", "numba/clipping.py", "numba/columns.py",
    "numba/factors.py", "numba/groups.py", "numba/offsets.py", "numba/rounding.py",
    "numba/rows.py", "numba/stochastic.py", "numba/summation.py", "grids/grid.py",
    "grids/scaling.py",
)  # fmt: skip


compiled = compiler(*(Path(__file__).parents[1] / name for name in _SOURCES))
