"""Energy of a bit that crosses a DRAM's interface, by kind, with the spread of the sources.

Device average: array, row activation and interface of the DRAM, not the controller on the chip.
Sources differ by more than the kinds of one generation do, so every figure has a range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hwmodels.errors import CircuitError, nearest

MICRON = "Micron's table of device averages, kylolab.com/ultra-bandwidth-solutions.html"
OCONNOR = "O'Connor et al., Fine-Grained DRAM, MICRO-50 (2017): HBM2 3.9 pJ/bit (recalled)"
TPU_V4I = (
    "Jouppi et al., Ten Lessons From Three Generations, ISCA 2021, pJ per 64 bit: DDR 1300, "
    "HBM2 250-450, GDDR6 350-480 (recalled)"
)
HOROWITZ_DRAM = "Horowitz, ISSCC 2014: 1.3 to 2.6 nJ per 64 bit (recalled)"
HBM3E = "market report, eureka.patsnap.com: HBM3E 7-9 pJ/bit, HBM4 aimed at 5-6 (weak)"
VENDOR_TALKS = "vendors' talks, recalled and not re-opened"


@dataclass(frozen=True, slots=True)
class DramEnergy:
    """Joules a bit: the usual value and the range of the sources."""

    per_bit_j: float
    low_j: float
    high_j: float
    source: str


def _picojoules(value: float, low: float, high: float, source: str) -> DramEnergy:
    return DramEnergy(value * 1e-12, low * 1e-12, high * 1e-12, source)


DRAM: Mapping[str, DramEnergy] = {
    "ddr3": _picojoules(30, 20, 40, HOROWITZ_DRAM),
    "ddr4": _picojoules(20, 15, 20.3, f"{TPU_V4I}; {VENDOR_TALKS}"),
    "lpddr4": _picojoules(4.5, 4, 6, VENDOR_TALKS),
    "lpddr5": _picojoules(4.5, 4, 5, VENDOR_TALKS),
    "gddr6": _picojoules(7.5, 5.5, 7.5, f"{MICRON}; {TPU_V4I}"),
    "gddr6x": _picojoules(7.25, 7.25, 7.5, MICRON),
    "hbm2": _picojoules(3.9, 3.9, 7.0, f"{OCONNOR}; {TPU_V4I}"),
    "hbm2e": _picojoules(6.0, 3.9, 7.0, f"{MICRON}; range as HBM2's"),
    "hbm3": _picojoules(5.0, 3.9, 7.0, f"assumed between HBM2 and HBM3E; {VENDOR_TALKS}"),
    "hbm3e": _picojoules(7.0, 5.0, 9.0, HBM3E),
}
"""Every known kind; its range is that of its sources."""


def dram_energy(kind: str) -> DramEnergy:
    """The energy of a bit of one kind of DRAM, with its range and source.

    Raises:
        CircuitError: An unknown kind.
    """
    found = DRAM.get(kind.lower())
    if found is None:
        raise CircuitError(
            f"DRAM {kind!r}: unknown{nearest(kind.lower(), DRAM)}; known: {', '.join(DRAM)}"
        )
    return found


def dram_energy_per_bit_j(kind: str) -> float:
    """The usual energy of a bit of one kind of DRAM.

    Raises:
        CircuitError: An unknown kind.
    """
    return dram_energy(kind).per_bit_j
