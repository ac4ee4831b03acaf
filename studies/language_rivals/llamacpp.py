"""llama.cpp's own mixes, rounded by its library: Q4_K_M, Q5_K_M, Q6_K, without data and with.

`python -m studies.language_rivals.llamacpp WORK [--types-of-dse]` with `xllamacpp`; the option,
after `mix`, rounds `dse`'s types instead, with data. The package's extension exports ggml's
quantizer and not llama's: so the type of each tensor is by the rules of `llama-quant.cpp` here,
fallbacks for rows of 576 included.
"""

from __future__ import annotations

import argparse
import ctypes
import json
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
    from gguf import GGMLQuantizationType  # noqa: PLC0415
    from gguf.quants import dequantize  # noqa: PLC0415

    blocks = blocks_of(rows, name, importance)
    values = np.asarray(dequantize(blocks, GGMLQuantizationType[name]), dtype=np.float32)
    return values.reshape(rows.shape), blocks.nbytes


def blocks_of(rows: Floats, name: str, importance: Floats | None) -> NDArray[np.uint8]:
    """(outputs, bytes of a row): blocks of a type, as llama.cpp's library rounds to them."""
    import xllamacpp  # noqa: PLC0415
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType  # noqa: PLC0415

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
    assert held == blocks.nbytes
    return blocks


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


def types_of(full: Mapping[str, Floats], mix: str) -> dict[str, str]:
    """The type of every matrix in a mix."""
    return {
        name: type_of(name, mix, network.turned(name, weight).shape[1])
        for name, weight in full.items()
        if weight.ndim > 1
    }


def recipe(
    full: Mapping[str, Floats], types: Mapping[str, str], importance: Mapping[str, Floats]
) -> tuple[dict[str, Floats], dict[str, int]]:
    """Weights in these types, as (inputs, outputs), and bytes by tensor."""
    weights, held = dict(full), {}
    for name, weight in full.items():
        if name not in types:
            held[name] = 4 * weight.size
            continue
        rows = network.turned(name, weight)
        values, held[name] = quantized(rows, types[name], importance.get(name))
        weights[name] = network.turned(name, values)
    return weights, held


def main() -> None:
    """Every mix, scored."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--types-of-dse", action="store_true", help="As `mix` left them.")
    asked = parser.parse_args()
    work: Path = asked.work
    torch.set_num_threads(1)
    full = network.weights_of(work / "relabelled.onnx")
    before = _seconds()
    importance = importance_of(work)
    passes = _seconds() - before
    for mix in MIXES[:2] if asked.types_of_dse else MIXES:
        if asked.types_of_dse:
            types = json.loads((work / "mix" / f"{mix}.json").read_text())
            types = {name: kind.upper() for name, kind in types.items()}
            rows = {f"dse's types in the bytes of {mix}, importance": importance}
        else:
            types = types_of(full, mix)
            rows = {f"{mix}, importance": importance, mix: {}}
        for name, given in rows.items():
            before = _seconds()
            weights, held = recipe(full, types, given)
            spent = _seconds() - before + (passes if given else 0)
            layers = sum(size for tensor, size in held.items() if "_proj" in tensor)
            print(mix, "layers alone:", 8 * layers / sum(
                w.size for tensor, w in full.items() if "_proj" in tensor
            ))  # fmt: skip
            score.append(
                work, tool="llama.cpp", recipe=name, weights=weights, held=sum(held.values()),
                whole=True, cpu_seconds=spent, forwards=2.0 if given else 0.0,
            )  # fmt: skip


def _seconds() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


if __name__ == "__main__":
    main()
