"""llama.cpp's own mixes, rounded by its library: Q4_K_M, Q5_K_M, Q6_K, without data and with.

`python -m studies.language_rivals.llamacpp WORK` with `xllamacpp`, whose extension exports ggml's
quantizer and not llama's: so the type of each tensor is by the rules of `llama-quant.cpp` here,
fallbacks for rows of 576 included.
"""

from __future__ import annotations

import argparse
import ctypes
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from studies.language_rivals import network, score, text

MIXES = ("Q4_K_M", "Q5_K_M", "Q6_K")
BASE = {"Q4_K_M": "Q4_K", "Q5_K_M": "Q5_K", "Q6_K": "Q6_K"}
FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""Where rows are no multiples of a super-block (`llama_tensor_get_type`)."""
SUPER_BLOCK = 256
FINE = ("v_proj", "down_proj")
"""Of which the `_M` mixes give some layers six bits."""
Floats = NDArray[np.float32]


def type_of(name: str, mix: str, columns: int) -> str:
    """The block format of a tensor, by its Hugging Face name."""
    if name == network.EMBEDDING:
        return "Q8_0" if columns % SUPER_BLOCK else "Q6_K"
    layer, kind = int(name.split(".")[2]), name.split(".")[4]
    finer = mix.endswith("_M") and kind in FINE and _more_bits(layer)
    chosen = "Q6_K" if finer else BASE[mix]
    return FALLBACK[chosen] if columns % SUPER_BLOCK else chosen


def _more_bits(layer: int) -> bool:
    """`use_more_bits`: the first and last eighth, and each third between."""
    eighth = network.LAYERS // 8
    last = 7 * network.LAYERS // 8
    return layer < eighth or layer >= last or (layer - eighth) % 3 == 2


def quantized(rows: Floats, name: str, importance: Floats | None) -> tuple[Floats, int]:
    """(outputs, inputs) as blocks stand for them, and their bytes."""
    import xllamacpp  # noqa: PLC0415
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType  # noqa: PLC0415
    from gguf.quants import dequantize  # noqa: PLC0415

    kind = GGMLQuantizationType[name]
    elements, size = GGML_QUANT_SIZES[kind]
    library = ctypes.CDLL(str(Path(xllamacpp.__file__).parent / "xllamacpp.abi3.so"))
    call: Any = library.ggml_quantize_chunk
    call.restype = ctypes.c_size_t
    pointer = ctypes.POINTER(ctypes.c_float)
    count, depth = rows.shape
    source = np.ascontiguousarray(rows, dtype=np.float32)
    blocks = np.zeros((count, depth // elements * size), dtype=np.uint8)
    given = None if importance is None else np.ascontiguousarray(importance)
    held: int = call(
        ctypes.c_int(int(kind)), source.ctypes.data_as(pointer), blocks.ctypes.data_as(pointer),
        ctypes.c_int64(0), ctypes.c_int64(count), ctypes.c_int64(depth),
        None if given is None else given.ctypes.data_as(pointer),
    )  # fmt: skip
    return np.asarray(dequantize(blocks, kind), dtype=np.float32).reshape(rows.shape), held


def importance_of(work: Path) -> dict[str, Floats]:
    """Mean squares of what every matrix multiplies, as `llama-imatrix` sums them up."""
    model = score.model_of(network.weights_of(work / "relabelled.onnx"))
    sums: dict[str, Any] = {}

    def seen(name: str) -> Any:
        def hook(_module: object, inputs: tuple[torch.Tensor, ...]) -> None:
            rows = inputs[0].flatten(0, -2)
            sums[name] = sums.get(name, 0) + rows.double().square().mean(0)

        return hook

    for name, module in model.named_modules():
        if name.endswith("_proj"):
            module.register_forward_pre_hook(seen(f"{name}.weight"))
    windows = [*text.split(work, "calibration"), *text.split(work, "search")]
    with torch.inference_mode():
        for window in windows:
            model(torch.from_numpy(window[None, :-1]))
    return {name: (value / len(windows)).float().numpy() for name, value in sums.items()}


def recipe(
    full: Mapping[str, Floats], mix: str, importance: Mapping[str, Floats]
) -> tuple[dict[str, Floats], dict[str, int]]:
    """Weights under a mix, as (inputs, outputs), and bytes by tensor."""
    weights, held = dict(full), {}
    for name, weight in full.items():
        if weight.ndim == 1:
            held[name] = 4 * weight.size
            continue
        rows = network.turned(name, weight)
        kind = type_of(name, mix, rows.shape[1])
        values, held[name] = quantized(rows, kind, importance.get(name))
        weights[name] = network.turned(name, values)
    return weights, held


def main() -> None:
    """Every mix, scored."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    work = parser.parse_args().work
    torch.set_num_threads(1)
    full = network.weights_of(work / "relabelled.onnx")
    before = _seconds()
    importance = importance_of(work)
    passes = _seconds() - before
    for mix in MIXES:
        for given in (importance, {}):
            before = _seconds()
            weights, held = recipe(full, mix, given)
            spent = _seconds() - before + (passes if given else 0)
            layers = sum(size for name, size in held.items() if "_proj" in name)
            print(mix, "layers alone:", 8 * layers / sum(
                w.size for name, w in full.items() if "_proj" in name
            ))  # fmt: skip
            score.append(
                work, tool="llama.cpp", recipe=f"{mix}{', importance' if given else ''}",
                weights=weights, held=sum(held.values()), whole=True, cpu_seconds=spent,
                forwards=2.0 if given else 0.0,
            )  # fmt: skip


def _seconds() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


if __name__ == "__main__":
    main()
