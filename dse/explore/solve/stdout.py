"""Keeps what native code prints out of a command's output."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STDOUT = 1


@contextmanager
def without_stdout() -> Iterator[None]:
    """A context that loses whatever is written to file descriptor 1 meanwhile.

    HiGHS leaves a debugging line there when it repairs a solution
    (`HighsMipSolverData::transformNewIntegerFeasibleSolution`), whatever its options; it would
    stand in the middle of a command's JSON.
    """
    if sys.stdout is not None:
        sys.stdout.flush()
    kept = os.dup(STDOUT)
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), STDOUT)
        yield
    finally:
        # C's buffer must be emptied before the descriptor leads somewhere again.
        ctypes.CDLL(None).fflush(None)
        os.dup2(kept, STDOUT)
        os.close(kept)
