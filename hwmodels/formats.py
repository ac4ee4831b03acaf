"""Number formats as data: how a number, a scaled block and its use are described.

Nothing here touches tensors: hardware supports formats and moves bits, `dse.numerics` applies
them to values. Sizes are in bits unless the name says bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

EncodingKind = Literal["float", "int", "fixed", "posit", "takum", "codebook", "exponent", "log"]
Specials = Literal["ieee", "fn", "fnuz", "p3109", "none"]
Overflow = Literal["saturate", "inf", "nan"]
Granularity = Literal["tensor", "channel", "token", "head", "group", "block"]
ScaleRule = Literal["nearest", "floor", "ceil", "even", "rceil", "ratio"]
Statistic = Literal["absmax", "minmax", "percentile", "mse"]
Timing = Literal["dynamic", "static", "delayed"]
Rounding = Literal[
    "nearest_even", "nearest_away", "nearest_zero", "zero", "up", "down", "odd",
    "stochastic", "stochastic_equal",
]  # fmt: skip


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The number that multiplies a group of elements, and how it is derived.

    `rule` says how the wanted scale (statistic over largest element) reaches the scale's grid:
    `nearest` rounds to nearest even; the power-of-two rules are those of OCP MX implementations:
    `floor` uses floor(log2(statistic)) - max_exponent (OCP MX 1.0, section 6.3), `ceil`, `even`
    and `rceil` as in torchao's `ScaleCalculationMode`. `ratio` keeps the largest scale of `rows`
    slices as it is and lowers none of the others: each becomes the largest scale over a power of
    two (ZeroQuant-FP's M2, arXiv 2307.09782).
    """

    encoding: Encoding
    rule: ScaleRule = "nearest"
    minimum: float = 0.0
    """Smaller scales are raised to it; 0 lets small groups flush to zero."""
    target: float = 0.0
    """The element value that the statistic is mapped to; 0 means the largest. Tapered formats are
    most precise near 1."""
    rows: int = 0
    """Rule `ratio`: how many slices share their largest scale; 0 means the whole tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A number format with its scales.

    `tensor` has one scale; `channel`, `token` and `head` have one per slice that keeps every axis
    but the contraction axes (what a slice is called depends on the operand: output channels of a
    weight, tokens of an activation); `group` has one per `group` elements along the contraction
    axis; `block` one per `block_rows` x `group` tile. Without `scale` the element stands alone.
    """

    name: str
    element: Encoding
    granularity: Granularity = "tensor"
    group: int = 0
    block_rows: int = 0
    scale: Scale | None = None
    tensor_scale: Encoding | None = None
    """The second level of a two-level format (NVFP4): one per tensor."""
    zero_point: Encoding | None = None
    source: str = ""

    @property
    def bits_per_element(self) -> float:
        """Stored bits per element, scales and zero points of groups included.

        One scale per tensor, channel or token vanishes per element as tensors grow; it is counted
        by `storage_bytes`, which knows the shape.
        """
        elements = self.group * max(self.block_rows, 1)
        if self.granularity not in ("group", "block"):
            return float(self.element.bits)
        return self.element.bits + self._bits_per_scale() / elements

    def storage_bytes(self, shape: Sequence[int], contraction_axes: Sequence[int] = (-1,)) -> int:
        """Bytes of a tensor of this format with every scale, each part rounded up to a byte."""
        total = math.prod(shape)
        scales = self.scale_count(shape, contraction_axes)
        tensor_scale_bits = self.tensor_scale.bits if self.tensor_scale else 0
        return (
            -(-total * self.element.bits // 8)
            + -(-scales * self._bits_per_scale() // 8)
            + -(-tensor_scale_bits // 8)
        )

    def scale_count(self, shape: Sequence[int], contraction_axes: Sequence[int] = (-1,)) -> int:
        """How many scales of the finest level a tensor has."""
        total = math.prod(shape)
        if self.scale is None or total == 0:
            return 0
        axes = {axis % len(shape) for axis in contraction_axes} if shape else set()
        depth = math.prod(shape[axis] for axis in axes)
        slices = total // depth
        match self.granularity:
            case "tensor":
                return 1
            case "channel" | "token" | "head":
                return slices
            case "group":
                return slices * -(-depth // self.group)
            case "block":
                return -(-slices // self.block_rows) * -(-depth // self.group)

    def _bits_per_scale(self) -> int:
        return (self.scale.encoding.bits if self.scale else 0) + (
            self.zero_point.bits if self.zero_point else 0
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantizer:
    """A format plus how it is applied: data here, behaviour in `dse.numerics`."""

    format: Format
    statistic: Statistic = "absmax"
    percentile: float = 100.0
    timing: Timing = "dynamic"
    rounding: Rounding = "nearest_even"
    random_bits: int = 0
    """Stochastic rounding: how many random bits are added; 0 means as many as are dropped."""
    transforms: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The format's name, marked where a default is left (`int8:static`, `int4_g128:mse`)."""
        parts = [self.format.name]
        if self.statistic == "percentile":
            parts.append(f"percentile{self.percentile!r}")
        elif self.statistic != "absmax":
            parts.append(self.statistic)
        if self.timing != "dynamic":
            parts.append(self.timing)
        if self.rounding != "nearest_even":
            parts.append(f"{self.rounding}{self.random_bits or ''}")
        return ":".join([*parts, *self.transforms])

    def replaced(self, **changes: object) -> Quantizer:
        """A copy with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]
