"""The numbers that an encoding has, exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from hwmodels.errors import FormatError
from hwmodels.formats import Encoding, takum_value

FLOAT32_MAX = Fraction(2**24 - 1) * 2**104
FLOAT32_TINIEST = Fraction(1, 2**149)


def sorted_values(encoding: Encoding) -> list[Fraction]:
    """The finite values of an encoding of at most 16 bits that float32 holds, increasing.

    Zero appears once. Logarithmic values are irrational: they are the nearest float32.

    Raises:
        FormatError: More than 16 bits.
    """
    if encoding.bits > 16:
        raise FormatError(f"{encoding.name}: code points are listed up to 16 bits")
    if encoding.kind == "codebook":
        return sorted({_float32(code) for code in encoding.codes})
    if encoding.kind in ("int", "fixed"):
        step = Fraction(1, 1 << encoding.mantissa_bits)
        low, high = Fraction(encoding.min), Fraction(encoding.max)
        return [low + step * i for i in range(int((high - low) / step) + 1)]
    positive = [value for value in _positive(encoding) if FLOAT32_TINIEST <= value <= FLOAT32_MAX]
    zero = [] if encoding.kind == "exponent" else [Fraction(0)]
    negative = [-value for value in reversed(positive)] if encoding.signed else []
    return [*negative, *zero, *positive]


def midpoint(encoding: Encoding, low: Fraction, high: Fraction) -> Fraction:
    """Where nearest rounding changes between two neighbouring values.

    Posits and takums round on their bit string: the border is the code that one more bit would
    add, and no nonzero value becomes zero (Posit Standard 2022, section 4.1). Elsewhere it is the
    arithmetic mean.
    """
    if encoding.kind not in ("posit", "takum"):
        return (low + high) / 2
    if low == 0:
        return FLOAT32_TINIEST
    if high == 0:
        return -FLOAT32_TINIEST / 2
    if high < 0:
        return -midpoint(encoding, -high, -low)
    wider = encoding.replaced(bits=encoding.bits + 1)
    return _tapered(wider, 2 * _code(encoding, low) + 1)


def posit_value(code: int, bits: int, exponent_bits: int) -> Fraction:
    """The value of a positive posit code.

    Source: Standard for Posit Arithmetic (2022), section 3.3, with es as a parameter.
    """
    string = format(code, f"0{bits - 1}b")
    run = len(string) - len(string.lstrip(string[0]))
    regime = run - 1 if string[0] == "1" else -run
    tail = string[run + 1 :]
    exponent = int((tail[:exponent_bits] + "0" * exponent_bits)[:exponent_bits] or "0", 2)
    fraction = tail[exponent_bits:]
    significand = 1 + Fraction(int(fraction or "0", 2), 1 << len(fraction))
    return significand * _power(regime * (1 << exponent_bits) + exponent)


def _positive(encoding: Encoding) -> Sequence[Fraction]:
    match encoding.kind:
        case "float" | "exponent":
            first = 0 if encoding.kind == "exponent" else 1
            return [
                value
                for code in range(first, encoding.top_code + 1)
                if (value := Fraction(encoding.float_value(code))) > 0
                and (encoding.subnormals or value >= Fraction(encoding.min_normal))
            ]
        case "log":
            lowest = 1 - (1 << (encoding.bits - 1 - encoding.signed))
            unit = math.ldexp(1.0, -encoding.mantissa_bits)
            return [_float32(math.exp2(code * unit)) for code in range(lowest, 1 - lowest)]
        case _:
            return [_tapered(encoding, code) for code in range(1, 1 << (encoding.bits - 1))]


def _tapered(encoding: Encoding, code: int) -> Fraction:
    if encoding.kind == "posit":
        return posit_value(code, encoding.bits, encoding.exponent_bits)
    return Fraction(takum_value(code, encoding.bits))


def _code(encoding: Encoding, value: Fraction) -> int:
    """The code of a positive value, by bisection: tapered codes are in the order of values."""
    low, high = 1, (1 << (encoding.bits - 1)) - 1
    while low < high:
        middle = (low + high) // 2
        if _tapered(encoding, middle) < value:
            low = middle + 1
        else:
            high = middle
    return low


def _float32(value: float) -> Fraction:
    """The nearest float32, as an exact fraction."""
    magnitude = abs(value)
    if magnitude == 0:
        return Fraction(0)
    step = _power(max(math.frexp(magnitude)[1] - 24, -149))
    rounded = round(Fraction(magnitude) / step) * step
    return rounded if value > 0 else -rounded


def _power(exponent: int) -> Fraction:
    return Fraction(1 << exponent) if exponent >= 0 else Fraction(1, 1 << -exponent)
