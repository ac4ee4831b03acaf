"""AIMET on a task, run by a Python that has `aimet-onnx`.

`python aimet.py TASK_DIR OUT_DIR TOOL SHARE ...`: see `budgets.py`. Weights by channel. Within a
budget its sensitivities are used as its light mixed precision does: every weight narrow but those
that lose most alone, as many as the bytes allow. `aimet adaround` learns roundings then.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from aimet_onnx import apply_adaround
from aimet_onnx.analysis.sensitivity import SensitivityMetric, analyze_per_quantizer_sensitivity
from aimet_onnx.common.defs import QuantScheme
from aimet_onnx.quantsim import QuantizationSimModel

from studies.other_tools.aimet_amp import BITS, divergence
from studies.vision_recipes.attention import attends, read_by_products

BATCH = 16
LOOKED_AT = 16
"""Search crops that every weight's sensitivity is measured on."""
MINMAX, ADAROUND = "aimet minmax", "aimet adaround"
PERCENTILE = "aimet percentile"
KEPT = 99.999
"""Per cent of an activation's values inside of its range, under `aimet percentile`: as of ONNX
Runtime's calibrator and of `dse`. No argument says it, AIMET's compiled quantizer takes it."""
ITERATIONS = 1000
"""Of AdaRound for each weight; AIMET asks for 10,000 and more, which take hours here."""


def main(task: Path, out: Path, tool: str, shares: Sequence[float]) -> None:
    """Exports a recipe a budget, and writes what it took beside it."""
    data = np.load(task / "data.npz")
    sensitive: Sequence[str] = ()
    found_in = 0.0
    if min(shares) < 1:
        started = time.process_time()
        sensitive = _sensitivities(task, data, tool)
        found_in = time.process_time() - started
    for share in shares:
        started = time.process_time()
        sim = _simulated(task, data, tool, BITS[0])
        if share < 1:
            started -= found_in
            _narrow(sim, sensitive, share)
            _calibrate(sim, data["calibration"])
        if tool == ADAROUND:
            apply_adaround(sim, _batches(sim, data["calibration"]), ITERATIONS)
        _export(sim, out, tool, share, started)


def _simulated(
    task: Path, data: Mapping[str, np.ndarray], tool: str, bits: int
) -> QuantizationSimModel:
    """The network with calibrated quantizers, all weights of one width."""
    model = onnx.load(task / "model.onnx")
    # Its rule for a convolution and its Clip misses: what Clip reads would be rounded, too, over
    # a range that it then cuts. That loses eight times as much.
    clipped = {name for node in model.graph.node if node.op_type == "Clip" for name in node.input}
    # Ranges of least error are better on the search crops wherever both were tried.
    scheme = QuantScheme.min_max if tool == MINMAX else QuantScheme.post_training_tf_enhanced
    sim = QuantizationSimModel(
        model, param_type="int8", activation_type="int8", quant_scheme=scheme,
        providers=["CPUExecutionProvider"],
    )  # fmt: skip
    if attends(model.graph):
        clipped = sim.qc_quantize_op_dict.keys() - read_by_products(model.graph)
    for tensor in clipped & sim.qc_quantize_op_dict.keys():
        sim.qc_quantize_op_dict[tensor].enabled = False
    if tool == PERCENTILE:
        held = {tensor.name for tensor in sim.model.graph().initializer}
        for name, quantizer in sim.qc_quantize_op_dict.items():
            if quantizer.enabled and name not in held:
                quantizer.set_quant_scheme(QuantScheme.post_training_percentile)
                quantizer._tensor_quantizer.setPercentileValue(KEPT)
    for weight in _weights(sim):
        sim.qc_quantize_op_dict[weight].set_bitwidth(bits)
    _calibrate(sim, data["calibration"])
    return sim


def _weights(sim: QuantizationSimModel) -> dict[str, int]:
    """Elements of every quantized weight; tables of tokens, which no product reads, are none."""
    return {
        tensor.name: math.prod(tensor.dims)
        for tensor in sim.model.graph().initializer
        if len(tensor.dims) > 1
        and tensor.name in sim.qc_quantize_op_dict
        and sim.qc_quantize_op_dict[tensor.name].enabled
    }


def _batches(sim: QuantizationSimModel, images: np.ndarray) -> list[dict[str, np.ndarray]]:
    name = sim.model.graph().input[0].name
    return [{name: images[start : start + BATCH]} for start in range(0, len(images), BATCH)]


def _calibrate(sim: QuantizationSimModel, images: np.ndarray) -> None:
    sim.compute_encodings(_batches(sim, images))


def _sensitivities(task: Path, data: Mapping[str, np.ndarray], tool: str) -> list[str]:
    """The weights, those first that lose most where they alone are narrow."""
    sim = _simulated(task, data, tool, BITS[1])
    weights = _weights(sim)
    (batch,) = _batches(sim, data["search"][:LOOKED_AT])
    wanted = data["search_logits"][:LOOKED_AT]
    metric = SensitivityMetric(
        "divergence", lambda session: distance(wanted, session.run(None, batch)[0])
    )
    return list(
        analyze_per_quantizer_sensitivity(
            sim, metric, group_fn=lambda name: name if name in weights else None
        )
    )


def distance(wanted: np.ndarray, outputs: np.ndarray) -> float:
    """Mean divergence in nats; of embeddings the mean squared distance."""
    if np.allclose(np.linalg.norm(wanted, axis=-1), 1, atol=1e-3):
        return float(np.square(outputs - wanted).sum(-1).mean())
    return divergence(wanted, outputs)


def _narrow(sim: QuantizationSimModel, sensitive: Sequence[str], share: float) -> None:
    """Sets widths within a share of the bytes of 8-bit weights."""
    weights = _weights(sim)
    room = (share - BITS[1] / BITS[0]) * sum(weights.values()) / (1 - BITS[1] / BITS[0])
    for weight in sensitive:
        wide = weights[weight] <= room
        room -= weights[weight] if wide else 0
        sim.qc_quantize_op_dict[weight].set_bitwidth(BITS[0] if wide else BITS[1])


def _export(sim: QuantizationSimModel, out: Path, tool: str, share: float, started: float) -> None:
    """Writes the file and what it took since a point of the process' time."""
    seconds = time.process_time() - started
    file = f"{tool.replace(' ', '-')}-{share}"
    onnx.save(sim.to_onnx_qdq(), out / f"{file}.onnx")
    row = {"tool": tool, "share": share, "file": f"{file}.onnx", "cpu_seconds": seconds}
    (out / f"{file}.json").write_text(json.dumps(row))
    print(row, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], [float(s) for s in sys.argv[4:]])
