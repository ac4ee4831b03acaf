"""Multiply-accumulate circuits: gates, area, energy and throughput of a number format's hardware.

A `MacDesign` is a dot-product unit of `lanes` multipliers whose products meet in a tree of adders,
and one accumulator. Per multiply-accumulate:

    area   = (lanes * lane + tree + accumulation + scaling) / lanes
    energy = lane + (tree + accumulation) / lanes + scaling / group

A lane decodes its operands (posits: regime and shift; codebooks: a look-up), multiplies
significands and adds exponents; logarithmic numbers add, and become linear by a table. The tree
aligns products to one another: in fixed point where their span is small, else to the largest
exponent. Block scales meet the sum of a block, once a block. Conversions of results (scales of a
whole tensor, encoding of a posit) happen once an output and are not here.

Analytic: no synthesis was run. What it was fitted to and where it misses:
`studies/format_circuits`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from hwmodels.circuits import gates, technology
from hwmodels.circuits.gates import Gates
from hwmodels.circuits.operand import Operand, operand
from hwmodels.circuits.technology import HOROWITZ, Technology
from hwmodels.errors import CircuitError, FormatError
from hwmodels.formats.accumulator import Accumulator, accumulator
from hwmodels.formats.encoding import Encoding

LANES = 16
"""Multipliers of a dot-product unit where a design says nothing: those of one NVFP4 block."""
GUARD_BITS = 3
"""Guard, round and sticky bit of a float addition (IEEE 754 needs no more)."""
STOCHASTIC_BITS = 8
"""Random bits that stochastic rounding adds (assumed)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockScale:
    """Scales that meet the sum of `group` products, of one operand or both."""

    group: int
    encodings: tuple[Encoding, ...]
    """One or two: of the weight's and of the input's blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MacDesign:
    """A multiply-accumulate circuit: two operand grids, scales, and an accumulator."""

    weight: Encoding
    input: Encoding
    accumulator: Accumulator = field(default_factory=lambda: accumulator("fp32"))
    scale: BlockScale | None = None
    """None: no scales, or scales of whole tensors, channels or tokens, which meet results."""
    zero_points: int = 0
    """Operands that subtract a zero point before they are multiplied (0 to 2)."""
    lanes: int = LANES
    registers: bool = True
    """Whether operands are held in flip-flops at the multiplier, as in systolic arrays."""

    def __post_init__(self) -> None:
        if self.lanes < 1:
            raise CircuitError(f"MAC: expected at least one lane, got {self.lanes}")
        if self.scale is not None and self.lanes > self.scale.group:
            raise CircuitError(
                f"MAC: {self.lanes} lanes would add products of different blocks of "
                f"{self.scale.group}; expected at most as many lanes"
            )
        if self.scale is not None and self.accumulator.kind != "float" and not self.is_integer:
            raise CircuitError(
                f"MAC: block scales make the sum a float, but the accumulator is "
                f"{self.accumulator.name}; give a float, such as fp32"
            )

    @property
    def summed(self) -> Accumulator:
        """The accumulator; a quire as the integer whose width its factors ask for.

        Raises:
            CircuitError: Factors that no quire holds.
        """
        if self.accumulator.kind != "exact":
            return self.accumulator
        try:
            bits = self.accumulator.sum_bits(self.weight, self.input)
        except FormatError as error:
            raise CircuitError(f"MAC: {error}") from None
        return replace(self.accumulator, kind="integer", bits=bits)

    @property
    def is_integer(self) -> bool:
        """Whether sums stay integers: those of integers, under no block scales but integers.

        So per-vector scales work (VS-Quant, arXiv 2102.04503, section 5).
        """
        scales = () if self.scale is None else self.scale.encodings
        return all(one.kind in ("int", "fixed") for one in (self.weight, self.input, *scales))


@dataclass(frozen=True, slots=True)
class MacGates:
    """Gates of one multiply-accumulate: what it takes of area, and what switches for it."""

    area: Gates
    active: Gates


def mac_gates(design: MacDesign) -> MacGates:
    """The gates of a design, per multiply-accumulate.

    Raises:
        CircuitError: An encoding that has no circuit here.
    """
    weight, other = operand(design.weight), operand(design.input)
    product = _product(weight, other, design.zero_points)
    lane = product.circuit
    if design.registers:
        lane += gates.register(design.weight.bits + design.input.bits)
    added, total = tree(product, design.lanes, design.summed)
    if design.scale is None:
        often = added + accumulation(total, design.summed)
        return MacGates(lane + often * (1 / design.lanes), lane + often * (1 / design.lanes))
    often, block = _blocks(total, design, design.scale)
    often += added
    return MacGates(
        area=lane + (often + block) * (1 / design.lanes),
        active=lane + often * (1 / design.lanes) + block * (1 / design.scale.group),
    )


def mac_area_um2(design: MacDesign, node_nm: float, made: Technology = HOROWITZ) -> float:
    """The area of one multiply-accumulate a cycle.

    Raises:
        CircuitError: A node outside of 180 to 7 nm, an encoding without a circuit.
    """
    return technology.area_um2(mac_gates(design).area, node_nm, made)


def mac_energy_j(design: MacDesign, node_nm: float, made: Technology = HOROWITZ) -> float:
    """The energy of one multiply-accumulate.

    Raises:
        CircuitError: A node outside of 180 to 7 nm, an encoding without a circuit.
    """
    return technology.energy_j(mac_gates(design).active, node_nm, made)


def relative_throughput(
    design: MacDesign, reference: MacDesign, made: Technology = HOROWITZ
) -> float:
    """Multiply-accumulates a second of equal area and clock, over those of a reference."""
    node = made.node_nm
    return mac_area_um2(reference, node, made) / mac_area_um2(design, node, made)


@dataclass(frozen=True, slots=True)
class Word:
    """A number on its way to the accumulator: `bits` of a significand over `span` + 1 places."""

    bits: int
    span: int = 0
    """Places that it can be shifted by; 0 for integers."""
    circuit: Gates = field(default_factory=Gates)

    @property
    def exponent_bits(self) -> int:
        """Bits of its exponent; 0 of integers."""
        return math.ceil(math.log2(self.span + 1)) if self.span else 0

    @property
    def fixed_bits(self) -> int:
        """Width in fixed point, without loss."""
        return self.bits + self.span


def _product(weight: Operand, other: Operand, zero_points: int) -> Word:
    circuit = weight.decoding + other.decoding
    if weight.is_logarithmic and other.is_logarithmic:
        fraction = max(weight.significand, other.significand) - 1
        circuit += gates.adder(max(weight.bits, other.bits))
        circuit += gates.bipartite_table(fraction, fraction)
        return Word(fraction + 1, weight.span + other.span, circuit)
    a = weight.significand + (zero_points > 0)
    b = other.significand + (zero_points > 1)
    circuit += weight.linear + other.linear + gates.multiplier(a, b)
    if zero_points:
        circuit += gates.adder(a) + (gates.adder(b) if zero_points > 1 else Gates())
    span = weight.span + other.span
    if weight.span and other.span:
        circuit += gates.adder(Word(0, span).exponent_bits)
    return Word(a + b, span, circuit)


def tree(product: Word, lanes: int, accumulated: Accumulator) -> tuple[Gates, Word]:
    """The addition of all lanes' products, and the sum."""
    if lanes == 1:
        return Gates(), product
    depth = math.ceil(math.log2(lanes))
    widest = _precision(accumulated)
    aligned = min(product.fixed_bits, widest)
    circuit = Gates()
    if product.span:
        circuit += (gates.shifter(aligned, min(product.span, aligned))) * lanes
        circuit += gates.negation(product.bits) * lanes
        if product.fixed_bits > widest:  # aligned to the largest exponent, which is searched
            exponent = product.exponent_bits
            circuit += gates.comparison(exponent) * (lanes - 1) + gates.adder(exponent) * lanes
    for level in range(depth):
        circuit += gates.adder(aligned + level) * (lanes / 2 ** (level + 1))
    span = product.span if product.fixed_bits > widest else 0
    return circuit, Word(aligned + depth, span)


