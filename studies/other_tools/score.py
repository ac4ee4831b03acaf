"""What a quantized ONNX model is worth, read from the file alone: the same for every tool.

The width of a weight is read from its values: it has four bits if every channel's are multiples of
one step, at most eight of them. So neither what a tool calls a layer nor how it stores it matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

ACTIVATION_BITS = 8
"""Every recipe of the task."""
NARROW_BITS = 4
WIDE_BITS = 8
TOLERANCE = 1e-3
"""Of a step: stored scales are float32."""
BATCH = 50
INPUTS_FIRST = ("MatMul", "ConvTranspose")
"""Products whose weights have the input channels before the output channels."""
PRODUCTS = ("Conv", "Gemm", *INPUTS_FIRST)
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Neutral costs of a recipe: of weights alone, scales not counted."""

    weight_bytes: float
    bops: float
    """Bit operations: MACs x weight bits x activation bits (Baskin et al., UNIQ, 1804.10969)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How ONNX Runtime's outputs compare with full precision's on the report split."""

    loss: float
    """Mean KL divergence, nats an image."""
    stderr: float
    accuracy: float


def cost(path: Path) -> Cost:
    """The cost of the convolutions and the classifier of a recipe."""
    model = shape_inference.infer_shapes(onnx.load(path))
    constants = _constants(model.graph)
    shapes = {
        value.name: [size.dim_value or 1 for size in value.type.tensor_type.shape.dim]
        for value in [*model.graph.value_info, *model.graph.output]
    }
    total_bytes = total_bops = 0.0
    for node in model.graph.node:
        if node.op_type not in PRODUCTS or node.input[1] not in constants:
            continue
        weight = constants[node.input[1]]
        by_channel = weight.swapaxes(0, 1) if node.op_type in INPUTS_FIRST else weight
        bits = NARROW_BITS if all(_is_narrow(channel) for channel in by_channel) else WIDE_BITS
        positions = np.prod(shapes[node.output[0]][2:]) if "Conv" in node.op_type else 1
        total_bytes += weight.size * bits / 8
        total_bops += float(weight.size * positions) * bits * ACTIVATION_BITS
    return Cost(weight_bytes=total_bytes, bops=total_bops)


def _is_narrow(channel: FloatArray) -> bool:
    largest = float(np.abs(channel).max())
    if largest == 0:
        return True
    steps = [channel.ravel() / largest * count for count in range(1, (1 << NARROW_BITS) // 2 + 1)]
    return any(np.abs(values - np.rint(values)).max() < TOLERANCE for values in steps)


def _constants(graph: onnx.GraphProto) -> dict[str, FloatArray]:
    """Initializers, and what nodes that read nothing else make of them (Dequantize, Transpose)."""
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" or (
            node.input and all(name in known for name in node.input if name)
        ):
            results = ReferenceEvaluator(node).run(
                None, {name: known[name] for name in node.input if name}
            )
            known |= dict(zip(node.output, results, strict=True))
    return known


def quality(
    path: Path, images: FloatArray, labels: npt.NDArray[np.int64], reference: FloatArray
) -> Quality:
    """ONNX Runtime's run of a recipe against the full-precision logits."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    logits = np.concatenate([
        session.run(None, {name: images[start : start + BATCH]})[0]
        for start in range(0, len(images), BATCH)
    ])  # fmt: skip
    wanted, found = log_softmax(reference), log_softmax(logits)
    losses = (np.exp(wanted) * (wanted - found)).sum(-1)
    return Quality(
        loss=float(losses.mean()),
        stderr=float(losses.std(ddof=1) / np.sqrt(len(losses))),
        accuracy=float((logits.argmax(-1) == labels).mean()),
    )


def log_softmax(logits: FloatArray) -> FloatArray:
    """Along the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    result: FloatArray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result
