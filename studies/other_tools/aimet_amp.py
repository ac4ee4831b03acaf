"""AIMET's automatic mixed precision on the task, run by a Python that has `aimet-onnx`.

`python aimet_amp.py TASK_DIR OUT_DIR SEED`: see `run.py`, which calls it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from aimet_onnx.common.amp.utils import AMPSearchAlgo
from aimet_onnx.common.defs import CallbackFunc, QuantizationDataType, QuantScheme
from aimet_onnx.mixed_precision import choose_mixed_precision
from aimet_onnx.quantsim import QuantizationSimModel

BATCH = 50
BITS = (8, 4)
"""Of weights; activations keep eight."""


def divergence(reference: np.ndarray, logits: np.ndarray) -> float:
    """Mean KL divergence of softmax(logits) from softmax(reference), in nats."""
    wanted, found = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (
        x - x.max(-1, keepdims=True) for x in (reference, logits)))  # fmt: skip
    return float((np.exp(wanted) * (wanted - found)).sum(-1).mean())


def main(task: Path, out: Path, seed: int) -> None:
    """Searches, exports every point of the path that it returns, and writes what it took."""
    data = np.load(task / "data.npz")
    order = np.random.default_rng(seed).permutation(len(data["calibration"]))
    calibration, search = data["calibration"][order[:128]], data["search"]
    evaluations = 0

    def forward(session: object, images: np.ndarray = calibration) -> np.ndarray:
        return np.concatenate([
            session.run(None, {"image": images[start : start + BATCH]})[0]  # type: ignore[attr-defined]
            for start in range(0, len(images), BATCH)
        ])  # fmt: skip

    def calibrate(session: object, _: None) -> None:
        forward(session)

    def score(session: object, _: None) -> float:
        nonlocal evaluations
        evaluations += 1
        return -divergence(data["search_logits"], forward(session, search))

    started = time.process_time()
    sim = QuantizationSimModel(
        onnx.load(task / "model.onnx"), param_type="int8", activation_type="int8",
        quant_scheme=QuantScheme.post_training_tf_enhanced, providers=["CPUExecutionProvider"],
    )  # fmt: skip
    batches = [{"image": calibration[i : i + BATCH]} for i in range(0, len(calibration), BATCH)]
    sim.compute_encodings(batches)
    candidates = [
        ((8, QuantizationDataType.int), (bits, QuantizationDataType.int)) for bits in BITS
    ]
    with tempfile.TemporaryDirectory() as results:
        path = choose_mixed_precision(
            sim, candidates, CallbackFunc(score), CallbackFunc(score), None, results, True,
            CallbackFunc(calibrate),
            use_all_amp_candidates=True, amp_search_algo=AMPSearchAlgo.BruteForce,
        )  # fmt: skip
    seconds = time.process_time() - started
    flips = [group.parameter_quantizers for _, _, group, _ in path]
    points = exported(sim, flips, batches, out, seed)
    summary = {"evaluations": evaluations, "cpu_seconds": seconds, "points": points}
    (out / f"aimet-{seed}.json").write_text(json.dumps(summary, indent=1))


def exported(
    sim: QuantizationSimModel,
    flips: Sequence[tuple[str, ...]],
    batches: Sequence[dict[str, np.ndarray]],
    out: Path,
    seed: int,
) -> list[dict[str, object]]:
    """The recipes along the path: all weights wide, then more and more of them narrow."""
    weights = {name for group in flips for name in group}
    narrow: set[str] = set()
    points: list[dict[str, object]] = []
    for group in [(), *flips]:
        if points and not group:
            continue  # a group of activations, which have one candidate
        narrow |= set(group)
        for name in weights:
            sim.qc_quantize_op_dict[name].set_bitwidth(BITS[1] if name in narrow else BITS[0])
        sim.compute_encodings(batches)
        file = f"aimet-{seed}-{len(points)}.onnx"
        onnx.save(sim.to_onnx_qdq(), out / file)
        points.append({"file": file, "narrow": sorted(narrow)})
    return points


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
