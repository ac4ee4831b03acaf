"""SRAM: energy of an access, leakage, area and access time by capacity, width and node.

A fit to the output of CACTI 7 (HewlettPackard/cacti, commit 1ffd8dfb) for scratch RAM of one bank
and one port at 360 K (`sram.json`, made by `python -m hwmodels.fit.circuits sram`): of each
quantity the logarithm, as an intercept and slopes of every node and cell type, and a shape that
all share, up to the fourth degree of log2 capacity and width. CACTI chooses an organisation for
each size, so that its own figures jump by a third at times; on capacities left out the fit is off
by `left_out_error(...)`. Between nodes a power law; below 22 nm the laws of
`hwmodels.circuits.node`, since CACTI has no finer one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from hwmodels.circuits.node import sram_area_factor, sram_energy_factor
from hwmodels.errors import CircuitError

Cell = Literal["itrs-hp", "itrs-lop"]
ARTEFACT = Path(__file__).with_name("sram.json")
QUANTITIES: Mapping[str, str] = {
    "read_j": "read_nj", "write_j": "write_nj", "leakage_w": "leak_mw", "area_mm2": "area_mm2",
    "access_s": "access_ns",
}  # fmt: skip
"""Quantities and the columns of CACTI's table that they are fitted to."""
UNITS: Mapping[str, float] = {
    "read_j": 1e-9, "write_j": 1e-9, "leakage_w": 1e-3, "area_mm2": 1.0, "access_s": 1e-9,
}  # fmt: skip
NODES = (22, 32, 45, 65, 90)
FINEST_NM, COARSEST_NM = 3.0, 90.0
SMALLEST_BYTES, LARGEST_BYTES = 1024, 32 << 20
NARROWEST_BITS, WIDEST_BITS = 32, 512


@dataclass(frozen=True, slots=True)
class Fit:
    """The fit of one quantity, as the artefact has it."""

    own: dict[str, list[float]]
    """By node and cell (`22 itrs-hp`): intercept, slopes of capacity and width."""
    shared: list[float]
    left_out_median: float
    left_out_p90: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sram:
    """One bank of SRAM, or banks side by side where a word is wider than one has."""

    capacity_bytes: float
    width_bits: int
    """Of the word that an access moves. A narrower one than 32 bits costs as much as 32 do."""
    node_nm: float
    cell: Cell = "itrs-hp"
    read_j: float
    write_j: float
    leakage_w: float
    area_mm2: float
    access_s: float

    @property
    def read_j_per_byte(self) -> float:
        """Joules a byte of the word that is read."""
        return self.read_j * 8 / self.width_bits

    @property
    def write_j_per_byte(self) -> float:
        """Joules a byte of the word that is written."""
        return self.write_j * 8 / self.width_bits


def sram(
    capacity_bytes: float, width_bits: int, node_nm: float, *, cell: Cell = "itrs-hp"
) -> Sram:
    """The figures of an SRAM.

    Args:
        capacity_bytes: 1 KiB to 32 MiB a bank; larger memories have banks, which is the caller's
            to say.
        width_bits: Bits of an access. Words of more than 512 bits are banks side by side.
        node_nm: 90 to 3 nm; CACTI's own to 22 nm.
        cell: High-performance or low-operating-power cells and periphery (ITRS).

    Raises:
        CircuitError: A capacity, width, cell or node outside of these.
    """
    if cell not in get_args(Cell):
        raise CircuitError(
            f"SRAM: cell {cell!r} is unknown; expected {' or '.join(get_args(Cell))}"
        )
    if width_bits < 1:
        raise CircuitError(f"SRAM: expected a word of at least one bit, got {width_bits}")
    beside = max(math.ceil(width_bits / WIDEST_BITS), 1)
    own_bytes = capacity_bytes / beside
    if not SMALLEST_BYTES <= own_bytes <= LARGEST_BYTES:
        raise CircuitError(
            f"SRAM of {capacity_bytes:g} bytes with words of {width_bits} bits: a bank has 1 KiB "
            f"to 32 MiB, got {own_bytes:g} bytes; split a larger memory into banks, build a "
            "smaller one of registers (hwmodels.circuits.registers)"
        )
    if not FINEST_NM <= node_nm <= COARSEST_NM:
        raise CircuitError(f"SRAM at {node_nm:g} nm: known from 90 to 3 nm")
    width = max(width_bits / beside, NARROWEST_BITS)
    values = {
        name: _quantity(name, own_bytes, width, node_nm, cell) * UNITS[name] for name in QUANTITIES
    }
    return Sram(
        capacity_bytes=capacity_bytes,
        width_bits=width_bits,
        node_nm=node_nm,
        cell=cell,
        **{name: value * (1 if name == "access_s" else beside) for name, value in values.items()},
    )


def sram_access_energy_j(
    capacity_bytes: float, width_bits: int, node_nm: float, *, write: bool = False
) -> float:
    """The energy of one access of `width_bits`; see `sram` for the ranges and errors."""
    found = sram(capacity_bytes, width_bits, node_nm)
    return found.write_j if write else found.read_j


def sram_area_mm2(capacity_bytes: float, width_bits: int, node_nm: float) -> float:
    """The area of an SRAM; see `sram` for the ranges and errors."""
    return sram(capacity_bytes, width_bits, node_nm).area_mm2


def sram_leakage_w(capacity_bytes: float, width_bits: int, node_nm: float) -> float:
    """The leakage of an SRAM at 360 K; see `sram` for the ranges and errors."""
    return sram(capacity_bytes, width_bits, node_nm).leakage_w


def left_out_error(quantity: str) -> tuple[float, float]:
    """The relative error on capacities left out of the fit: median and 90th percentile."""
    found = _fits()[quantity]
    return found.left_out_median, found.left_out_p90


def features(capacity_bytes: float, width_bits: float) -> tuple[list[float], list[float]]:
    """The terms of the fit: those with factors of each node and cell, those that all share."""
    c, w = math.log2(capacity_bytes / 8192), math.log2(width_bits / 64)
    own = [1.0, c, w]
    shared = [
        c**2, c**3, c**4, w**2, w**3, c * w, c * w**2, c**2 * w, c**2 * w**2, c**3 * w, c * w**3,
    ]  # fmt: skip
    return own, shared


def _quantity(name: str, capacity: float, width: float, node_nm: float, cell: Cell) -> float:
    """In CACTI's unit."""
    base = max(node_nm, NODES[0])
    low = max(node for node in NODES if node <= base)
    high = min(node for node in NODES if node >= base)
    value = _at_node(name, capacity, width, low, cell)
    if high != low:
        share = math.log(base / low) / math.log(high / low)
        value = value ** (1 - share) * _at_node(name, capacity, width, high, cell) ** share
    if node_nm >= NODES[0]:
        return value
    match name:
        case "area_mm2" | "leakage_w":  # leakage with the area of cells: assumed
            return value * sram_area_factor(NODES[0], node_nm)
        case "access_s":  # wires do not get faster
            return value
        case _:
            return value * sram_energy_factor(NODES[0], node_nm)


def _at_node(name: str, capacity: float, width: float, node: int, cell: Cell) -> float:
    fit = _fits()[name]
    own, shared = features(capacity, width)
    terms = zip(own, fit.own[f"{node} {cell}"], strict=True)
    rest = zip(shared, fit.shared, strict=True)
    return math.exp(sum(a * b for a, b in terms) + sum(a * b for a, b in rest))


@cache
def _fits() -> dict[str, Fit]:
    loaded = json.loads(ARTEFACT.read_text(encoding="utf-8"))
    return {name: Fit(**fields) for name, fields in loaded.items()}
