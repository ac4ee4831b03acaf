"""Register files: what is smaller than an SRAM, built of flip-flops and multiplexers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hwmodels.circuits import gates, technology
from hwmodels.circuits.gates import Gates
from hwmodels.circuits.technology import HOROWITZ, Technology
from hwmodels.errors import CircuitError

LARGEST_BYTES = 4096
"""Beyond, an SRAM is smaller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterFile:
    """Words of flip-flops behind a multiplexer, one read and one written a cycle."""

    read_j: float
    write_j: float
    area_um2: float


def register_file(
    capacity_bytes: float, width_bits: int, node_nm: float, made: Technology = HOROWITZ
) -> RegisterFile:
    """The figures of a register file; one word is a register that costs nothing to read.

    All cells are those of the library, unpipelined. A read passes one multiplexer a bit and level
    of the tree; a write clocks one word, the others are gated.

    Raises:
        CircuitError: More than 4 KiB, less than a word, or a node outside of 180 to 7 nm.
    """
    if not 0 < width_bits <= 8 * capacity_bytes or capacity_bytes > LARGEST_BYTES:
        raise CircuitError(
            f"register file of {capacity_bytes:g} bytes with words of {width_bits} bits: expected "
            "a word or more, and 4 KiB or less; a larger one is an SRAM (hwmodels.circuits.sram)"
        )
    words = max(round(8 * capacity_bytes / width_bits), 1)
    levels = math.ceil(math.log2(words)) if words > 1 else 0
    read = Gates(steering=width_bits * levels * gates.MUX)
    built = Gates(storing=width_bits * (words * gates.FLIP_FLOP + (words - 1) * gates.MUX))
    return RegisterFile(
        read_j=technology.energy_j(read, node_nm, made),
        write_j=technology.energy_j(gates.register(width_bits), node_nm, made),
        area_um2=technology.area_um2(built, node_nm, made),
    )
