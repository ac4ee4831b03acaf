"""Compiles the functions of the search: once a version, kept between processes."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, no-any-return"

from __future__ import annotations

from pathlib import Path

import numba

from hwmodels.kernel_cache import compiler

_SOURCES = (
    "bound.py", "boxes.py", "compiled.py", "crossing.py", "cycles.py", "descent.py", "records.py",
    "steps.py",
)  # fmt: skip


compiled = compiler(*(Path(__file__).parent / name for name in _SOURCES))


def inlined(function):
    """Compiles into the functions that call it."""
    return numba.njit(nogil=True, error_model="numpy", forceinline=True)(function)
