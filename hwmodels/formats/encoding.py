"""The bit layout of one number: what a format is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

EncodingKind = Literal["float", "int", "fixed", "posit", "takum", "codebook", "exponent", "log"]
Specials = Literal["ieee", "fn", "fnuz", "p3109", "none"]
Overflow = Literal["saturate", "inf", "nan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """The bit layout of one number.

    `specials` names which codes are not numbers: `ieee` reserves the top exponent for Inf and
    NaN, `fn` has NaN in the all-ones code only, `fnuz` has NaN in the negative-zero code only,
    `p3109` has NaN in the negative-zero code and Inf in the all-ones code, `none` has numbers
    everywhere.
    """

    name: str
    kind: EncodingKind
    bits: int
    exponent_bits: int = 0
    """Floats: width of the exponent field. Posits: es. Logarithmic: integer bits of log2."""
    mantissa_bits: int = 0
    """Floats: stored fraction bits. Fixed point and MXINT: fraction bits. Logarithmic: fraction
    bits of log2."""
    bias: int = 0
    signed: bool = True
    specials: Specials = "none"
    overflow: Overflow = "saturate"
    subnormals: bool = True
    symmetric: bool = True
    """Integers: the most negative code is not used, so that the range is symmetric."""
    codes: tuple[float, ...] = ()
    """Codebooks: the values in increasing order."""
    source: str = ""

    @property
    def max(self) -> float:
        """The largest finite value."""
        match self.kind:
            case "float" | "exponent":
                return self.float_value(self.top_code)
            case "int" | "fixed":
                return math.ldexp((1 << (self.bits - self.signed)) - 1, -self.mantissa_bits)
            case "codebook":
                return self.codes[-1]
            case "posit":
                return math.ldexp(1.0, (self.bits - 2) << self.exponent_bits)
            case "log":
                top = (1 << (self.bits - 1 - self.signed)) - 1
                return math.exp2(math.ldexp(top, -self.mantissa_bits))
            case "takum":
                return takum_value((1 << (self.bits - 1)) - 1, self.bits)

    @property
    def min(self) -> float:
        """The most negative finite value; 0 or the smallest power where there is no sign."""
        if self.kind == "exponent":
            return math.ldexp(1.0, -self.bias)
        if self.kind == "codebook":
            return self.codes[0]
        if not self.signed:
            return 0.0
        if self.kind in ("int", "fixed") and not self.symmetric:
            return -math.ldexp(1.0, self.bits - 1 - self.mantissa_bits)
        return -self.max

    @property
    def min_normal(self) -> float:
        """The smallest positive value with full precision."""
        match self.kind:
            case "float":
                return math.ldexp(1.0, 1 - self.bias)
            case "exponent":
                return math.ldexp(1.0, -self.bias)
            case "codebook":
                return min(code for code in self.codes if code > 0)
            case "int" | "fixed":
                return math.ldexp(1.0, -self.mantissa_bits)
            case "posit" | "takum" | "log":
                return 1 / self.max if self.kind == "posit" else self._smallest_tapered()

    @property
    def min_subnormal(self) -> float:
        """The smallest positive value."""
        if self.kind == "float" and self.subnormals:
            return math.ldexp(self.min_normal, -self.mantissa_bits)
        return self.min_normal

    @property
    def max_exponent(self) -> int:
        """The exponent of the largest binade: floor(log2(max))."""
        return math.frexp(self.max)[1] - 1

    @property
    def is_tapered(self) -> bool:
        """Whether digits are lost with distance from 1, on both sides."""
        return self.kind in ("posit", "takum")

    @property
    def has_negative_zero(self) -> bool:
        """Whether -0 is a code of its own."""
        return self.kind == "float" and self.signed and self.specials not in ("fnuz", "p3109")

    def replaced(self, **changes: object) -> Encoding:
        """A copy with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]

    @property
    def top_code(self) -> int:
        """Floats: the magnitude code of the largest finite value."""
        codes = 1 << (self.exponent_bits + self.mantissa_bits)
        match self.specials:
            case "ieee":
                return codes - (1 << self.mantissa_bits) - 1
            case "fn" | "p3109":
                return codes - 2
            case "fnuz" | "none":
                return codes - 1

    def float_value(self, code: int) -> float:
        """Floats: the value of a magnitude code."""
        exponent, fraction = divmod(code, 1 << self.mantissa_bits)
        if self.kind == "float" and exponent == 0:
            return math.ldexp(fraction, 1 - self.bias - self.mantissa_bits)
        significand = 1 + math.ldexp(fraction, -self.mantissa_bits)
        return math.ldexp(significand, exponent - self.bias)

    def _smallest_tapered(self) -> float:
        if self.kind == "takum":
            return takum_value(1, self.bits)
        lowest = 1 - (1 << (self.bits - 1 - self.signed))
        return math.exp2(math.ldexp(lowest, -self.mantissa_bits))


def takum_value(code: int, bits: int) -> float:
    """The value of a positive linear takum code.

    After the sign come a direction bit D, three regime bits R, then r = R (D = 1) or 7 - R (D = 0)
    characteristic bits C and the fraction f. The value is 2^c (1 + f) with c = 2^r - 1 + C, or
    -2^(r+1) + 1 + C when D is 0. Codes shorter than twelve bits are read as if zeros followed.

    Source: Hunhold, "Beating Posits at Their Own Game: Takum Arithmetic", arXiv 2404.18603,
    definition 2 (linear takum, definition 8).
    """
    width = max(bits, 12)
    code <<= width - bits
    direction = code >> (width - 2) & 1
    regime = code >> (width - 5) & 7
    length = regime if direction else 7 - regime
    fraction_bits = width - 5 - length
    characteristic = code >> fraction_bits & ((1 << length) - 1)
    offset = (1 << length) - 1 if direction else 1 - (2 << length)
    fraction = math.ldexp(code & ((1 << fraction_bits) - 1), -fraction_bits)
    return math.ldexp(1 + fraction, offset + characteristic)
