"""Number formats as data: how a number, a scaled block and its use are described.

Nothing here touches tensors: hardware supports formats and moves bits, `dse.numerics` applies
them to values. Sizes are in bits unless the name says bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

EncodingKind = Literal["float", "int", "fixed", "posit", "codebook", "exponent", "log"]
Specials = Literal["ieee", "fn", "fnuz", "none"]
Overflow = Literal["saturate", "inf", "nan"]
Granularity = Literal["tensor", "channel", "token", "head", "group", "block"]
ScaleRule = Literal["nearest", "floor", "ceil", "even", "rceil"]
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
    `none` has numbers everywhere.
    """

    name: str
    kind: EncodingKind
    bits: int
    exponent_bits: int = 0
    """Floats: width of the exponent field. Posits: es."""
    mantissa_bits: int = 0
    """Floats: stored fraction bits. Fixed point and MXINT: fraction bits."""
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
                return self._float_max()
            case "codebook":
                return self.codes[-1]
            case "int" | "fixed":
                magnitude_bits = self.bits - 1 if self.signed else self.bits
                return (2**magnitude_bits - 1) * 2.0**-self.mantissa_bits
            case "posit" | "log":
                raise NotImplementedError(self.kind)

    @property
    def min_normal(self) -> float:
        """The smallest positive value with full precision."""
        if self.kind in ("float", "exponent"):
            lowest_exponent = 1 if self.mantissa_bits else 0
            return 2.0 ** (lowest_exponent - self.bias)
        return 2.0**-self.mantissa_bits

    @property
    def min_subnormal(self) -> float:
        """The smallest positive value."""
        if self.kind == "float" and self.subnormals:
            return self.min_normal * 2.0**-self.mantissa_bits
        return self.min_normal

    @property
    def max_exponent(self) -> int:
        """The exponent of the largest binade: floor(log2(max))."""
        return math.frexp(self.max)[1] - 1

    def _float_max(self) -> float:
        top = 2**self.exponent_bits - 1
        fraction = 2**self.mantissa_bits - 1
        if self.specials == "ieee":
            top -= 1
        elif self.specials == "fn" and self.mantissa_bits:
            fraction -= 1
        elif self.specials == "fn":
            top -= 1
        return 2.0 ** (top - self.bias) * (1 + fraction * 2.0**-self.mantissa_bits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The number that multiplies a group of elements, and how it is derived.

    `rule` says how the wanted scale (statistic over largest element) reaches the scale's grid:
    `nearest` rounds to nearest even; the power-of-two rules are those of OCP MX implementations:
    `floor` uses floor(log2(statistic)) - max_exponent (OCP MX 1.0, section 6.3), `ceil`, `even`
    and `rceil` as in torchao's `ScaleCalculationMode`.
    """

    encoding: Encoding
    rule: ScaleRule = "nearest"


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
        defaults = Quantizer(format=self.format)
        parts = [self.format.name]
        parts += [
            str(getattr(self, field))
            for field in ("statistic", "timing", "rounding")
            if getattr(self, field) != getattr(defaults, field)
        ]
        return ":".join([*parts, *self.transforms])

    def replaced(self, **changes: object) -> Quantizer:
        """A copy with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]