def _blocks(total: Word, design: MacDesign, scale: BlockScale) -> tuple[Gates, Gates]:
    """The work for every sum of the lanes, and that for every block."""
    accumulated = design.accumulator
    steps = max(math.ceil(scale.group / design.lanes), 1)
    often = Gates()
    inner = total
    if steps > 1:
        if total.span:
            often = accumulation(total, accumulated)
            inner = Word(accumulated.element.mantissa_bits + 1, total.span)
        else:
            inner = Word(total.bits + math.ceil(math.log2(steps)))
            often = gates.adder(inner.bits) + gates.register(inner.bits)
    significands = [_scale_significand(encoding) for encoding in scale.encodings]
    exponents = [encoding.exponent_bits for encoding in scale.encodings]
    width = inner.bits
    if accumulated.kind == "float":
        width = min(width, accumulated.element.mantissa_bits + 1)
    block = gates.adder(max(exponents, default=0)) * len(exponents)
    block += gates.multiplier(width, sum(significands)) if sum(significands) else Gates()
    if len(significands) > 1 and all(significands):
        block += gates.multiplier(*significands)
    block += accumulation(Word(inner.bits + sum(significands), inner.span), accumulated)
    return often, block


def _scale_significand(encoding: Encoding) -> int:
    """Bits that multiply: none of a power of two."""
    if encoding.kind == "exponent" or (encoding.mantissa_bits == 0 and encoding.kind == "float"):
        return 0
    return encoding.mantissa_bits + 1 if encoding.kind == "float" else encoding.bits


