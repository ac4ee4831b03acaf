"""AIMET on a task, run by a Python that has `aimet-onnx`.

`python aimet.py TASK_DIR OUT_DIR SHARE ...`: see `budgets.py`. Weights by channel. Within a budget
its sensitivities are used as its light mixed precision does: every weight narrow but those that
lose most alone, as many as the bytes allow. No rounding that looks at data is used.
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
from aimet_onnx.analysis.sensitivity import SensitivityMetric, analyze_per_quantizer_sensitivity
from aimet_onnx.common.defs import QuantScheme
from aimet_onnx.quantsim import QuantizationSimModel

from studies.other_tools.aimet_amp import BITS, divergence

BATCH = 16
LOOKED_AT = 16
"""Search crops that every weight's sensitivity is measured on."""
MINMAX, LEAST_ERROR = "aimet minmax", "aimet"
SCHEMES = {MINMAX: QuantScheme.min_max, LEAST_ERROR: QuantScheme.post_training_tf_enhanced}
"""Ranges, by what the table says; those of least error are better on the search crops."""


def main(task: Path, out: Path, shares: Sequence[float]) -> None:
    """Exports a recipe a budget, and writes what it took beside it."""
    data = np.load(task / "data.npz")
    if 1.0 in shares:
        for name in SCHEMES:
            started = time.process_time()
            sim = _simulated(task, data, name, BITS[0])
            _export(sim, out, name, 1.0, started)
    if min(shares) < 1:
        _mixed(task, out, data, [share for share in shares if share < 1])


def _simulated(
    task: Path, data: Mapping[str, np.ndarray], name: str, bits: int
) -> QuantizationSimModel:
    """The network with calibrated quantizers, all weights of one width."""
    model = onnx.load(task / "model.onnx")
    # Its rule for a convolution and its Clip misses: what Clip reads would be rounded, too, over
    # a range that it then cuts. That loses eight times as much.
    clipped = {name for node in model.graph.node if node.op_type == "Clip" for name in node.input}
    sim = QuantizationSimModel(
        model, param_type="int8", activation_type="int8", quant_scheme=SCHEMES[name],
        providers=["CPUExecutionProvider"],
    )  # fmt: skip
    for tensor in clipped & sim.qc_quantize_op_dict.keys():
        sim.qc_quantize_op_dict[tensor].enabled = False
    for weight in _weights(sim):
        sim.qc_quantize_op_dict[weight].set_bitwidth(bits)
    _calibrate(sim, data)
    return sim


def _weights(sim: QuantizationSimModel) -> dict[str, int]:
    """Elements of every quantized weight."""
    return {
        tensor.name: math.prod(tensor.dims)
        for tensor in sim.model.graph().initializer
        if len(tensor.dims) > 1 and tensor.name in sim.qc_quantize_op_dict
    }


def _calibrate(sim: QuantizationSimModel, data: Mapping[str, np.ndarray]) -> None:
    images = data["calibration"]
    sim.compute_encodings([
        {"image": images[start : start + BATCH]} for start in range(0, len(images), BATCH)
    ])  # fmt: skip


def _mixed(task: Path, out: Path, data: Mapping[str, np.ndarray], shares: Sequence[float]) -> None:
    """Recipes within budgets, of one list of sensitivities."""
    started = time.process_time()
    sim = _simulated(task, data, LEAST_ERROR, BITS[1])
    weights = _weights(sim)
    images, wanted = data["search"][:LOOKED_AT], data["search_logits"][:LOOKED_AT]
    metric = SensitivityMetric(
        "divergence",
        lambda session: divergence(wanted, session.run(None, {"image": images})[0]),
    )
    scores = analyze_per_quantizer_sensitivity(
        sim, metric, group_fn=lambda name: name if name in weights else None
    )
    for share in shares:
        room = (share - BITS[1] / BITS[0]) * sum(weights.values()) / (1 - BITS[1] / BITS[0])
        for weight in scores:
            wide = weights[weight] <= room
            room -= weights[weight] if wide else 0
            sim.qc_quantize_op_dict[weight].set_bitwidth(BITS[0] if wide else BITS[1])
        _calibrate(sim, data)
        _export(sim, out, LEAST_ERROR, share, started)


def _export(sim: QuantizationSimModel, out: Path, name: str, share: float, started: float) -> None:
    """Writes the file and what it took since a point of the process' time."""
    seconds = time.process_time() - started
    file = f"{name.replace(' ', '-')}-{share}"
    onnx.save(sim.to_onnx_qdq(), out / f"{file}.onnx")
    row = {"tool": name, "share": share, "file": f"{file}.onnx", "cpu_seconds": seconds}
    (out / f"{file}.json").write_text(json.dumps(row))
    print(row, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [float(share) for share in sys.argv[3:]])
