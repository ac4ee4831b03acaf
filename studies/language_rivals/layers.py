"""Networks of torch's own classes, as the tools take them, and their weights read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from studies.language_rivals import network

GROUP = 64
"""Of both widths: 576 and 1536 are multiples, of 128 they are not."""
SCALE_BITS = 16


def loaded(work: Path) -> Any:
    """The network as transformers has it, in float32."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    return AutoModelForCausalLM.from_pretrained(work / "hf", dtype=torch.float32).eval()


def weights_of(model: Any) -> dict[str, NDArray[np.float32]]:
    """Weights as (inputs, outputs), as the scorer takes them."""
    return {
        name: np.array(network.turned(name, value.detach().float().numpy()))
        for name, value in model.state_dict().items()
        if name != "lm_head.weight" and name.endswith(".weight")
    }


def held_bytes(bits: dict[str, float], weights: dict[str, NDArray[np.float32]]) -> float:
    """Bytes of the layers' matrices, of so many bits an element, one scale a group below 16."""
    total = 0.0
    for name, width in bits.items():
        weight = weights[f"{name}.weight"]
        groups = -(-weight.shape[0] // GROUP) * weight.shape[1] if width < SCALE_BITS else 0
        total += (weight.size * width + groups * SCALE_BITS) / 8
    return total
