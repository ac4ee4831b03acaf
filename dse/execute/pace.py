"""The time that products take here, so that a long pass is told before it starts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch

from dse.execute.memory import shaped
from dse.graph.ir.graph import Graph
from dse.graph.lower.loops import macs_by_node
from dse.numerics.precision import exact_float32

SIZE = 768
"""Rows of the matrices that are multiplied: large enough for full speed, done in milliseconds."""
TIMES = 3


def least_seconds(graph: Graph, shapes: Mapping[str, Sequence[int]]) -> float:
    """Seconds that the products of one batch take on the CPU, nothing else counted.

    Args:
        graph: with weights.
        shapes: sizes of the fed tensors by input name. Where shapes depend on data, 0.
    """
    macs = sum(macs_by_node(graph, types).values()) if (types := shaped(graph, shapes)) else 0
    return macs / _macs_a_second() if macs else 0.0


def _macs_a_second() -> float:
    a = torch.ones(SIZE, SIZE)
    fastest = float("inf")
    with torch.inference_mode(), exact_float32(torch.device("cpu")):
        for _ in range(TIMES):
            start = time.perf_counter()
            torch.mm(a, a)
            fastest = min(fastest, time.perf_counter() - start)
    return SIZE**3 / fastest
