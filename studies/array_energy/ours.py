"""ZigZag's architectures as hierarchies, and its mappings on them.

Those that ZigZag ships are written by hand, `two_cores.yaml` is read as `dse` reads ZigZag's. A
level's figures are those of ZigZag's YAML (zigzag-dse 3.9.1, `zigzag/inputs/hardware`): joules
of an access of its widest port word, and words of its narrowest one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
MAC_PJ = {"eyeriss_like": 0.5}
"""Of a product; 0.04 on all other architectures."""
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
    ports: int = 1,
) -> Level:
    """A memory: bytes, narrowest and widest access in bits, pJ of a read and of a write.

    ports: for reads, and as many for writes; 0: one does both. Second halves are there where they
    fit, as ZigZag has it.
    """
    least, most = (count / 8 for count in bits)
    every = frozenset(holds)
    return Level(
        name=name,
        holds=tuple(holds),
        per=frozenset(per),
        capacity_bytes=size,
        bytes_per_cycle=max(ports, 1) * most,
        write_bytes_per_cycle=ports * most if ports else None,
        read_j=pj[0] * 1e-12 / most,
        write_j=pj[1] * 1e-12 / most,
        double_buffered=frozenset(),
        streamed=every,
        waits_for_room=every,
        word_bytes=least,
    )


DRAM = level("dram", ALL, math.inf, (64, 64), (700, 750), ports=0)
SRAM_2MB = level("sram_2MB", ("input", "output"), 2**21, (64, 2048), (416.16, 378.4))
SRAMS_1MB = (
    level("sram_1MB_A", ("input", "output"), 2**20, (64, 1024), (208.08, 189.2)),
    level("sram_1MB_W", ("weight",), 2**20, (64, 1024), (208.08, 189.2)),
)
PLACE = ("D1", "D2")
LEVELS: dict[str, tuple[Level, ...]] = {
    "eyeriss_like": (
        level("rf_64B_A", ("input",), 64, (8, 8), (1.0, 1.5), per=PLACE),
        level("rf_64B_W", ("weight",), 64, (8, 8), (1.0, 1.5), per=PLACE),
        level("rf_16B", ("output",), 16, (24, 24), (1.5, 2.0), per=PLACE),
        level("sram_8KB", ("output",), 2**13, (128, 128), (10, 15), ports=0),
        level("sram_64KB", ("weight",), 2**16, (128, 128), (20, 25)),
        level("sram_1M", ("input", "output"), 2**20, (384, 384), (100, 130), ports=0),
        level("dram", ALL, math.inf, (64, 64), (1000, 1000), ports=0),
    ),
    "tpu_like": (
        level("rf_128B", ("weight",), 128, (8, 8), (0.095, 0.095), per=PLACE),
        level("rf_2B", ("output",), 2, (16, 16), (0.021, 0.021), per=PLACE, ports=2),
        SRAM_2MB,
        DRAM,
    ),
    "edge_tpu_like": (
        level("rf_1B", ("weight",), 1, (8, 8), (0.01, 0.01), per=("D1", "D2")),
        level("rf_2B", ("output",), 2, (16, 16), (0.02, 0.02), per=("D1", "D3", "D4"), ports=2),
        level("sram_32KB", ("weight",), 2**15, (64, 512), (22.9, 52.01)),
        SRAM_2MB,
        DRAM,
    ),
    "ascend_like": (
        level("rf_1B", ("weight",), 1, (8, 8), (0.01, 0.01), per=("D1", "D2")),
        level("rf_2B", ("output",), 2, (16, 16), (0.02, 0.02), per=("D1", "D3", "D4"), ports=2),
        level("rf_64KB_I", ("input",), 2**13, (64, 512), (26.56, 30.72)),
        level("rf_64KB_W", ("weight",), 2**13, (64, 2048), (50.16, 108.0)),
        level("sram_256KB_O", ("output",), 2**18, (64, 2048), (123.2, 212.8)),
        level("sram_1MB_A", ("input", "output"), 2**20, (64, 4096), (465.6, 825.6)),
        level("sram_1MB_W", ("weight",), 2**20, (64, 4096), (465.6, 825.6)),
        DRAM,
    ),
    "meta_prototype": (
        level("rf_1B", ("weight",), 1, (8, 8), (0.01, 0.01), per=("D1", "D2")),
        level("rf_2B", ("output",), 2, (16, 16), (0.02, 0.02), per=("D1", "D3", "D4"), ports=2),
        level("sram_64KB", ("weight",), 2**16, (64, 512), (26.56, 30.8)),
        level("sram_32KB", ("input",), 2**15, (64, 256), (13.28, 15.4)),
        *SRAMS_1MB,
        DRAM,
    ),
    "tesla_npu_like": (
        level("rf_1B", ("weight",), 1, (8, 8), (0.01, 0.01), per=("D1",)),
        level("rf_4B", ("output",), 4, (16, 16), (0.022, 0.022), per=("D1", "D2", "D3"), ports=2),
        level("sram_1KB_I", ("input",), 2**10, (64, 256), (4.78, 5.59)),
        level("sram_1KB_W", ("weight",), 2**10, (64, 256), (4.78, 5.59)),
        *SRAMS_1MB,
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


def mac_pj(case: Case) -> float:
    return MAC_PJ.get(architecture(case), 0.04)


def placed(case: Case, *, whole: bool = False) -> Placed:
    """A layer on an architecture, unrolled as the case says.

    whole: whether each tile of main memory is waited for as a whole, and comes into the second
    of two halves; nothing waits for registers then.
    """
    axes = []
    for name, (unrolled,) in case["spatial"].items():
        loop, size = unrolled.split(", ")
        axes.append(Axis(name=name, size=int(size), unrolls=(loop,)))
    hierarchy = Hierarchy(
        name=str(case["case"]),
        clock_hz=1e9,
        axes=tuple(axes),
        levels=tuple(_in_halves(one) if whole else one for one in levels(case)),
        movement="broadcast",
        stationary=None,
        load_hidden=False,
    )
    nest = nest_of(case)
    return Placed(hierarchy=hierarchy, nest=nest, unrolling=unrolling_of(hierarchy, nest))


def _in_halves(one: Level) -> Level:
    nothing: frozenset[TensorName] = frozenset()
    if one.per:
        return replace(one, waits_for_room=nothing)
    return replace(
        one, double_buffered=frozenset(one.holds), streamed=nothing, waits_for_room=nothing
    )


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
