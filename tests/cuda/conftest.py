"""The device that everything is compared with the CPU on.

These tests need torch, NumPy, SciPy, Numba, pydantic, onnx, onnx-ir and safetensors, no other
package: they run on machines that have a GPU and little else (`python -m pytest tests/cuda -q`).
Where there is no GPU, the second device of `second_device.py` shows what mixes devices.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.cuda.second_device import second_device
from tests.numerics.comparison import input_patterns


@pytest.fixture
def device() -> Iterator[str]:
    """`cuda`, or the second device where torch finds no GPU."""
    if torch.cuda.is_available():
        yield "cuda"
        return
    with second_device() as name:
        yield name


@pytest.fixture(scope="session")
def fewer_patterns() -> npt.NDArray[np.float32]:
    """Every bf16 and fp16 value, and 128 Ki random patterns."""
    return input_patterns(random=1 << 17)
