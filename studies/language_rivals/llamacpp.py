"""llama.cpp's own mixes of block formats, made by its library, without data and with.

`python -m studies.language_rivals.llamacpp WORK` in an environment with `llama-cpp-py-sync`, whose
wheel carries libllama.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dse.zoo.smollm2 import LAYER_NAMES
from studies.language_rivals import network, score, text

TYPES = {"Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18}
"""`llama_ftype` of each mix."""


def quantized(work: Path, name: str, importance: Mapping[str, NDArray[np.float32]]) -> Path:
    """A GGUF file under one mix."""
    from llama_cpp_py_sync._cffi_bindings import get_ffi, get_lib  # noqa: PLC0415

    ffi, lib = get_ffi(), get_lib()
    out = work / f"{name}{'-imatrix' if importance else ''}.gguf"
    params = lib.llama_model_quantize_default_params()
    params.ftype, params.nthread = TYPES[name], 1
    held: list[Any] = []
    if importance:
        entries = ffi.new("struct llama_model_imatrix_data[]", len(importance) + 1)
        for entry, (tensor, values) in zip(entries, importance.items(), strict=False):
            label = ffi.new("char[]", tensor.encode())
            data = ffi.new("float[]", values.tolist())
            held += [label, data]
            entry.name, entry.data, entry.size = label, data, len(values)
        params.imatrix = entries
        held.append(entries)
    given = ffi.new("llama_model_quantize_params *", params)
    wrong = lib.llama_model_quantize(str(work / "f32.gguf").encode(), str(out).encode(), given)
    if wrong:
        raise RuntimeError(f"llama_model_quantize: {wrong}")
    return out


def importance_of(work: Path) -> dict[str, NDArray[np.float32]]:
    """Mean squares of what every matrix multiplies, by the tensor's name in the file."""
    model = score.model_of(network.weights_of(work / "relabelled.onnx"))
    sums: dict[str, Any] = {}
    to_file = {hf: short for short, hf in LAYER_NAMES.items()}

    def seen(name: str) -> Any:
        def hook(_module: object, inputs: tuple[torch.Tensor, ...]) -> None:
            rows = inputs[0].flatten(0, -2)
            sums[name] = sums.get(name, 0) + rows.double().square().mean(0)

        return hook

    for name, module in model.named_modules():
        if name.endswith("_proj"):
            _, _, layer, *rest = name.split(".")
            key = f"blk.{layer}.{to_file['.'.join(rest)]}.weight"
            module.register_forward_pre_hook(seen(key))
    windows = [*text.split(work, "calibration"), *text.split(work, "search")]
    with torch.inference_mode():
        for window in windows:
            model(torch.from_numpy(window[None, :-1]))
    return {name: (value / len(windows)).float().numpy() for name, value in sums.items()}


def main() -> None:
    """Every mix, scored."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    work = parser.parse_args().work
    torch.set_num_threads(1)
    before = _seconds()
    importance = importance_of(work)
    passes = _seconds() - before
    for name in TYPES:
        for given in ({}, importance):
            before = _seconds()
            path = quantized(work, name, given)
            spent = _seconds() - before + (passes if given else 0)
            weights, held = network.gguf_weights(path)
            score.append(
                work, tool="llama.cpp", recipe=f"{name}{' + imatrix' if given else ''}",
                weights=weights, held=held, whole=True, cpu_seconds=spent,
                forwards=4.0 if given else 0.0,
            )  # fmt: skip
            path.unlink()


def _seconds() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


if __name__ == "__main__":
    main()
