"""Technologies: what a gate takes of area and energy, at the node where somebody published it.

Constants are fitted by `python -m hwmodels.fit.circuits gates`. Two published sources differ by a
factor of two in area and four in energy for the same multiplier, so that both are here: ratios
between formats hardly depend on the choice, absolute figures do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hwmodels.circuits.gates import Gates
from hwmodels.circuits.node import logic_area_factor, logic_energy_factor
from hwmodels.errors import CircuitError, nearest

LIBRARY_UM2 = 0.798
"""NAND2 of the NanGate 45 nm library: what a storing gate takes (`hwmodels.circuits.gates`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Technology:
    """Area and energy a NAND2 equivalent of each class, at one node."""

    name: str
    node_nm: float
    area_adding_um2: float
    area_steering_um2: float
    area_storing_um2: float
    energy_adding_j: float
    """Of an operation, glitches included; so are the others."""
    energy_steering_j: float
    energy_storing_j: float
    source: str


HOROWITZ = Technology(
    name="horowitz",
    node_nm=45,
    area_adding_um2=0.7114,
    area_steering_um2=3.103,
    area_storing_um2=LIBRARY_UM2,
    energy_adding_j=0.5793e-15,
    energy_steering_j=0.8652e-15,
    energy_storing_j=1.247e-15,
    source=(
        "fitted to nine arithmetic units of Horowitz, ISSCC 2014 (45 nm, 0.9 V; areas of seven of "
        "them as Dally prints them); flip-flops 3 fJ a bit at 28/22 nm (stillwater-sc.github.io)"
    ),
)
"""The default. A steering gate takes four times the area of an adding one: published float units
are pipelined and fast, and the fit puts that where their shifters are."""
ALADDIN = Technology(
    name="aladdin",
    node_nm=40,
    area_adding_um2=1.067,
    area_steering_um2=1.067 * 3.103 / 0.7114,
    area_storing_um2=LIBRARY_UM2,
    energy_adding_j=1.954e-15,
    energy_steering_j=1.954e-15 * 0.8652 / 0.5793,
    energy_storing_j=1.077e-15,
    source=(
        "fitted to Aladdin's 32-bit multiplier and 8-bit multiplier with 16-bit adder (40 nm, "
        "hwcomponents-library 1.0.58); what is no adder in Horowitz's proportion"
    ),
)
"""The source that Accelergy, Timeloop and their successors price arithmetic with."""
TECHNOLOGIES: Mapping[str, Technology] = {entry.name: entry for entry in (HOROWITZ, ALADDIN)}


def technology(name: str) -> Technology:
    """The technology of that name.

    Raises:
        CircuitError: There is none.
    """
    if name not in TECHNOLOGIES:
        raise CircuitError(
            f"technology {name!r}: unknown{nearest(name, TECHNOLOGIES)}; "
            f"known: {', '.join(TECHNOLOGIES)}"
        )
    return TECHNOLOGIES[name]


def area_um2(gates: Gates, node_nm: float, made: Technology = HOROWITZ) -> float:
    """The area of gates at a node.

    Raises:
        CircuitError: A node outside of 180 to 7 nm.
    """
    area = gates.adding * made.area_adding_um2 + gates.steering * made.area_steering_um2
    area += gates.storing * made.area_storing_um2
    return area * logic_area_factor(made.node_nm, node_nm)


def energy_j(gates: Gates, node_nm: float, made: Technology = HOROWITZ) -> float:
    """The energy of one operation of gates at a node, at its usual supply.

    Raises:
        CircuitError: A node outside of 180 to 7 nm.
    """
    energy = gates.adding * made.energy_adding_j + gates.steering * made.energy_steering_j
    energy += gates.storing * made.energy_storing_j
    return energy * logic_energy_factor(made.node_nm, node_nm)
