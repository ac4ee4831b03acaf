"""Control over whether float32 products round their operands to tf32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


@contextmanager
def float32_precision(*, tf32: bool) -> Iterator[None]:
    """Sets it for products and convolutions on CUDA, and restores what was set."""
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "tf32" if tf32 else "ieee"
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value


def exact_float32(device: torch.device) -> AbstractContextManager[None]:
    """A context in which float32 products on a device keep float32 operands.

    PyTorch lets cuDNN round the operands of convolutions to tf32 unless it is told not to: a
    reference in "full precision" with ten bits of mantissa.
    """
    return float32_precision(tf32=False) if device.type == "cuda" else nullcontext()
