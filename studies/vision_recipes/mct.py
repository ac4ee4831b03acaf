"""Sony's Model Compression Toolkit on a task, run by a Python that has it and torchvision.

`python mct.py TASK_DIR OUT_DIR TOOL SHARE ...`: see `budgets.py`. Its description of the IMX500
without 2-bit weights, activations between their extremes (its default thresholds, powers of two of
least error, lose twenty times as much, see README), all else as it comes. `mct gradient` is its
gradient-based rounding (GPTQ in its words) on top.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import model_compression_toolkit as mct
import numpy as np
import onnx
import torch
from mct_quantizers import (  # type: ignore[import-not-found, unused-ignore]
    QuantizationMethod,
)

from studies.other_tools.mct_target import restricted
from studies.vision_recipes import transformer
from studies.vision_recipes.attention import attends
from studies.vision_recipes.module import OnnxModule

BATCH = 16
GRADIENT = "mct gradient"
EPOCHS = 50
"""Of gradient-based rounding, which has no default: 200 steps."""


def main(task: Path, out: Path, tool: str, shares: Sequence[float]) -> None:
    """One post-training quantization a budget; exports each, and writes what it took."""
    torch.set_num_threads(1)
    calibration = np.load(task / "data.npz")["calibration"]
    path = task / "model.onnx"
    attentive = attends(onnx.load(path).graph)
    module = transformer.read(path) if attentive else OnnxModule(path).eval()

    def images() -> Iterator[list[torch.Tensor]]:
        for start in range(0, len(calibration), BATCH):
            yield [torch.from_numpy(calibration[start : start + BATCH])]

    target = mct.get_target_platform_capabilities()
    target = type(target).model_validate(affine(restricted(target.model_dump())))
    weights = sum(p.numel() for n, p in module.named_parameters() if n.endswith("weight"))
    # The toolkit was written for torch's older exporter, which is no longer the default.
    torch.onnx.export = partial(torch.onnx.export, dynamo=False)
    for share in shares:
        started = time.process_time()
        budget = mct.core.ResourceUtilization(weights_memory=weights * share)
        config = mct.core.CoreConfig(
            quantization_config=mct.core.QuantizationConfig(
                activation_error_method=mct.core.QuantizationErrorMethod.NOCLIPPING
            ),
            mixed_precision_config=mct.core.MixedPrecisionQuantizationConfig(),
        )
        named = {
            "target_resource_utilization": budget if share < 1 else None,
            "core_config": config, "target_platform_capabilities": target,
        }  # fmt: skip
        if tool == GRADIENT:
            model, _ = mct.gptq.pytorch_gradient_post_training_quantization(
                module, images, gptq_config=mct.gptq.get_pytorch_gptq_config(n_epochs=EPOCHS),
                **named,
            )  # fmt: skip
        else:
            model, _ = mct.ptq.pytorch_post_training_quantization(module, images, **named)
        seconds = time.process_time() - started
        stem = f"{tool.replace(' ', '-')}-{share}"
        file = f"{stem}.onnx"
        mct.exporter.pytorch_export_model(
            model, str(out / file), images,
            quantization_format=mct.exporter.QuantizationFormat.FAKELY_QUANT,
        )  # fmt: skip
        row = {"tool": tool, "share": share, "file": file, "cpu_seconds": seconds}
        (out / f"{stem}.json").write_text(json.dumps(row))
        print(row, flush=True)


def affine(node: object) -> object:
    """A target description whose activations have a scale and a zero point."""
    if isinstance(node, dict):
        found = {key: affine(value) for key, value in node.items()}
        if "activation_quantization_method" in found:
            found["activation_quantization_method"] = QuantizationMethod.UNIFORM
        return found
    if isinstance(node, list | tuple):
        return [affine(value) for value in node]
    return node


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], [float(s) for s in sys.argv[4:]])
