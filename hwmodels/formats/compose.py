"""Formats that are not in the catalogue, spelled out in their names.

A name is an element, and behind it whatever of these it has, in this order:

* `@tensor`, `@channel`, `@token`, `@head`, `@g32` (groups) or `@b128x128` (blocks): granularity;
* `/fp16`, `/e8m0-rceil`, `/fp32-ratio32`: the scale's encoding and rule (fp32, nearest; rule
  `ratio` among so many rows, or all);
* `+fp32`: the tensor's own scale behind that of the groups;
* `~uint4`: zero points, for integers that use every code; or `~~fp16`: offsets;
* `^256/fp16`: the scale of 256 elements that multiplies codes of scales, and of offsets.

`e2m1@g32/ue5m3+fp32` is E2M1 in groups of 32 with UE5M3 scales and a tensor scale;
`uint4@g32/uint6-fitted~~uint6^256/fp16` is what GGUF calls Q4_K. Elements that
the catalogue lacks are `e3m3` (IEEE specials, saturating), `int12`, `uint12`, `int12a`
(asymmetric), `posit9_1`, `fixed10_6` and `lns7_2`; or they are spelled out with their parameters
(`hwmodels.formats.constructor`): `float(e=3, m=2)`, `posit(8, 1)`, `codebook(-1, 0, 1, 2)`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast, get_args

from hwmodels.errors import UnknownFormatError
from hwmodels.formats.constructor import constructed
from hwmodels.formats.encodings import (
    fixed_encoding,
    float_encoding,
    integer_encoding,
    logarithmic_encoding,
    posit_encoding,
)
from hwmodels.formats.quantizer import Encoding, Format, Granularity, Scale, ScaleRule

_FORMAT = re.compile(
    r"(?P<element>[a-z0-9_]+(?:\([^()]*\))?)"
    r"(?:@(?P<granularity>tensor|channel|token|head|g(?P<group>\d+)|b(?P<rows>\d+)x(?P<cols>\d+)))?"
    r"(?:/(?P<scale>[a-z0-9_]+)(?:-(?P<rule>[a-z_]+?)(?P<shared>\d*))?)?"
    r"(?:\+(?P<level>[a-z0-9_]+))?"
    r"(?:~(?P<point>[a-z0-9_]+)|~~(?P<offset>[a-z0-9_]+))?"
    r"(?:\^(?P<above>\d+)/(?P<super>[a-z0-9_]+))?"
)
_FLOAT = re.compile(r"e(\d)m(\d{1,2})")
_INTEGER = re.compile(r"(u?)int(\d{1,2})(a?)")
_PAIR = re.compile(r"(posit|fixed|lns)(\d{1,2})_(\d{1,2})")
_DIGITS = 16
"""Widest element that has no entry of its own."""


def composed_format(name: str, encodings: Mapping[str, Encoding]) -> Format | None:
    """The format that a name spells out, or None if it spells none.

    Raises:
        FormatError: A constructor with arguments that it does not take.
        UnknownFormatError: The name has the shape of one, but a part of it is unknown.
    """
    match = _FORMAT.fullmatch(name)
    element = encoding_named(match["element"], encodings) if match else None
    if match is None or element is None:
        return None
    granularity = match["granularity"]
    if granularity is None:
        return Format(name=name, element=element, source=element.source)
    kind = "group" if match["group"] else "block" if match["rows"] else granularity
    return Format(
        name=name,
        element=element,
        granularity=cast("Granularity", kind),
        group=int(match["group"] or match["cols"] or 0),
        block_rows=int(match["rows"] or 0),
        scale=_scale(name, match, encodings),
        tensor_scale=_part(name, match["level"], encodings),
        zero_point=_part(name, match["point"], encodings),
        offset=_part(name, match["offset"], encodings),
        super_group=int(match["above"] or 0),
        super_scale=_part(name, match["super"], encodings),
        source=element.source,
    )


def encoding_named(name: str, encodings: Mapping[str, Encoding]) -> Encoding | None:
    """The catalogue's encoding, or the one that a name like `e3m3` or `posit9_1` spells out."""
    if name in encodings:
        return encodings[name]
    if "(" in name:
        return constructed(name, encodings)
    if match := _FLOAT.fullmatch(name):
        exponent, mantissa = int(match[1]), int(match[2])
        if 2 <= exponent <= 8 and 1 <= mantissa <= 22:
            return float_encoding(name, exponent, mantissa)
    if (match := _INTEGER.fullmatch(name)) and 2 <= int(match[2]) <= _DIGITS:
        return integer_encoding(int(match[2]), signed=not match[1], symmetric=not match[3])
    if match := _PAIR.fullmatch(name):
        bits, second = int(match[2]), int(match[3])
        makers = {"posit": posit_encoding, "fixed": fixed_encoding, "lns": logarithmic_encoding}
        if 3 <= bits <= _DIGITS and second < bits:
            return makers[match[1]](bits, second)
    return None


def _scale(name: str, match: re.Match[str], encodings: Mapping[str, Encoding]) -> Scale:
    rule, shared = match["rule"], int(match["shared"] or 0)
    if rule is not None and rule not in get_args(ScaleRule):
        raise UnknownFormatError(
            f"format {name!r}: unknown scale rule {rule!r}; expected one of "
            f"{', '.join(get_args(ScaleRule))}"
        )
    if shared and rule != "ratio":
        raise UnknownFormatError(f"format {name!r}: only rule 'ratio' has a number of rows")
    found = _part(name, match["scale"] or "fp32", encodings)
    if found is None:
        raise UnknownFormatError(f"format {name!r}: no scale encoding")
    default = "floor" if found.kind == "exponent" else "nearest"
    return Scale(encoding=found, rule=cast("ScaleRule", rule or default), rows=shared)


def _part(name: str, part: str | None, encodings: Mapping[str, Encoding]) -> Encoding | None:
    if part is None:
        return None
    found = encoding_named(part, encodings)
    if found is None:
        raise UnknownFormatError(f"format {name!r}: unknown encoding {part!r}")
    return found
