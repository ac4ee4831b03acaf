"""The numbers that an encoding has, exactly.

Everything is float64, which holds every value here without rounding: encodings of at most 16 bits
have at most 16 significant bits and exponents within +-1022, and logarithmic values are defined as
the nearest float32.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hwmodels.errors import FormatError
from hwmodels.formats.encoding import Encoding, takum_value

Values = npt.NDArray[np.float64]
FLOAT32_MAX = float(np.finfo(np.float32).max)
FLOAT32_TINIEST = 2.0**-149


def sorted_values(encoding: Encoding) -> Values:
    """The finite values of an encoding of at most 16 bits that float32 holds, increasing.

    Zero appears once.

    Raises:
        FormatError: More than 16 bits.
    """
    if encoding.bits > 16:
        raise FormatError(f"{encoding.name}: code points are listed up to 16 bits")
    if encoding.kind == "codebook":
        return np.unique(np.array(encoding.codes, np.float32)).astype(np.float64)
    if encoding.kind in ("int", "fixed"):
        step = 2.0**-encoding.mantissa_bits
        codes = np.arange(round(encoding.min / step), round(encoding.max / step) + 1)
        return codes.astype(np.float64) * step
    positive = _positive(encoding)
    return _mirrored(encoding, positive[_held(positive)])


def borders(encoding: Encoding) -> Values:
    """Borders of nearest rounding, between each value of `sorted_values` and the next.

    Posits and takums round on their bit string: the border is the code that one more bit would
    add, and no nonzero value becomes zero (Posit Standard 2022, section 4.1). Elsewhere it is the
    arithmetic mean.
    """
    values = sorted_values(encoding)
    if encoding.kind not in ("posit", "takum"):
        return (values[:-1] + values[1:]) / 2
    held = _held(_positive(encoding))
    wider = _positive(encoding.replaced(bits=encoding.bits + 1))
    between = wider[2:-1:2][held[1:] & held[:-1]]
    above_zero = FLOAT32_TINIEST / 2
    return np.concatenate([-between[::-1], [-above_zero, above_zero], between])


def posit_value(code: int, bits: int, exponent_bits: int) -> float:
    """The value of a positive posit code.

    Source: Standard for Posit Arithmetic (2022), section 3.3, with es as a parameter.
    """
    string = format(code, f"0{bits - 1}b")
    run = len(string) - len(string.lstrip(string[0]))
    regime = run - 1 if string[0] == "1" else -run
    tail = string[run + 1 :]
    exponent = int(tail[:exponent_bits].ljust(exponent_bits, "0") or "0", 2)
    fraction = tail[exponent_bits:] or "0"
    significand = 1 + int(fraction, 2) / (1 << len(fraction))
    return significand * 2.0 ** (regime * (1 << exponent_bits) + exponent)


def _positive(encoding: Encoding) -> Values:
    """Positive values in the order of their codes."""
    match encoding.kind:
        case "float" | "exponent":
            first = 0 if encoding.kind == "exponent" else 1
            codes = range(first, encoding.top_code + 1)
            values = np.array([encoding.float_value(code) for code in codes])
            smallest = 0.0 if encoding.subnormals else encoding.min_normal
            kept: Values = values[(values > 0) & (values >= smallest)]
            return kept
        case "log":
            count = (1 << (encoding.bits - 1 - encoding.signed)) - 1
            exponents = np.arange(-count, count + 1) * 2.0**-encoding.mantissa_bits
            nearest: Values = np.exp2(exponents).astype(np.float32).astype(np.float64)
            return nearest
        case _:
            return np.array(
                [_tapered(encoding, code) for code in range(1, 1 << (encoding.bits - 1))]
            )


def _held(positive: Values) -> npt.NDArray[np.bool_]:
    return (positive >= FLOAT32_TINIEST) & (positive <= FLOAT32_MAX)


def _mirrored(encoding: Encoding, positive: Values) -> Values:
    negative = -positive[::-1] if encoding.signed else positive[:0]
    zero = positive[:0] if encoding.kind == "exponent" else np.zeros(1)
    return np.concatenate([negative, zero, positive])


def _tapered(encoding: Encoding, code: int) -> float:
    if encoding.kind == "posit":
        return posit_value(code, encoding.bits, encoding.exponent_bits)
    return takum_value(code, encoding.bits)
