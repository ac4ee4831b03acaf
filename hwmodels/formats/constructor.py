"""Elements spelled out with their parameters: `float(e=3, m=2)`, `posit(8, 1)`, `codebook(...)`.

Arguments are numbers and words, by position or by name, as the signatures below say. The
functions make the same encodings in Python.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import cast, get_args

from hwmodels.errors import FormatError, nearest
from hwmodels.formats.encoding import Encoding, Overflow, Specials
from hwmodels.formats.encodings import (
    fixed_encoding,
    float_encoding,
    integer_encoding,
    logarithmic_encoding,
    posit_encoding,
)

MOST_BITS = 16
"""Widest element that is spelled out; wider ones are in the catalogue."""
_CALL = re.compile(r"(?P<name>[a-z]+)\((?P<arguments>[^()]*)\)")


def floating(
    e: int, m: int, bias: int | None = None, specials: str = "ieee", overflow: str = "saturate"
) -> Encoding:
    """A float of a sign, `e` exponent and `m` mantissa bits (`float` in names)."""
    _in_range("e", e, 2, 8)
    _in_range("m", m, 0, MOST_BITS - 1 - e)
    _among("specials", specials, get_args(Specials))
    _among("overflow", overflow, get_args(Overflow))
    made = float_encoding(
        f"e{e}m{m}", e, m, bias=bias,
        specials=cast("Specials", specials), overflow=cast("Overflow", overflow),
    )  # fmt: skip
    said = "" if bias is None else f", bias={bias}"
    return made.replaced(name=f"float(e={e}, m={m}{said}, specials={specials}, {overflow})")


def integer(bits: int, signed: bool = True, symmetric: bool = True) -> Encoding:
    """Two's complement (`int` in names); without `symmetric` every code is used."""
    _in_range("bits", bits, 2, MOST_BITS)
    return integer_encoding(bits, signed=bool(signed), symmetric=bool(symmetric))


def posit(bits: int, es: int) -> Encoding:
    """A posit with `es` exponent bits."""
    _in_range("bits", bits, 3, MOST_BITS)
    _in_range("es", es, 0, bits - 1)
    return posit_encoding(bits, es)


def fixed(bits: int, fraction: int) -> Encoding:
    """Two's complement with `fraction` bits behind the point."""
    _in_range("bits", bits, 2, MOST_BITS)
    _in_range("fraction", fraction, 0, bits - 1)
    return fixed_encoding(bits, fraction)


def logarithmic(bits: int, fraction: int) -> Encoding:
    """A sign and a fixed-point log2 (`lns` in names)."""
    _in_range("bits", bits, 3, MOST_BITS)
    _in_range("fraction", fraction, 0, bits - 2)
    return logarithmic_encoding(bits, fraction)


def codebook(*codes: float) -> Encoding:
    """The values that its codes stand for, in any order; 2 to 256, all different."""
    numbers = all(isinstance(code, int | float) and math.isfinite(code) for code in codes)
    different = 2 <= len(codes) <= 256 and len(set(codes)) == len(codes)
    if not numbers or not different or max(codes) <= 0:
        raise FormatError(f"expected 2 to 256 different numbers, one of them above 0, got {codes}")
    values = tuple(sorted(float(code) for code in codes))
    return Encoding(
        name=f"codebook({', '.join(map(repr, values))})",
        kind="codebook",
        bits=(len(values) - 1).bit_length(),
        codes=values,
        signed=values[0] < 0,
    )


CONSTRUCTORS: Mapping[str, Callable[..., Encoding]] = {
    "float": floating, "int": integer, "posit": posit, "fixed": fixed, "lns": logarithmic,
    "codebook": codebook,
}  # fmt: skip
"""The part of a name before the parenthesis."""


def constructed(text: str, encodings: Mapping[str, Encoding]) -> Encoding | None:
    """The encoding of a spelled-out element; None where the text has another form.

    A float that the catalogue has by its width (`e3m2`) has its special values unless others are
    asked for.

    Raises:
        FormatError: Arguments that the constructor does not take.
    """
    match = _CALL.fullmatch(text)
    if match is None:
        return None
    make = CONSTRUCTORS.get(match["name"])
    if make is None:
        raise FormatError(
            f"{text}: unknown constructor {match['name']!r}{nearest(match['name'], CONSTRUCTORS)} "
            f"Known: {', '.join(CONSTRUCTORS)}"
        )
    positional, named = _arguments(match["arguments"])
    try:
        bound = inspect.signature(make).bind(*positional, **named)
        made = make(*bound.args, **bound.kwargs)
    except TypeError as error:
        raise FormatError(f"{text}: {error}; {match['name']}{inspect.signature(make)}") from error
    except FormatError as error:
        raise FormatError(f"{text}: {error}") from error
    if make is floating and set(bound.arguments) == {"e", "m"}:
        return encodings.get(f"e{bound.arguments['e']}m{bound.arguments['m']}", made)
    return made


def _arguments(text: str) -> tuple[list[object], dict[str, object]]:
    positional: list[object] = []
    named: dict[str, object] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, mark, value = part.rpartition("=")
        if mark:
            named[name.strip()] = _value(value.strip())
        else:
            positional.append(_value(part))
    return positional, named


def _value(text: str) -> object:
    """A whole number, another number, a truth value, or a word."""
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _in_range(what: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or not low <= value <= high:
        raise FormatError(f"{what}: expected a whole number from {low} to {high}, got {value!r}")


def _among(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise FormatError(f"{what}: expected one of {', '.join(known)}, got {value!r}")
