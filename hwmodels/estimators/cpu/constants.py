"""Constants of the model of processors: instructions of elementwise work, shares, blocks.

What libraries reach of a core's rate is in `constants.json`: factors on the terms of families of
kernels, by runtime and element, fitted to operators that were timed on one processor
(`python -m hwmodels.fit.cpu`; `studies/cpu_latency`). They carry over to other processors as far
as libraries are written alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hwmodels.devices.cpu import FittedFactor

ARTEFACT = Path(__file__).parent / "constants.json"

INSTRUCTIONS: Mapping[str, float] = {
    "gelu": 24.0,  # an error function, or a hyperbolic tangent, as a polynomial
    "silu": 16.0, "sigmoid": 14.0, "tanh": 18.0, "exp": 12.0, "erf": 20.0, "softmax": 18.0,
    "layernorm": 6.0, "rmsnorm": 4.0, "batchnormalization": 2.0, "reduce_mean": 1.5,
    "compute_scale": 2.0, "abs": 1.0, "round": 1.0, "div": 4.0, "sqrt": 4.0, "pow": 20.0,
    "quantize": 4.0, "requantize": 6.0, "cast": 2.0, "reduce": 1.5, "rope": 6.0,
}  # fmt: skip
"""Vector instructions of an element, by a kernel's detail or kind: counts of the algorithm."""
ANY_INSTRUCTIONS = 1.5
"""Of any other: an operation, a part of a load and of a store."""
MAP_INSTRUCTIONS = 1.0
"""Of an element of a window that is reduced."""
CONVERT = 2.0
"""Of an element that is brought to another format before it is multiplied."""
UNPACK = 3.0
"""Of a weight of less than 8 bits: shift, mask, scale."""
PACK_CYCLES = 1.0
"""Cycles of an element of a weight that is brought into a kernel's layout: a transposed copy."""

SOCKET_REACH = 0.63
"""Share of a main memory's bandwidth by its datasheet that all cores draw in a network: int8
weights of Llama-2-7B (6.7 GB) were reported to take 35 ms a token on 56 cores of a Xeon 8480+
(Intel, 2023) of 307 GB/s; users had 45 ms on 48 cores of an 8488C (0.49). Not measured here."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Constants:
    """Figures that no device file has of a processor."""

    factors: tuple[FittedFactor, ...]
    """Time that libraries take beyond the instructions, by term, runtime, family and element."""
    instructions: Mapping[str, float] = field(default_factory=lambda: dict(INSTRUCTIONS))
    overlap: float = 2.0
    """Exponent of the norm that joins computing and moving: 1 adds, infinity takes the larger."""
    least_rows: int = 2
    """Rows of a tile that the last one counts as at least: fewer leave additions waiting for each
    other."""
    block_share: float = 0.5
    """Share of a core's last cache that a block of the first operand takes."""
    block_depth: int = 256
    """Elements of K of a block."""
    sparse_share: float = 0.25
    """Share of the rate of float32 that a sparse product of outliers reaches."""
    table_loads: float = 2.0
    """Look-ups a cycle in a table that lies in the nearest cache and not in a register."""
    low: float = 1.5
    """Factors of the interval of kernels that nobody timed on the device."""
    high: float = 2.0


def load_constants(path: Path = ARTEFACT) -> Constants:
    """The shipped constants."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"factors": []}
    return Constants(factors=tuple(FittedFactor(**one) for one in content["factors"]))


CONSTANTS = load_constants()
