"""Families of formats at several widths: what is compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

FLOATS = {
    4: "e2m1", 5: "e2m2", 6: "e2m3", 7: "e3m3", 8: "e4m3", 10: "e4m5", 12: "e5m6", 16: "fp16",
}  # fmt: skip
"""Of each width the split of bits that units have, or one between those of its neighbours."""
TURNED = "hadamard(16)"
"""The rotation of INT v.s. FP (arXiv 2510.25602), of both operands, undone in the product."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A format in a family: an element, how it is scaled, how it is summed."""

    family: str
    bits: int
    element: str
    scaled: str = "slice"
    """`slice` (a scale an output channel, and a token; a tensor where windows share it), the
    scales of groups as names spell them, or empty for none."""
    words: str = "absmax:uncorrected"
    """Largest magnitudes wherever there are scales: formats are compared and not methods."""
    accumulator: str = ""
    """Another than float32 or int32."""

    @property
    def name(self) -> str:
        """For tables."""
        behind = {"slice": "", "": ""}.get(self.scaled, f"@{self.scaled}")
        turned = f" {TURNED}" if TURNED in self.words else ""
        total = f" into {self.accumulator}" if self.accumulator else ""
        return f"{self.element}{behind}{turned}{total}"

    @property
    def circuit(self) -> str:
        """The format that circuits are asked for."""
        return self.element + ("" if self.scaled in ("slice", "") else f"@{self.scaled}")

    def quantizer(self, granularity: str) -> str:
        """The quantizer's name where a slice is a `channel`, `token` or `tensor`."""
        scaled = f"@{granularity}/fp32" if self.scaled == "slice" else f"@{self.scaled}"
        return ":".join(part for part in (self.element + scaled * bool(self.scaled), self.words)
                        if part)  # fmt: skip


DIGITS = "FP, two exponent bits"
"""Digits in place of range: beyond six bits no unit has them."""
MX, NV, VSQ = "g32/e8m0-floor", "g16/e4m3+fp32", "g16/uint8+fp32"
MX_UP = "g32/e8m0-rceil"
"""Scales that clip nothing, as that paper takes them; OCP's rule is the floor."""


def entries() -> Iterator[Entry]:
    """All that is measured."""
    yield Entry(family="BF16", bits=16, element="bf16", scaled="", words="")
    for family, scaled, widths in (
        ("INT", "slice", (*range(4, 9), 10, 12)),
        ("MXINT", MX, range(4, 9)),
        ("NVINT", NV, range(3, 7)),
        ("VSQINT", VSQ, range(3, 7)),
        ("VSQINT, scales of 4 bits", "g16/uint4+fp32", range(3, 7)),
        ("MXINT, no clipping", MX_UP, (4, 6, 8)),
    ):
        for bits in widths:
            yield Entry(family=family, bits=bits, element=f"int{bits}", scaled=scaled)
    for family, scaled, widths in (
        ("FP", "slice", (4, 5, 6, 7, 8, 10, 12)),
        ("MXFP", MX, (4, 5, 6, 7, 8)),
        ("MXFP, no clipping", MX_UP, (4, 6, 8)),
        ("NVFP", NV, (4, 5, 6)),
    ):
        for bits in widths:
            yield Entry(family=family, bits=bits, element=FLOATS[bits], scaled=scaled)
    yield Entry(family="FP", bits=16, element="fp16", scaled="", words="")
    for bits, element in ((7, "e2m4"), (8, "e2m5")):
        yield Entry(family=DIGITS, bits=bits, element=element)
    for family, element, scaled in (
        ("NVINT", "int4", NV), ("NVFP", "e2m1", NV), ("MXINT", "int4", MX), ("MXFP", "e2m1", MX),
    ):  # fmt: skip
        yield Entry(
            family=f"{family} turned", bits=4, element=element, scaled=scaled,
            words=f"absmax:uncorrected:{TURNED}",
        )  # fmt: skip
    for family, digits in (
        ("LNS", {6: "lns6_2", 8: "lns8_3", 10: "lns10_5", 12: "lns12_6", 16: "lns16_10"}),
        ("posit", {6: "posit6_1", 8: "posit8_1", 10: "posit10_1", 12: "posit12_1",
                   16: "posit16_1"}),
    ):  # fmt: skip
        for bits, element in digits.items():
            # Tapered elements are scaled to where they are precise, as everywhere here.
            yield Entry(
                family=family, bits=bits, element=element, words="",
                scaled="slice" if bits < 16 else "",
            )  # fmt: skip
    yield from _summed()


def _summed() -> Iterator[Entry]:
    """Narrower sums, of formats that published comparisons name."""
    for family, bits, element, scaled in (
        ("FP", 16, "fp16", ""), ("FP", 8, "e4m3", "slice"), ("FP", 4, "e2m1", "slice"),
        ("MXFP", 8, "e4m3", MX), ("MXINT", 8, "int8", MX), ("MXFP", 4, "e2m1", MX),
        ("NVFP", 4, "e2m1", NV), ("NVINT", 4, "int4", NV), ("LNS", 16, "lns16_10", ""),
    ):  # fmt: skip
        yield Entry(
            family=family, bits=bits, element=element, scaled=scaled,
            words="absmax:uncorrected" if scaled else "", accumulator="e8m13:chunk16",
        )  # fmt: skip
    yield Entry(family="INT", bits=8, element="int8", accumulator="int20:saturate")
    yield Entry(family="INT", bits=4, element="int4", accumulator="int16:saturate")
