"""Sony's Model Compression Toolkit on the task, run by a Python that has it and torchvision.

`python mct_sweep.py TASK_DIR OUT_DIR SEED`: see `run.py`, which calls it with this project on the
path, because the toolkit takes torch modules.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import model_compression_toolkit as mct
import numpy as np
import onnx
import torch
from onnx import numpy_helper

from dse.zoo.resnet import ConvNorm, ResNet, ResNetConfig
from studies.other_tools.mct_target import restricted

BATCH = 32
SHARES = (1.0, 0.9375, 0.875, 0.8125, 0.75, 0.6875, 0.625, 0.5625, 0.5)
"""Of the memory of 8-bit weights: one budget, one point."""


def network(path: Path) -> ResNet:
    """The torch module with the weights of the ONNX file, which are those after folding."""
    weights = {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for tensor in onnx.load(path).graph.initializer
    }
    module = ResNet(ResNetConfig()).eval()
    for part in module.modules():
        if isinstance(part, ConvNorm):
            part.fold()
    state = module.state_dict()
    module.load_state_dict({name: weights[name].reshape(state[name].shape) for name in state})
    return module


def main(task: Path, out: Path, seed: int) -> None:
    """One post-training quantization a budget; exports each, and writes what it took."""
    data = np.load(task / "data.npz")
    order = np.random.default_rng(seed).permutation(len(data["calibration"]))
    calibration = data["calibration"][order[:128]]
    module = network(task / "model.onnx")

    def images() -> Iterator[list[torch.Tensor]]:
        for start in range(0, len(calibration), BATCH):
            yield [torch.from_numpy(calibration[start : start + BATCH])]

    target = mct.get_target_platform_capabilities()
    target = type(target).model_validate(restricted(target.model_dump()))
    started = time.process_time()
    weights = sum(
        parameter.numel() for name, parameter in module.named_parameters() if "weight" in name
    )
    models = []
    for share in SHARES:
        budget = mct.core.ResourceUtilization(weights_memory=weights * share)
        model, information = mct.ptq.pytorch_post_training_quantization(
            module, images, target_resource_utilization=budget,
            core_config=mct.core.CoreConfig(
                mixed_precision_config=mct.core.MixedPrecisionQuantizationConfig(),
            ),
            target_platform_capabilities=target,
        )  # fmt: skip
        models.append((share, model, information))
    seconds = time.process_time() - started
    # The toolkit was written for torch's older exporter, which is no longer the default.
    torch.onnx.export = partial(torch.onnx.export, dynamo=False)
    points = []
    for number, (share, model, information) in enumerate(models):
        file = f"mct-{seed}-{number}.onnx"
        mct.exporter.pytorch_export_model(
            model, str(out / file), images,
            quantization_format=mct.exporter.QuantizationFormat.FAKELY_QUANT,
        )  # fmt: skip
        chosen = [int(index) for index in information.mixed_precision_cfg]
        points.append({"file": file, "share": share, "configuration": chosen})
        print(points[-1], flush=True)
    summary = {"evaluations": len(SHARES), "cpu_seconds": seconds, "points": points}
    (out / f"mct-{seed}.json").write_text(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
