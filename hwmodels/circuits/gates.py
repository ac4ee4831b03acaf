"""Gates of the blocks that arithmetic is built of, in NAND2 equivalents.

Blocks are textbook ones (Ercegovac and Lang, Digital Arithmetic, 2004), their cells those of a
public library. Three classes of gates are counted apart, because they switch differently: adders
toggle and glitch every cycle, shifters and multiplexers pass most bits on, flip-flops are clocked.
What a gate of each class takes of area and energy is fitted (`hwmodels.circuits.technology`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

AND, XOR, MUX, HALF_ADDER, FULL_ADDER, FLIP_FLOP = 1.333, 2.0, 2.333, 3.333, 5.333, 5.667
"""Cells in NAND2 equivalents.

Source: NanGate 45 nm Open Cell Library, areas of X1 cells over that of NAND2 (0.798 um2): AND2
1.064, XOR2 1.596, MUX2 1.862, half adder 2.660, full adder 4.256, flip-flop 4.522 um2.
"""


@dataclass(frozen=True, slots=True)
class Gates:
    """Gates by class, in NAND2 equivalents."""

    adding: float = 0.0
    """Of adders and multipliers."""
    steering: float = 0.0
    """Of shifters, multiplexers, detectors, tables and comparisons."""
    storing: float = 0.0
    """Of flip-flops."""

    @property
    def total(self) -> float:
        """All gates."""
        return self.adding + self.steering + self.storing

    def __add__(self, other: Gates) -> Gates:
        return Gates(
            self.adding + other.adding,
            self.steering + other.steering,
            self.storing + other.storing,
        )

    def __mul__(self, factor: float) -> Gates:
        return Gates(self.adding * factor, self.steering * factor, self.storing * factor)


def adder(bits: int) -> Gates:
    """A carry-propagate adder: one full adder a bit."""
    return Gates(adding=bits * FULL_ADDER)


def incrementer(bits: int) -> Gates:
    """An adder of one bit to a word: one half adder a bit."""
    return Gates(steering=bits * HALF_ADDER)


def multiplier(a: int, b: int) -> Gates:
    """An array multiplier: `a b` partial products, `a b - a - b` full and `b` half adders.

    Two's complement takes the same array (Baugh and Wooley).
    """
    if min(a, b) <= 1:
        return Gates(adding=a * b * AND)
    wide, narrow = max(a, b), min(a, b)
    full = wide * narrow - wide - narrow
    return Gates(adding=wide * narrow * AND + full * FULL_ADDER + narrow * HALF_ADDER)


def shifter(bits: int, distance: int) -> Gates:
    """A barrel shifter over 0 to `distance` places: a multiplexer a bit and stage."""
    return Gates(steering=bits * _stages(distance + 1) * MUX)


def multiplexer(bits: int, ways: int = 2) -> Gates:
    """A choice between words."""
    return Gates(steering=bits * (ways - 1) * MUX)


def leading_one(bits: int) -> Gates:
    """A leading-one detector: a tree of `bits` nodes of an AND and a multiplexer (Oklobdzija)."""
    return Gates(steering=bits * (AND + MUX))


def negation(bits: int) -> Gates:
    """A conditional two's complement: an XOR and a half adder a bit."""
    return Gates(steering=bits * (XOR + HALF_ADDER))


def comparison(bits: int) -> Gates:
    """The larger of two words: a subtraction and a choice."""
    return adder(bits) + multiplexer(bits)


def register(bits: int) -> Gates:
    """Flip-flops."""
    return Gates(storing=bits * FLIP_FLOP)


def table(entries: int, bits: int) -> Gates:
    """A look-up in constants, as logic: 2^n / n two-input gates an output of n inputs.

    Source: Shannon, The synthesis of two-terminal switching circuits (1949), and Lupanov (1958),
    whose bound almost every function of n inputs meets.
    """
    if entries <= 1:
        return Gates()
    return Gates(steering=bits * entries / math.log2(entries) * AND)


def bipartite_table(bits_in: int, bits_out: int) -> Gates:
    """A smooth function of `bits_in` bits as the sum of two tables and an adder.

    Source: de Dinechin and Tisserand, Multipartite Table Methods, IEEE Trans. Computers 54 (2005):
    two tables of 2^(2n/3) entries, the second's of a third of the width.
    """
    entries = 2 ** math.ceil(2 * bits_in / 3)
    if entries * 4 / 3 >= 2**bits_in:
        return table(2**bits_in, bits_out)
    return table(entries, bits_out) + table(entries, math.ceil(bits_out / 3)) + adder(bits_out)


def lfsr(bits: int) -> Gates:
    """A linear-feedback shift register that gives `bits` random bits a cycle."""
    return register(bits) + Gates(steering=bits * XOR)


def _stages(values: int) -> int:
    return max(math.ceil(math.log2(values)), 0) if values > 1 else 0
