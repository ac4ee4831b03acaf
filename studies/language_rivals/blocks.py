"""The types of llama.cpp's own mixes under `dse`'s rounding: ranges of least output error.

`python -m studies.language_rivals.blocks WORK [MIX...]`: the same type for every tensor, so the
same bytes, and the same 16 windows that the importance matrix is made of.
"""

from __future__ import annotations

import argparse
import resource
from pathlib import Path

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from dse.numerics import damped, gptq, held_out_damping, output_range, quantize
from hwmodels.formats.catalog import quantizer
from studies.language_rivals import allocations, llamacpp, network, score

EIGHT_BITS = "q8_0"
Floats = NDArray[np.float32]
Halves = tuple[torch.Tensor, torch.Tensor]


def rounded(weight: Floats, name: str, format: str, halves: Halves, *, learned: bool) -> Floats:
    """A matrix in blocks, as it was given: (inputs, outputs), the table (words, width).

    Args:
        weight: the matrix.
        name: its own.
        format: a block of llama.cpp.
        halves: second moments of either half of the inputs.
        learned: by GPTQ, whose damping the second half chooses.
    """
    second = halves[0] + halves[1]
    rows = torch.from_numpy(np.ascontiguousarray(network.turned(name, weight)))
    chosen = quantizer(format).settled(weight=True)
    if learned and format != EIGHT_BITS:
        values = gptq(rows, damped(second, held_out_damping(rows, halves, chosen)), chosen)
    else:
        values = quantize(rows, chosen, axes=(1,), state=output_range(rows, second, chosen))
    return np.array(network.turned(name, values.numpy()))


def main() -> None:
    """A row for each mix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("mixes", nargs="*", default=[*llamacpp.MIXES[:2]])
    parser.add_argument("--gptq", action="store_true", help="Below eight bits.")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    full = network.weights_of(asked.work / "relabelled.onnx")
    seen = {f"{name}.weight": one for name, one in allocations.moments(asked.work, full).items()}
    passes = _seconds()
    for mix in asked.mixes:
        before = _seconds()
        weights, total = dict(full), 0.0
        for name, weight in full.items():
            if weight.ndim == 1:
                total += 4 * weight.size
                continue
            columns = network.turned(name, weight).shape[1]
            format = llamacpp.type_of(name, mix, columns)
            elements, size = GGML_QUANT_SIZES[GGMLQuantizationType[format]]
            total += weight.size / elements * size
            weights[name] = rounded(weight, name, format.lower(), seen[name], learned=asked.gptq)
        recipe = f"types of {mix}{', GPTQ' if asked.gptq else ''}"
        score.append(
            asked.work, tool="dse", recipe=recipe, weights=weights, held=total, whole=True,
            cpu_seconds=passes + _seconds() - before, forwards=2.0,
        )  # fmt: skip


def _seconds() -> float:
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])


if __name__ == "__main__":
    main()
