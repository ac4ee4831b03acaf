"""ZigZag's architectures as hierarchies, and its mappings on them.

Those that ZigZag ships are written by hand, `two_cores.yaml` is read as `dse` reads ZigZag's. A
level's figures are those of ZigZag's YAML (zigzag-dse 3.9.1, `zigzag/inputs/hardware`): joules
of an access of its widest port word, and words of its narrowest one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from hwmodels.devices.load import load_device
from hwmodels.devices.spatial import LOOPS, Loop
from hwmodels.devices.zigzag import device_text
from hwmodels.estimators.array.hierarchy import Axis, Hierarchy, Level
from hwmodels.estimators.array.mapping import Mapping as EvenMapping
from hwmodels.estimators.array.nest import Nest
from hwmodels.estimators.array.traffic import REUSE_INDICES, Placed
from hwmodels.estimators.array.uneven import UnevenMapping
from hwmodels.estimators.array.unrolling import unrolling_of
from hwmodels.tensors import TENSORS, TensorName

Case = Mapping[str, Any]
"""Of `results/zigzag.json`."""
OPERANDS: dict[TensorName, str] = {"input": "I", "weight": "W", "output": "O"}
MAC_PJ = {"eyeriss_like": 0.5, "tpu_like": 0.04, "edge_tpu_like": 0.04, "two_cores": 0.04}
TWO_CORES = Path(__file__).parent / "two_cores.yaml"
ALL = TENSORS


def level(
    name: str,
    holds: Sequence[TensorName],
    size: float,
    bits: tuple[int, int],
    pj: tuple[float, float],
    *,
    per: tuple[str, ...] = (),
    ports: int = 2,
) -> Level:
    """A memory: bytes, narrowest and widest access in bits, pJ of a read and of a write.

    Registers deliver a word each cycle; other memories move a word of each port.
    """
    least, most = (count / 8 for count in bits)
    return Level(
        name=name,
        holds=tuple(holds),
        per=frozenset(per),
        capacity_bytes=size,
        bytes_per_cycle=math.inf if per else ports * most,
        read_j=pj[0] * 1e-12 / most,
        write_j=pj[1] * 1e-12 / most,
        double_buffered=frozenset() if per else frozenset(holds),
        word_bytes=least,
    )


DRAM = level("dram", ALL, math.inf, (64, 64), (700, 750), ports=1)
SRAM_2MB = level("sram_2MB", ("input", "output"), 2**21, (64, 2048), (416.16, 378.4))
PLACE = ("D1", "D2")
LEVELS: dict[str, tuple[Level, ...]] = {
    "eyeriss_like": (
        level("rf_64B_A", ("input",), 64, (8, 8), (1.0, 1.5), per=PLACE),
        level("rf_64B_W", ("weight",), 64, (8, 8), (1.0, 1.5), per=PLACE),
        level("rf_16B", ("output",), 16, (24, 24), (1.5, 2.0), per=PLACE),
        level("sram_8KB", ("output",), 2**13, (128, 128), (10, 15), ports=1),
        level("sram_64KB", ("weight",), 2**16, (128, 128), (20, 25)),
        level("sram_1M", ("input", "output"), 2**20, (384, 384), (100, 130), ports=1),
        level("dram", ALL, math.inf, (64, 64), (1000, 1000), ports=1),
    ),
    "tpu_like": (
        level("rf_128B", ("weight",), 128, (8, 8), (0.095, 0.095), per=PLACE),
        level("rf_2B", ("output",), 2, (16, 16), (0.021, 0.021), per=PLACE),
        SRAM_2MB,
        DRAM,
    ),
    "edge_tpu_like": (
        level("rf_1B", ("weight",), 1, (8, 8), (0.01, 0.01), per=("D1", "D2")),
        level("rf_2B", ("output",), 2, (16, 16), (0.02, 0.02), per=("D1", "D3", "D4")),
        level("sram_32KB", ("weight",), 2**15, (64, 512), (22.9, 52.01)),
        SRAM_2MB,
        DRAM,
    ),
}


def levels(case: Case) -> tuple[Level, ...]:
    """The memories of a case's architecture, nearest to the array first."""
    if architecture(case) in LEVELS:
        return LEVELS[architecture(case)]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "two-cores.yaml"
        path.write_text(device_text(TWO_CORES), encoding="utf-8")
        return Hierarchy.of(load_device(path)).levels


def architecture(case: Case) -> str:
    return str(case["case"]).removesuffix("_rows")


def placed(case: Case) -> Placed:
    """A layer on an architecture, unrolled as the case says."""
    axes = []
    for name, (unrolled,) in case["spatial"].items():
        loop, size = unrolled.split(", ")
        axes.append(Axis(name=name, size=int(size), unrolls=(loop,)))
    hierarchy = Hierarchy(
        name=str(case["case"]),
        clock_hz=1e9,
        axes=tuple(axes),
        levels=levels(case),
        movement="broadcast",
        stationary=None,
        load_hidden=False,
    )
    nest = nest_of(case)
    return Placed(hierarchy=hierarchy, nest=nest, unrolling=unrolling_of(hierarchy, nest))


def nest_of(case: Case) -> Nest:
    """Eight-bit operands, partial sums of sixteen unless told; windows without padding."""
    sizes: dict[str, int] = case["sizes"]
    size = {loop: sizes.get(loop, 1) for loop in LOOPS}
    windows = size["FY"] * size["FX"] > 1
    extents = (size["OY"] + size["FY"] - 1, size["OX"] + size["FX"] - 1)
    return Nest(
        sizes=tuple(size.values()),
        in_size=extents if windows else (0, 0),
        partial_bytes=case.get("sum_bits", 16) / 8,
    )


def zigzag_mapping(case: Case) -> UnevenMapping:
    """The temporal mapping that ZigZag found."""
    levels: dict[str, list[list[tuple[Loop, int]]]] = case["temporal"]
    loops = tuple((loop, float(size)) for one in levels["O"] for loop, size in one)
    inside = {
        tensor: tuple(itertools.accumulate(len(one) for one in levels[operand]))[:-1]
        for tensor, operand in OPERANDS.items()
    }
    return UnevenMapping(loops=loops, inside=inside)


def order_of(where: Placed, mapping: EvenMapping) -> list[list[Any]]:
    """Loops of an even mapping and their steps, innermost first."""
    bounds = [where.unrolling.tile, *map(np.array, mapping.tiles), where.sizes]
    found: list[list[Any]] = []
    for (inner, outer), order in zip(itertools.pairwise(bounds), mapping.orders, strict=True):
        steps = np.ceil(outer / inner - 1e-9)
        group = [index for tensor in order for index in REUSE_INDICES[tensor]]
        found += [[LOOPS[index], int(steps[index])] for index in group if steps[index] > 1]
    return found
