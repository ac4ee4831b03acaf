"""Multipliers that several widths share: small ones that are one wide or many narrow products.

A `SharedMac` has `pieces` multipliers of `piece_bits` x `piece_bits`. A product of p x q digits
takes `ceil(p / piece_bits) * ceil(q / piece_bits)` of them, whose results are shifted and added;
as many products as fit share a cycle, where the operand ports bring enough bits. Their sum goes
to one float accumulator, a cycle each. So a narrow product saves what a wide one spends on adding
its pieces, and shares the accumulation with its neighbours:

    energy = lane + (tree + accumulation + shared exponents) / products a cycle

Precision-scalable arrays are built so: Bit Fusion (arXiv 1712.01507), and for MX formats arXiv
2511.06313, whose 8 x 8 array has 1, 4 and 8 products a cycle and unit for MXINT8, MXFP8 or 6, and
MXFP4; that is what 16 pieces of 2 x 2 and ports of 32 bits give.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hwmodels.circuits import gates, technology
from hwmodels.circuits.gates import Gates
from hwmodels.circuits.mac import Word, accumulation, tree
from hwmodels.circuits.operand import operand
from hwmodels.circuits.technology import HOROWITZ, Technology
from hwmodels.errors import CircuitError
from hwmodels.formats.accumulator import Accumulator, accumulator
from hwmodels.formats.encoding import Encoding

SCALE_BITS = 8
"""Of a shared exponent (E8M0)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedMac:
    """A precision-scalable multiply-accumulate unit."""

    pieces: int = 16
    piece_bits: int = 2
    port_bits: int = 32
    """Bits a cycle of each of both operands."""
    accumulator: Accumulator = field(default_factory=lambda: accumulator("fp32"))


@dataclass(frozen=True, slots=True)
class SharedMode:
    """The work of a shared unit with one pair of elements."""

    products: int
    """A cycle."""
    active: Gates
    """Gates that switch, per multiply-accumulate."""


def shared_mode(design: SharedMac, weight: Encoding, other: Encoding | None = None) -> SharedMode:
    """The products a cycle of two elements, and the gates that switch for each.

    Raises:
        CircuitError: An element that is neither integer nor float, or wider than all pieces.
    """
    other = weight if other is None else other
    for one in (weight, other):
        if one.kind not in ("int", "fixed", "float"):
            raise CircuitError(f"shared MAC: {one.name} is neither an integer nor a float")
    a, b = operand(weight), operand(other)
    needed = math.prod(math.ceil(one.significand / design.piece_bits) for one in (a, b))
    ports = design.port_bits // max(weight.bits, other.bits)
    products = min(design.pieces // needed, ports)
    if products < 1:
        raise CircuitError(
            f"shared MAC: {weight.name} x {other.name} takes {needed} pieces and "
            f"{max(weight.bits, other.bits)} bits a port; there are {design.pieces} and "
            f"{design.port_bits}"
        )
    span = a.span + b.span
    lane = a.decoding + b.decoding + gates.register(weight.bits + other.bits)
    lane += gates.multiplier(design.piece_bits, design.piece_bits) * needed
    lane += _joined(max(a.significand, b.significand), design.piece_bits)
    word = Word(a.significand + b.significand, span)
    if a.span and b.span:
        lane += gates.adder(word.exponent_bits)
    added, total = tree(word, products, design.accumulator)
    often = added + accumulation(total, design.accumulator) + gates.adder(SCALE_BITS) * 2
    return SharedMode(products, lane + often * (1 / products))


def shared_energy_j(
    design: SharedMac, element: Encoding, node_nm: float, made: Technology = HOROWITZ
) -> float:
    """The energy of one multiply-accumulate of equal elements.

    Raises:
        CircuitError: A node outside of 180 to 7 nm, an element that the unit cannot take.
    """
    return technology.energy_j(shared_mode(design, element).active, node_nm, made)


def _joined(digits: int, piece: int) -> Gates:
    """Adders that make one product of its pieces: of four halves three additions, over again."""
    circuit, width, joins = Gates(), piece, 0
    while width < digits:
        width, joins = 2 * width, joins + 1
    for level in range(joins):
        half = piece * 2**level
        circuit += gates.adder(3 * half) * (3 * 4 ** (joins - 1 - level))
    return circuit
