"""Inputs on which exactness is decided."""

from __future__ import annotations

import importlib

import numpy as np
import numpy.typing as npt
import pytest

from tests.numerics.comparison import input_patterns


@pytest.fixture(scope="session")
def patterns() -> npt.NDArray[np.float32]:
    """Every bf16 and fp16 value, and 2 Mi random float32 bit patterns, specials included."""
    return input_patterns(random=1 << 21)


@pytest.fixture(scope="session")
def fewer_patterns(patterns: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Every bf16 and fp16 value, and 128 Ki random patterns."""
    return patterns[: (1 << 17) * 2]


@pytest.fixture(autouse=True)
def _always_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tensors take the compiled path, too: it is what these tests are about."""
    monkeypatch.setattr(importlib.import_module("dse.numerics.quantize"), "COMPILED_FROM", 0)
