"""Area and energy of a format's multiply-accumulate circuit, for `dse formats`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dse.cli.screen import Rows, Value

if TYPE_CHECKING:
    from hwmodels.formats.quantizer import Format

REFERENCE = "int8"
SOURCE = (
    "analytic (hwmodels/circuits): gates of Horowitz's units, nodes after Stillmaker and Baas; "
    "studies/format_circuits says how far off"
)
COLUMNS = (
    "format", "bits_per_element", "mac_area", "mac_energy", "mac_throughput", "mac_area_um2",
    "mac_energy_j", "mac_accumulator", "mac_accumulator_bits",
)  # fmt: skip


def circuit_facts(
    weight: Format, other: Format, *, node_nm: float, accumulator: str | None
) -> dict[str, Value]:
    """The circuit that multiplies two formats, beside that of int8 with int32.

    `mac_area`, `mac_energy` and `mac_throughput` (of equal area and clock) are over int8's.

    Raises:
        CircuitError: a node outside of 180 to 7 nm, formats without a circuit.
        UnknownFormatError: an accumulator that there is not.
    """
    from hwmodels.circuits.design import mac_design  # noqa: PLC0415
    from hwmodels.circuits.mac import (  # noqa: PLC0415
        mac_area_um2,
        mac_energy_j,
        relative_throughput,
    )
    from hwmodels.formats import accumulator as accumulators  # noqa: PLC0415
    from hwmodels.formats.catalog import format  # noqa: PLC0415

    wanted = None if accumulator is None else accumulators.accumulator(accumulator)
    design = mac_design(weight, other, accumulated=wanted)
    reference = mac_design(format(REFERENCE))
    area, energy = mac_area_um2(design, node_nm), mac_energy_j(design, node_nm)
    return {
        "mac_area": area / mac_area_um2(reference, node_nm),
        "mac_energy": energy / mac_energy_j(reference, node_nm),
        "mac_throughput": relative_throughput(design, reference),
        "mac_area_um2": area,
        "mac_energy_j": energy,
        "mac_accumulator": design.accumulator.name,
        "mac_accumulator_bits": design.summed.stored_bits,
    }


def circuit_lines(facts: dict[str, Value], node_nm: float) -> tuple[tuple[str, str], ...]:
    """The same for people, or why there is no circuit (`mac_source`): label and text."""
    if "mac_source" in facts:
        return (("MAC source", str(facts["mac_source"])),)
    area, energy = facts["mac_area_um2"], facts["mac_energy_j"]
    assert isinstance(area, float)
    assert isinstance(energy, float)
    return (
        ("MAC area", f"{facts['mac_area']:.3g} x int8 ({area:.3g} um2 at {node_nm:g} nm)"),
        ("MAC energy", f"{facts['mac_energy']:.3g} x int8 ({energy * 1e12:.3g} pJ)"),
        ("MAC accumulator", f"{facts['mac_accumulator']} ({facts['mac_accumulator_bits']} bits)"),
        ("MAC source", SOURCE),
    )


def circuit_table(node_nm: float, accumulator: str | None) -> tuple[Rows, tuple[str, ...]]:
    """Every format that has a circuit, cheapest first, and the names of the others.

    Raises:
        CircuitError: a node outside of 180 to 7 nm.
        UnknownFormatError: an accumulator that there is not.
    """
    from hwmodels.circuits.node import logic_area_factor  # noqa: PLC0415
    from hwmodels.errors import CircuitError  # noqa: PLC0415
    from hwmodels.formats.catalog import FORMATS  # noqa: PLC0415

    logic_area_factor(node_nm, node_nm)  # a wrong node is an error, not an empty table
    found: dict[str, dict[str, Value]] = {}
    without = []
    for name, entry in FORMATS.items():
        try:
            found[name] = circuit_facts(entry, entry, node_nm=node_nm, accumulator=accumulator)
        except CircuitError:
            without.append(name)
    by_energy = sorted(found, key=lambda name: float(found[name]["mac_energy"] or 0))
    rows = tuple(
        (name, FORMATS[name].bits_per_element, *found[name].values()) for name in by_energy
    )
    return Rows(columns=COLUMNS, rows=rows), tuple(without)
