"""Compiles the functions of the search: once a version, kept between processes."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, no-any-return"

from __future__ import annotations

from pathlib import Path

import numba

from hwmodels.kernel_cache import kernel_cache

_SOURCES = (
    "bound.py", "boxes.py", "compiled.py", "crossing.py", "cycles.py", "descent.py", "records.py",
    "steps.py",
)  # fmt: skip


def compiled(function):
    """Compiles on first use; runs beside other threads."""
    folder = Path(__file__).parent
    with kernel_cache(*(folder / name for name in _SOURCES)):
        return numba.njit(nogil=True, cache=True, error_model="numpy")(function)


def inlined(function):
    """Compiles into the functions that call it."""
    return numba.njit(nogil=True, error_model="numpy", forceinline=True)(function)
