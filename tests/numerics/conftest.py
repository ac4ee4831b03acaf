"""Inputs on which exactness is decided."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

RANDOM_PATTERNS = 1 << 21


@pytest.fixture(scope="session")
def patterns() -> npt.NDArray[np.float32]:
    """Every bf16 and fp16 value, and 2 Mi random float32 bit patterns, specials included."""
    bf16 = np.arange(1 << 16, dtype=np.uint32) << 16
    fp16 = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    random = np.random.default_rng(0).integers(0, 1 << 32, RANDOM_PATTERNS, dtype=np.uint32)
    return np.concatenate([bf16.view(np.float32), fp16, random.view(np.float32)])


@pytest.fixture(scope="session")
def fewer_patterns(patterns: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Every bf16 and fp16 value, and 128 Ki random patterns."""
    return patterns[: (1 << 17) * 2]
