"""Operands of a multiplier: what an encoding is once it is decoded, and what decoding takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hwmodels.circuits import gates
from hwmodels.circuits.gates import Gates
from hwmodels.formats.encoding import Encoding

DECODED = (5, 10)
"""Exponent and mantissa bits that a codebook's numbers are looked up as (fp16)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """A decoded operand: a significand that is multiplied, shifted by one of `span` + 1 places."""

    bits: int
    """As stored."""
    significand: int
    """Digits that enter the multiplier; logarithmic numbers: fraction bits of log2, and one."""
    span: int = 0
    """0 for integers."""
    decoding: Gates = field(default_factory=Gates)
    linear: Gates = field(default_factory=Gates)
    """Logarithmic numbers: the table that makes one linear, where the other operand is not."""
    is_logarithmic: bool = False


def operand(encoding: Encoding) -> Operand:
    """The operand of an encoding."""
    bits, fraction = encoding.bits, encoding.mantissa_bits
    match encoding.kind:
        case "int" | "fixed":
            return Operand(bits=bits, significand=bits)
        case "float":
            digits, exponents = fraction + 1, encoding.exponent_bits
            hidden = Gates(steering=exponents * gates.AND)  # is the exponent zero?
            return Operand(bits=bits, significand=digits, span=_span(exponents), decoding=hidden)
        case "exponent":
            return Operand(bits=bits, significand=1, span=_span(encoding.exponent_bits))
        case "log":
            span = 2 ** (bits - 1 - fraction)
            linear = gates.bipartite_table(fraction, fraction)
            return Operand(
                bits=bits, significand=fraction + 1, span=span, linear=linear, is_logarithmic=True
            )
        case "codebook":
            exponents, digits = DECODED
            found = gates.table(len(encoding.codes), 1 + exponents + digits)
            return Operand(
                bits=bits, significand=digits + 1, span=_span(exponents), decoding=found
            )
        case "posit" | "takum":
            return _tapered(encoding)


def _span(exponent_bits: int) -> int:
    """Places between the smallest and the largest binade: exponent code 0 is no binade."""
    return (1 << exponent_bits) - 2


def _tapered(encoding: Encoding) -> Operand:
    """Posits and takums: a complement, the length of the regime, and a shift that removes it.

    Source: Jaiswal and So, Universal number posit arithmetic generator on FPGA, DATE 2018 (leading
    one, dynamic shift, two's complement); takums: arXiv 2404.18603, whose regime has three bits.
    """
    bits = encoding.bits
    widest = math.ceil(math.log2(encoding.max))
    circuit = gates.negation(bits) + gates.shifter(bits, bits)
    if encoding.kind == "posit":
        circuit += gates.leading_one(bits)
        fraction = max(bits - 3 - encoding.exponent_bits, 0)
    else:
        fraction = max(bits - 5, 0)
    return Operand(bits=bits, significand=fraction + 1, span=2 * widest, decoding=circuit)