def accumulation(word: Word, accumulated: Accumulator) -> Gates:
    """The addition of a word to the running sum, and its register."""
    if accumulated.kind == "integer":
        circuit = gates.adder(accumulated.bits) + gates.register(accumulated.bits)
        if word.span:
            distance = min(word.span, accumulated.bits)
            circuit += gates.shifter(accumulated.bits, distance) + gates.negation(word.bits)
        if accumulated.overflow == "saturate":
            circuit += gates.multiplexer(accumulated.bits)
        return circuit
    element = accumulated.element
    convert = Gates()
    if not word.span:  # an integer becomes a float
        convert = gates.negation(word.bits) + gates.leading_one(word.bits)
        convert += gates.shifter(word.bits, word.bits)
    addition = float_adder(element.exponent_bits, element.mantissa_bits)
    return convert + addition + _rounding(accumulated) + gates.register(element.bits)


def float_adder(exponent_bits: int, mantissa_bits: int) -> Gates:
    """A float addition without its rounding: compare, swap, align, add, find the first one, shift.

    Source: Ercegovac and Lang, Digital Arithmetic (2004), section 8.4 (single path).
    """
    wide = mantissa_bits + 1 + GUARD_BITS
    return (
        gates.adder(exponent_bits) * 2
        + gates.multiplexer(2 * (mantissa_bits + 1))
        + gates.shifter(wide, wide)
        + gates.adder(wide)
        + gates.leading_one(wide)
        + gates.shifter(wide, wide)
    )


def float_multiplier(exponent_bits: int, mantissa_bits: int) -> Gates:
    """A float multiplication as IEEE 754 has it: subnormal operands and results, rounding.

    Source: Ercegovac and Lang, Digital Arithmetic (2004), section 8.5.
    """
    digits = mantissa_bits + 1
    return (
        gates.multiplier(digits, digits)
        + gates.adder(exponent_bits) * 2
        + (gates.leading_one(digits) + gates.shifter(digits, digits)) * 2
        + gates.shifter(2 * digits, 2 * digits)
        + gates.multiplexer(2 * digits)
        + gates.incrementer(digits)
    )


def _rounding(accumulated: Accumulator) -> Gates:
    match accumulated.rounding:
        case "zero":
            return Gates()
        case "stochastic":
            return gates.lfsr(STOCHASTIC_BITS) + gates.adder(STOCHASTIC_BITS)
        case _:
            return gates.incrementer(accumulated.element.mantissa_bits + 1)


def _precision(accumulated: Accumulator) -> int:
    """The widest fixed-point word that a tree carries."""
    if accumulated.kind == "integer":
        return accumulated.bits
    return accumulated.alignment_bits or accumulated.element.mantissa_bits + 1 + GUARD_BITS
