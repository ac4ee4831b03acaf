"""Circuits of formats and their accumulators: width of the sum, energy, area."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from dse.systems.measures.measure import Rows
from hwmodels.circuits.design import mac_design
from hwmodels.circuits.mac import LANES, mac_area_um2, mac_energy_j
from hwmodels.formats.accumulator import accumulator
from hwmodels.formats.catalog import format
from hwmodels.validation import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit(Entry):
    """A multiply-accumulate circuit."""

    weight: str
    """Format of one factor."""
    input: str = ""
    """Of the other; the weight's unless given."""
    accumulator: str = "fp32"
    """By name."""
    lanes: Annotated[int, Field(ge=1)] = LANES
    """Multipliers whose products are added before they are accumulated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitFigures(Entry):
    """Width of the sum, energy and area of circuits, the latter two beside the first's."""

    draws: ClassVar[bool] = False
    circuits: Annotated[Mapping[str, Circuit], Field(min_length=1)]
    """By name."""
    node_nm: float = 16
    """Of all."""

    def rows(self, seed: int) -> Rows:
        """`<name> bits` of the running sum; `energy` and `area`: over the first circuit's."""
        del seed
        found: dict[str, float] = {}
        first: tuple[float, float] | None = None
        for name, one in self.circuits.items():
            design = mac_design(
                format(one.weight),
                format(one.input) if one.input else None,
                accumulated=accumulator(one.accumulator),
                lanes=one.lanes,
            )
            takes = (mac_energy_j(design, self.node_nm), mac_area_um2(design, self.node_nm))
            first = first or takes
            found |= {
                f"{name} bits": float(design.summed.stored_bits),
                f"{name} energy": takes[0] / first[0],
                f"{name} area": takes[1] / first[1],
            }
        return found
