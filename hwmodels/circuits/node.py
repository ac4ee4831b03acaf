"""Scaling between process nodes: of logic, of SRAM and (none) of DRAM, each by its own law.

**Logic** follows Stillmaker and Baas from 180 to 7 nm: areas from the ITRS, energies fitted to
simulated fan-out-of-4 inverters, as polynomials of the supply voltage. Below 7 nm there is no such
table, and asking is an error. What a company says of its own units at 7 nm is three to five times
more than this law makes of 45 nm (`studies/format_circuits`): wires and clocks do not follow
inverters.

**SRAM** is CACTI's own from 90 to 22 nm (`hwmodels.circuits.sram`). Below, areas follow published
6T cells, which hardly shrink after 7 nm, and energies the length of a wire across the array (the
square root of the area) times the square of the supply.

**DRAM** is bought by the device and has no node here (`hwmodels.circuits.dram`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from hwmodels.errors import CircuitError

LOGIC_AREA: Mapping[float, float] = {
    180: 320, 130: 110, 90: 48, 65: 25, 45: 17, 32: 7.8, 20: 3.6, 16: 3.2, 14: 2.9, 10: 1.7, 7: 1,
}  # fmt: skip
"""Area of equal logic over that at 7 nm (two digits).

Source: Stillmaker and Baas, Scaling equations for the accurate prediction of CMOS device
performance from 180 nm to 7 nm, Integration 58 (2017), after the ITRS.
"""
LOGIC_ENERGY: Mapping[float, tuple[float, float, float]] = {
    180: (24.64, -17.98, 0.0),
    130: (7.171, -6.709, 2.904),
    90: (4.762, -4.781, 2.092),
    65: (3.755, -4.398, 1.975),
    45: (1.018, -0.3107, 0.1539),
    32: (0.8367, -0.4341, 0.1701),
    20: (0.373, -0.1582, 0.04104),
    16: (0.2958, -0.1241, 0.03024),
    14: (0.2363, -0.09675, 0.02239),
    10: (0.2068, -0.09311, 0.02375),
    7: (0.1776, -0.09097, 0.02447),
}
"""Energy of a transition in fJ as a V^2 + b V + c of the supply V.

Source: as of areas; the high-performance variants from 45 nm on.
"""
SUPPLY_V: Mapping[float, float] = {
    180: 1.8, 130: 1.3, 90: 1.1, 65: 1.1, 45: 0.9, 32: 0.9, 20: 0.9, 16: 0.8, 14: 0.8, 10: 0.75,
    7: 0.7, 5: 0.7, 3: 0.7,
}  # fmt: skip
"""Usual supply. 45 nm: that of Horowitz's table (ISSCC 2014); others as in PTM's models (assumed;
every function takes another)."""
SRAM_CELL_UM2: Mapping[float, float] = {
    90: 0.999, 65: 0.499, 40: 0.242, 28: 0.127, 20: 0.081, 16: 0.070, 10: 0.042, 7: 0.027,
    5: 0.021, 3: 0.021,
}  # fmt: skip
"""High-density 6T cells that one foundry (TSMC) presented at IEDM and ISSCC, recalled; its second
3 nm process (N3E) has the cell of its 5 nm one."""


def logic_area_factor(from_nm: float, to_nm: float) -> float:
    """The area of equal logic at one node over that at another.

    Raises:
        CircuitError: A node outside of 180 to 7 nm.
    """
    return _area(to_nm) / _area(from_nm)


def logic_energy_factor(
    from_nm: float,
    to_nm: float,
    *,
    from_v: float | None = None,
    to_v: float | None = None,
) -> float:
    """The energy of equal logic at one node over that at another, each at its supply.

    Raises:
        CircuitError: A node outside of 180 to 7 nm.
    """
    return _energy(to_nm, to_v) / _energy(from_nm, from_v)


def sram_area_factor(from_nm: float, to_nm: float) -> float:
    """The area of a 6T cell at one node over that at another.

    Raises:
        CircuitError: A node outside of 90 to 3 nm.
    """
    return _cell(to_nm) / _cell(from_nm)


def sram_energy_factor(from_nm: float, to_nm: float) -> float:
    """The energy of an access at one node over that at another: a wire's length times V^2.

    Raises:
        CircuitError: A node outside of 90 to 3 nm.
    """
    wire = math.sqrt(sram_area_factor(from_nm, to_nm))
    return wire * (supply_v(to_nm) / supply_v(from_nm)) ** 2


def supply_v(node_nm: float) -> float:
    """The usual supply voltage of a node.

    Raises:
        CircuitError: A node outside of 180 to 3 nm.
    """
    return _between(SUPPLY_V, node_nm, "supply voltages")


def _area(node_nm: float) -> float:
    return _between(LOGIC_AREA, node_nm, "areas of logic")


def _cell(node_nm: float) -> float:
    return _between(SRAM_CELL_UM2, node_nm, "SRAM cells")


def _energy(node_nm: float, voltage: float | None) -> float:
    v = supply_v(node_nm) if voltage is None else voltage
    at_nodes = {node: a * v * v + b * v + c for node, (a, b, c) in LOGIC_ENERGY.items()}
    return _between(at_nodes, node_nm, "energies of logic")


def _between(table: Mapping[float, float], node_nm: float, what: str) -> float:
    """A value of the table, or the power law between its two neighbours."""
    finer = [node for node in table if node <= node_nm]
    coarser = [node for node in table if node >= node_nm]
    if not finer or not coarser:
        raise CircuitError(
            f"node {node_nm:g} nm: {what} are known from {max(table):g} to {min(table):g} nm"
        )
    low, high = max(finer), min(coarser)
    if low == high:
        return table[low]
    share = math.log(node_nm / low) / math.log(high / low)
    return float(table[low] ** (1 - share) * table[high] ** share)
