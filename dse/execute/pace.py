"""The time that products take here, so that a long pass is told before it starts."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch

from dse.graph.ir.graph import Graph, TensorType
from dse.graph.lower.loops import macs_by_node
from dse.numerics.precision import exact_float32

SIZE = 768
"""Rows of the matrices that are multiplied: large enough for full speed, done in milliseconds."""
TIMES = 3
QUICK_MACS = 1e11
"""Multiply-accumulates that take seconds anywhere: nothing is timed for fewer."""


def least_seconds(graph: Graph, types: Mapping[str, TensorType], batches: float) -> float:
    """Seconds that the products of a pass take on the CPU, nothing else counted.

    Args:
        graph: with weights.
        types: of its values at the sizes of a batch; without any (they depend on data), 0.
        batches: of the pass.
    """
    macs = batches * sum(macs_by_node(graph, types).values()) if types else 0.0
    return macs / _macs_a_second() if macs > QUICK_MACS else 0.0


def _macs_a_second() -> float:
    a = torch.ones(SIZE, SIZE)
    fastest = float("inf")
    with torch.inference_mode(), exact_float32(torch.device("cpu")):
        for _ in range(TIMES):
            start = time.perf_counter()
            torch.mm(a, a)
            fastest = min(fastest, time.perf_counter() - start)
    return SIZE**3 / fastest
