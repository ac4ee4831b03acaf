"""Accumulators: the number that products of a dot product are summed in, and how."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Literal

from hwmodels.errors import FormatError, UnknownFormatError, nearest
from hwmodels.formats.catalog import format
from hwmodels.formats.encoding import Encoding
from hwmodels.formats.encodings import integer_encoding
from hwmodels.formats.quantizer import Format, Quantizer, Rounding

AccumulatorOverflow = Literal["wrap", "saturate", "inf"]
QUIRE_CARRY = 31
"""Carry bits of a quire: with them that of a posit of n bits and two exponent bits has 16 n.

Source: Standard for Posit Arithmetic (2022), section 3.1 (draft 3.2 of 2018 has n - 1, so that
n bits and log2(n) - 3 exponent bits take n^2 / 2).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accumulator:
    """The way in which products of a dot product are summed.

    `float`: `chunk` products at a time are aligned to the largest exponent among them and the
    running sum, cut to `alignment_bits` fraction bits (0: added exactly), and the sum is rounded
    to `encoding` as `rounding` says. After `promote_every` products the running sum moves into a
    float32.
    `integer`: codes are added in `bits` that wrap around or saturate; after `promote_every`
    products the sum spills into int32. `exact`: a quire, rounded once to float32; its width
    follows from what is multiplied (`exact_bits`).
    """

    name: str
    kind: Literal["float", "integer", "exact"]
    encoding: str = "fp32"
    """Of the running sum, as `hwmodels.formats.catalog.format` names it."""
    rounding: Rounding = "nearest_even"
    overflow: AccumulatorOverflow = "wrap"
    """Integers: what a sum beyond `bits` does. Floats become infinite, or with `saturate` the
    largest number."""
    chunk: int = 1
    alignment_bits: int = 0
    promote_every: int = 0
    bits: int = 32
    carry: int = QUIRE_CARRY
    """Exact: `2 ** carry - 1` of the largest products fit."""
    source: str = ""

    def __post_init__(self) -> None:
        if self.promote_every % self.chunk:
            raise FormatError(
                f"accumulator {self.name!r}: expected to spill after whole chunks of "
                f"{self.chunk} products, got {self.promote_every}"
            )

    @property
    def element(self) -> Encoding:
        """The encoding of the running sum of a float accumulator."""
        overflow = "saturate" if self.overflow == "saturate" else "inf"
        return format(self.encoding).element.replaced(overflow=overflow)

    @property
    def stored_bits(self) -> int:
        """Bits of the running sum; 32 of a quire's result."""
        return self.bits if self.kind == "integer" else self.element.bits

    def sum_bits(self, weight: Encoding, other: Encoding) -> int:
        """Bits of the running sum where these are multiplied: `stored_bits`, a quire's own width.

        Raises:
            FormatError: A quire of factors that none holds, as `exact_bits`.
        """
        return exact_bits(weight, other, self.carry) if self.kind == "exact" else self.stored_bits


@dataclass(frozen=True, slots=True, kw_only=True)
class SumQuantizer(Quantizer):
    """An accumulator as what stands at the sum of a product, `<node>/sum` among its sites.

    Its format is that of the running sum; how often it is rounded, and how, the accumulator says.
    """

    accumulator: Accumulator

    @property
    def name(self) -> str:
        """The accumulator's name."""
        return self.accumulator.name


ACCUMULATORS: Mapping[str, Accumulator] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Accumulator(name="fp32", kind="float", source="sequential IEEE binary32"),
            Accumulator(name="fp16", kind="float", encoding="fp16", source="sequential binary16"),
            Accumulator(name="bf16", kind="float", encoding="bf16", source="sequential bfloat16"),
            Accumulator(
                name="hopper_fp8",
                kind="float",
                encoding="e8m13",
                rounding="zero",
                chunk=32,
                alignment_bits=13,
                source="measured: studies/silicon (torch._scaled_mm, fast, on an H100)",
            ),
            Accumulator(
                name="hopper_fp8_promoted",
                kind="float",
                encoding="e8m13",
                rounding="zero",
                chunk=32,
                alignment_bits=13,
                promote_every=128,
                source="measured: studies/silicon (torch._scaled_mm, precise, on an H100)",
            ),
            Accumulator(
                name="hopper_16bit",
                kind="float",
                rounding="zero",
                chunk=16,
                alignment_bits=25,
                source="measured: studies/silicon (torch.mm of bf16 and fp16 on an H100)",
            ),
            Accumulator(name="int32", kind="integer", source="int8 dot products (dp4a, VNNI)"),
            Accumulator(
                name="int16_spill4",
                kind="integer",
                bits=16,
                promote_every=4,
                source="FBGEMM acc16, arXiv 2101.05615",
            ),
            Accumulator(name="quire", kind="exact", source="Posit Standard (2022), section 3.1"),
        )
    }
)
_GRANULARITY = re.compile(r"(tensor|channel|token|head|g\d+|b\d+x\d+)(?![a-z0-9_])")
_INTEGER = re.compile(r"int(\d{1,2})")
_QUIRE = re.compile(r"quire:carry(\d{1,2})")
_NUMBERED = {re.compile(r"chunk(\d+)"): "chunk", re.compile(r"spill(\d+)"): "promote_every"}
_ROUNDINGS: tuple[Rounding, ...] = ("nearest_even", "zero", "stochastic")
WIDEST, NARROWEST = 48, 4
"""Bits of integer accumulators."""


