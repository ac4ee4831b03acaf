"""Blocks of NVFP4 whose scales torchao raises, which other readers of the format do not.

torchao keeps scales of blocks at the smallest normal number of E4M3 and above; compressed-tensors,
vLLM, TensorRT-LLM and the emulator use the subnormal ones. Behind an outlier most blocks of a
tensor need those: under the raised scale many of their values are rounded to zero.

Source: torchao 0.18, `prototype/mx_formats/nvfp4_tensor.py`, `nvfp4_quantize` (`E4M3_EPS`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dse.execute.emulate import Emulator
from dse.execute.operators.step import Quantize
from dse.export.base import Check, Inexpressible, Recipe
from dse.export.hugging_face.rows import NV_GROUP, is_nvfp4

FLOOR = 2.0**-6
LARGEST, LARGEST_SCALE = 6.0, 448.0
"""Of E2M1 and of E4M3."""


def refuse_raised(weight: Tensor, emulator: Emulator) -> None:
    """A look at the scales of a weight.

    Args:
        weight: a matrix as the model has it.
        emulator: its quantizer.

    Raises:
        Inexpressible: a block needs a scale below torchao's least one.
    """
    if not is_nvfp4(emulator.quantizer.format):
        return
    raised, total = _raised(weight.detach() if emulator.axes[0] == 1 else weight.detach().T)
    if raised:
        raise Inexpressible(
            f"{raised} of {total} blocks have scales below 2^-6, and torchao raises these to "
            "it, which rounds many of their values to zero",
            instead="mxfp4 is written (and nvfp4 as it is by --to compressed-tensors)",
        )


def raised_activations(recipe: Recipe, feeds: Mapping[str, Tensor]) -> Iterator[Check]:
    """Number of blocks of dynamic activations whose scales torchao raises, on samples."""
    counters = {
        key: _Counter(quantize)
        for key, quantize in recipe.bound.items()
        if recipe.constant(key) is None
        and isinstance(quantize, Emulator)
        and is_nvfp4(quantize.quantizer.format)
    }
    if not counters:
        return
    with torch.inference_mode():
        recipe.program.run(feeds, {**recipe.bound, **counters})
    raised = sum(counter.raised for counter in counters.values())
    total = sum(counter.seen for counter in counters.values())
    note = (
        f"{raised} of {total} blocks have scales below 2^-6, which torchao raises: it rounds many "
        "of their values to zero, and the emulator does not (nor do vLLM and TensorRT-LLM)"
        if raised
        else "no block of the samples has a scale below 2^-6, which torchao would raise"
    )
    yield Check(checker="dse", compared=f"block scales of {len(counters)} activations", note=note)


def _raised(x: Tensor) -> tuple[int, int]:
    """Blocks along the last axis whose scale, as a number of E4M3, is below the floor; and all."""
    padded = torch.nn.functional.pad(x.float().abs(), (0, -x.shape[-1] % NV_GROUP))
    largest = padded.reshape(*padded.shape[:-1], -1, NV_GROUP).amax(-1)
    level = largest.max() / (LARGEST * LARGEST_SCALE)
    scales = (largest / LARGEST / level).to(torch.float8_e4m3fn).float()
    return int(((largest > 0) & (scales < FLOOR)).sum()), largest.numel()


@dataclass(eq=False)
class _Counter:
    """A quantizer that counts blocks; equal only to itself."""

    quantize: Quantize
    raised: int = 0
    seen: int = 0

    def __call__(self, x: Tensor) -> Tensor:
        raised, seen = _raised(x)
        self.raised += raised
        self.seen += seen
        return self.quantize(x)
