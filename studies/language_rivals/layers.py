"""The network as transformers has it, and bytes of its matrices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

GROUP = 64
"""Of both widths: 576 and 1536 are multiples, of 128 they are not."""
SCALE_BITS = 16


def loaded(work: Path) -> Any:
    """The network as transformers has it, in float32."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    return AutoModelForCausalLM.from_pretrained(work / "hf", dtype=torch.float32).eval()


def held_bytes(bits: Mapping[str, float], weights: Mapping[str, NDArray[np.float32]]) -> float:
    """Bytes of the layers' matrices, of so many bits an element, one scale a group below 16."""
    total = 0.0
    for name, width in bits.items():
        weight = weights[f"{name}.weight"]
        groups = -(-weight.shape[0] // GROUP) * weight.shape[1] if width < SCALE_BITS else 0
        total += (weight.size * width + groups * SCALE_BITS) / 8
    return total