def split_sum(name: str) -> tuple[str, SumQuantizer | None]:
    """A scheme or format and the accumulator that its name ends with: `w8a8_int8@int20:saturate`.

    What stands behind an `@` and is a granularity (`e2m1@g32/e8m0`) belongs to the format.

    Raises:
        UnknownFormatError: No such accumulator.
    """
    head, mark, tail = name.rpartition("@")
    if not mark or _GRANULARITY.match(tail):
        return name, None
    return head, sum_quantizer(tail)


def sum_quantizer(name: object) -> SumQuantizer:
    """The accumulator of a name as what stands at sums.

    Raises:
        UnknownFormatError: No such accumulator, or a quire, which no network is emulated with.
    """
    if not isinstance(name, str):
        raise UnknownFormatError(f"expected the name of an accumulator (int16), got {name!r}")
    found = accumulator(name)
    if found.kind == "exact":
        raise UnknownFormatError(
            f"accumulator {name!r}: a quire is not emulated in networks; give a width, such as "
            "int24 or fp32"
        )
    whole = found.kind == "integer"
    element = integer_encoding(found.bits, signed=True) if whole else found.element
    return SumQuantizer(
        format=Format(name=found.name, element=element, source=found.source), accumulator=found
    )


def accumulator(name: str) -> Accumulator:
    """The accumulator of a name: one of `ACCUMULATORS`, or a width and words behind colons.

    `int16`, `int20:saturate`, `fp16:zero`, `e6m9:stochastic`, `bf16:chunk8`, `fp16:spill128`:
    integers of 4 to 48 bits wrap or `saturate`; floats round `nearest_even` (default), to `zero`
    or `stochastic`; `chunkN` adds N products exactly before it rounds, `spillN` moves the sum into
    a wider one (float32, int32) after N products. `quire:carryN` is a quire that holds 2^N - 1 of
    the largest products (N is 1 to 48).

    Raises:
        UnknownFormatError: No such accumulator, or a word that means nothing for it.
    """
    if name in ACCUMULATORS:
        return ACCUMULATORS[name]
    head, *words = name.split(":")
    if head == "quire":
        return _quire(name)
    fields: dict[str, object] = {"name": name}
    if match := _INTEGER.fullmatch(head):
        bits = int(match[1])
        if not NARROWEST <= bits <= WIDEST:
            raise UnknownFormatError(
                f"accumulator {name!r}: integers have {NARROWEST} to {WIDEST} bits, got {bits}"
            )
        fields |= {"kind": "integer", "bits": bits}
    else:
        fields |= {"kind": "float", "encoding": _float(head, name)}
    for word in words:
        fields |= _word(word, name, integer=fields["kind"] == "integer")
    return Accumulator(**fields)  # type: ignore[arg-type]


def exact_bits(weight: Encoding, other: Encoding, carry: int = QUIRE_CARRY) -> int:
    """Bits of a two's complement in which any `2 ** carry - 1` products are summed exactly.

    Args:
        weight: Encoding of one factor.
        other: Of the other.
        carry: As `Accumulator.carry`.

    Raises:
        FormatError: A factor whose numbers are no multiples of one number, or one that is larger
            or smaller than float64 has (codebooks, logarithmic numbers).
    """
    largest = Fraction(1 << carry) - 1
    for one in (weight, other):
        largest *= max(Fraction(one.max), -Fraction(one.min)) / _unit(one)
    return 1 + math.floor(largest).bit_length()


def _unit(encoding: Encoding) -> Fraction:
    """The number of which every other is a multiple."""
    if encoding.kind in ("codebook", "log"):
        raise FormatError(
            f"encoding {encoding.name}: its numbers are no multiples of one number, so that no "
            "quire holds their products; give a float, such as fp32"
        )
    unit = Fraction(encoding.min_subnormal)
    if encoding.kind == "float" and not encoding.subnormals:
        unit /= 1 << encoding.mantissa_bits
    return unit


def _quire(name: str) -> Accumulator:
    match = _QUIRE.fullmatch(name)
    if match is None or not 1 <= int(match[1]) <= WIDEST:
        raise UnknownFormatError(
            f"accumulator {name!r}: the only word of a quire is its carry bits, 1 to {WIDEST}, "
            "such as quire:carry7"
        )
    return replace(ACCUMULATORS["quire"], name=name, carry=int(match[1]))


def _float(head: str, name: str) -> str:
    known = [*ACCUMULATORS, "int16", "e6m9"]
    try:
        element = format(head).element
    except UnknownFormatError:
        element = None
    if element is None or element.kind != "float" or not element.signed:
        raise UnknownFormatError(
            f"accumulator {name!r}: expected a float with a sign (fp16, e6m9), an integer (int16) "
            f"or a known one, got {head!r}{nearest(head, known)}"
        )
    return head


def _word(word: str, name: str, *, integer: bool) -> dict[str, object]:
    for pattern, field in _NUMBERED.items():
        match = pattern.fullmatch(word)
        if match and int(match[1]) > 0 and not (integer and field == "chunk"):
            return {field: int(match[1])}
    if not integer and word in _ROUNDINGS:
        return {"rounding": word}
    if word == "saturate" or (integer and word == "wrap"):
        return {"overflow": word}
    known = ["saturate", "spill128"]
    known += ["wrap"] if integer else ["chunk8", *_ROUNDINGS]
    raise UnknownFormatError(
        f"accumulator {name!r}: {word!r} means nothing here{nearest(word, known)}; "
        f"words: {', '.join(known)}"
    )
