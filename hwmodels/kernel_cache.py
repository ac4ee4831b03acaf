"""The place of compiled kernels between processes.

numba notices that a file has changed, but not that a file it takes functions from has. Kernels
take theirs from several, so their cache lives in a folder named after all of them: an upgrade or
an edit never meets machine code of older sources.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numba


def compiler(*sources: Path) -> Callable[[Callable[..., Any]], Any]:
    """Compiles functions on first use; machine code is kept between processes.

    They run beside other threads, and divide by zero as numpy does.

    Args:
        sources: all files that the functions are made of.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        with _kernel_cache(*sources):
            return numba.njit(nogil=True, cache=True, error_model="numpy")(function)

    return compiled


@contextmanager
def _kernel_cache(*sources: Path) -> Iterator[None]:
    """Kernels that are defined inside keep their machine code in a folder of these sources.

    `NUMBA_CACHE_DIR` says where such folders go; without it, the user's cache folder.
    """
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(_folder(before, sources))
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before


@cache
def _folder(configured: str, sources: tuple[Path, ...]) -> Path:
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.read_bytes())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = Path(configured) if configured else home / "dse"
    return root / f"kernels-{digest.hexdigest()[:12]}"
