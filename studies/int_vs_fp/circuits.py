"""Energy and area of the formats' multiply-accumulates, in designs with more or fewer lanes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from hwmodels.circuits.design import mac_design
from hwmodels.circuits.mac import mac_area_um2, mac_energy_j
from hwmodels.circuits.technology import TECHNOLOGIES
from hwmodels.formats import catalog
from hwmodels.formats.accumulator import accumulator
from studies.int_vs_fp.formats import Entry

NODE_NM = 16
LANES = (1, 4, 8, 16, 32, 64)
EQUAL = 16
"""Lanes where all formats get as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way of building them all: what the constants come from, and who chooses the lanes."""

    technology: str
    lanes: int
    """0: each format the number that takes least energy."""

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.technology}, {f'{self.lanes} lanes' if self.lanes else 'best lanes'}"


WAYS = tuple(
    Way(technology=technology, lanes=lanes) for technology in TECHNOLOGIES for lanes in (EQUAL, 0)
)
MAIN = Way(technology="horowitz", lanes=EQUAL)


@dataclass(frozen=True, slots=True)
class Circuit:
    """One multiply-accumulate."""

    lanes: int
    energy_j: float
    area_um2: float

    @property
    def tops_per_w(self) -> float:
        """Of multiply-accumulates alone: two operations each; no memory, no control."""
        return 2e-12 / self.energy_j


@lru_cache(maxsize=4096)
def circuit(entry: Entry, way: Way = MAIN) -> Circuit:
    """The circuit of a format in a way of building it."""
    made = TECHNOLOGIES[way.technology]
    form = catalog.format(entry.circuit)
    total = accumulator(entry.accumulator) if entry.accumulator else None
    found = []
    for lanes in (way.lanes,) if way.lanes else LANES:
        design = mac_design(form, accumulated=total, lanes=lanes)
        energy_j = mac_energy_j(design, NODE_NM, made)
        found.append(Circuit(design.lanes, energy_j, mac_area_um2(design, NODE_NM, made)))
    return min(found, key=lambda one: one.energy_j)
