"""A language model in small whose head is its table of tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (int64[batch, sequence] ids) => (float[batch, sequence, 48] logits) {
    h = Gather (table, ids)
    a = MatMul (h, w)
    t = Transpose <perm = [1, 0]> (table)
    logits = MatMul (a, t)
}
"""
ROWS, DEPTH = 48, 32
TABLE, HEAD = "Gather_0/in0", "MatMul_3/in1"


def save(path: Path, weight: Callable[[tuple[int, int]], np.ndarray]) -> Path:
    """The network, with weights of each shape as the caller makes them."""
    model = onnx.parser.parse_model(MODEL)
    for name, shape in (("table", (ROWS, DEPTH)), ("w", (DEPTH, DEPTH))):
        constant = onnx.numpy_helper.from_array(weight(shape).astype(np.float32), name)
        model.graph.initializer.append(constant)
    onnx.save(model, path)
    return path
