"""Number formats as data: how a number, a scaled block and its use are described.

Nothing here touches tensors: hardware supports formats and moves bits, `dse.numerics` applies
them to values. Sizes are in bits unless the name says bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hwmodels.errors import FormatError
from hwmodels.formats.encoding import Encoding, EncodingKind, Overflow, Specials

__all__ = [
    "Correction", "Encoding", "EncodingKind", "Format", "Granularity", "Overflow", "Quantizer",
    "Rounding", "Scale", "ScaleRule", "Specials", "Statistic", "Timing",
]  # fmt: skip

Granularity = Literal["tensor", "channel", "token", "head", "group", "block"]
ScaleRule = Literal[
    "nearest", "floor", "ceil", "even", "rceil", "ratio", "global_min", "fitted",
]  # fmt: skip
Statistic = Literal[
    "auto", "absmax", "minmax", "percentile", "rms", "mse", "output_mse", "mean_channel_range",
    "learned",
]  # fmt: skip
Timing = Literal["dynamic", "two_stage", "static", "delayed"]
Rounding = Literal[
    "nearest_even", "nearest_away", "nearest_zero", "zero", "up", "down", "odd",
    "stochastic", "stochastic_equal", "random_directed", "requant", "requant_floor",
    "gptq", "discquant", "blockwise",
]  # fmt: skip
Correction = Literal["auto", "bias_corrected", "uncorrected"]

LEARNED_ROUNDINGS: tuple[Rounding, ...] = ("gptq", "discquant", "blockwise")
"""Roundings that are chosen with calibration data; what they chose is a state."""
RANDOM_ROUNDINGS: tuple[Rounding, ...] = ("stochastic", "stochastic_equal", "random_directed")
NARROWING_ROUNDINGS: tuple[Rounding, ...] = ("requant", "requant_floor")
WIDEST_CODES = 16
"""Bits of codes that narrower ones are made of."""
COARSE_BITS = 4
"""Integer weights of at most so many bits need searched ranges; measured in
`studies/weight_methods`."""
CORRECTED_BITS = 8
"""Integer weights of at most so many bits need corrected means; measured in
`studies/vision_recipes`."""
HISTORY = 16
"""Steps that delayed scaling remembers (Transformer Engine's usual `amax_history_len`)."""
MOST_RANDOM_BITS = 31
"""A draw has 32 bits, of which one is left to be compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The number that multiplies a group of elements, and how it is derived.

    `rule` says how the wanted scale (statistic over largest element) reaches the scale's grid:
    `nearest` rounds to nearest even; the power-of-two rules are those of OCP MX implementations:
    `floor` uses floor(log2(statistic)) - max_exponent (OCP MX 1.0, section 6.3), `ceil`, `even`
    and `rceil` as in torchao's `ScaleCalculationMode`. `ratio` keeps the largest scale of `rows`
    slices as it is and lowers none of the others: each becomes the largest scale over a power of
    two (ZeroQuant-FP's M2, arXiv 2307.09782; its M1 is an E8M0 scale by `rceil`). `global_min` is
    `nearest` with one scale for the copies of a tensor that several workers hold, so that they can
    be summed: the smallest of their factors, which is the largest scale (FP8-LM, arXiv
    2310.18313, section 2.1).
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

    With `super_scale` the scales of groups are codes themselves: a group's scale is its code times
    the one number that every `super_group` elements share, and so is its offset with another such
    number (the K-quants of GGUF).
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
    offset: Encoding | None = None
    """Addend of codes times scale: a number of its own for each group, where a zero point
    is a multiple of the scale. One without a sign is subtracted (GGUF's minimum)."""
    super_group: int = 0
    """Elements along the contraction axis under one `super_scale`; a multiple of `group`."""
    super_scale: Encoding | None = None
    """Factors of the codes of scales, and in another copy of those of offsets."""
    source: str = ""

    def __post_init__(self) -> None:
        levels = self.offset is not None or self.super_scale is not None
        if levels and (self.scale is None or self.scale.rule != "fitted"):
            raise FormatError(
                f"format {self.name!r}: offsets and scales of scales are fitted; expected scale "
                "rule 'fitted'"
            )
        if self.scale is None or self.scale.rule != "fitted":
            return
        if self.zero_point is not None or self.tensor_scale is not None or self.block_rows:
            raise FormatError(
                f"format {self.name!r}: fitted scales have offsets and a level above, no zero "
                "points, tensor scales or blocks of rows"
            )
        if (self.super_scale is None) != (not self.super_group):
            raise FormatError(
                f"format {self.name!r}: 'super_group' and 'super_scale' come together"
            )
        if self.super_group and (not self.group or self.super_group % self.group):
            raise FormatError(
                f"format {self.name!r}: expected super_group in multiples of a group, got "
                f"{self.super_group} over {self.group}"
            )

    @property
    def bits_per_element(self) -> float:
        """Stored bits per element, scales, zero points and offsets of groups included.

        One scale per tensor, channel or token vanishes per element as tensors grow; it is counted
        by `storage_bytes`, which knows the shape.
        """
        elements = self.group * max(self.block_rows, 1)
        if self.granularity not in ("group", "block"):
            return float(self.element.bits)
        bits = self.element.bits + self._bits_per_scale() / elements
        return bits + (self._bits_per_super_group() / self.super_group if self.super_group else 0)

    def storage_bytes(self, shape: Sequence[int], contraction_axes: Sequence[int] = (-1,)) -> int:
        """Bytes of a tensor of this format with every scale, each part rounded up to a byte."""
        total = math.prod(shape)
        scales = self.scale_count(shape, contraction_axes)
        tensor_scale_bits = self.tensor_scale.bits if self.tensor_scale else 0
        return (
            -(-total * self.element.bits // 8)
            + -(-scales * self._bits_per_scale() // 8)
            + self._super_group_bytes(shape, contraction_axes)
            + -(-tensor_scale_bits // 8)
        )

    def scale_count(self, shape: Sequence[int], contraction_axes: Sequence[int] = (-1,)) -> int:
        """The number of scales of the finest level in a tensor."""
        if self.scale is None or math.prod(shape) == 0:
            return 0
        slices, depth = _matrix(shape, contraction_axes)
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
        scale = None if self.scale is None else self.scale.encoding
        parts = (scale, self.zero_point, self.offset)
        return sum(part.bits for part in parts if part is not None)

    def _bits_per_super_group(self) -> int:
        if self.super_scale is None:
            return 0
        return self.super_scale.bits * (1 if self.offset is None else 2)

    def _super_group_bytes(self, shape: Sequence[int], contraction_axes: Sequence[int]) -> int:
        if not self.super_group or math.prod(shape) == 0:
            return 0
        slices, depth = _matrix(shape, contraction_axes)
        return -(-slices * -(-depth // self.super_group) * self._bits_per_super_group() // 8)


def _matrix(shape: Sequence[int], contraction_axes: Sequence[int]) -> tuple[int, int]:
    """(slices, elements of a slice)."""
    axes = {axis % len(shape) for axis in contraction_axes} if shape else set()
    depth = math.prod(shape[axis] for axis in axes)
    return math.prod(shape) // depth, depth


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantizer:
    """A format plus how it is applied: data here, behaviour in `dse.numerics`.

    Statistics: `rms` maps the root mean square to 1/2, where posits and takums have most digits;
    `mse` is the range of least squared error, `output_mse` that of least squared error
    in what a layer computes from calibration data (without data it is `mse`);
    `mean_channel_range` is the mean over slices of their ranges, as one scale for all (FracTrain,
    arXiv 2012.13113); `learned` scales are trained and come as a state, which starts at LSQ's
    2 mean|x| / sqrt(max) (arXiv 1902.08153, section 2.1). `auto` is what suits the place, see
    `settled`. Timing `two_stage` is dynamic, its maximum taken over groups first (COAT, arXiv
    2410.19313, section 4.2): the same values, another cost.

    Roundings: `random_directed` rounds each value up or down with even odds (CADNA);
    `requant` takes codes of `high_bits` down to the format's bits (Double Rounding, arXiv
    2502.01199), `requant_floor` by dropping bits; `gptq` and `discquant` choose between the two
    neighbours with calibration data, a layer at a time; `blockwise` a block at a time.
    """

    format: Format
    statistic: Statistic = "auto"
    percentile: float = 100.0
    timing: Timing = "dynamic"
    history: int = HISTORY
    """Timing `delayed`: how many earlier steps the scale is taken from."""
    rounding: Rounding = "nearest_even"
    random_bits: int = 0
    """Stochastic rounding: how many random bits are added; 0 means as many as are dropped."""
    high_bits: int = 0
    """Requantisation: width of the codes that it starts from."""
    correction: Correction = "auto"
    """Weights: whether the mean of the outputs is put back to that of full precision, and their
    strength where a coarse rounding has shrunk them."""
    transforms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.percentile <= 100:
            raise FormatError(
                f"format {self.format.name!r}: percentile: expected more than 0 and at most 100, "
                f"got {self.percentile:g}"
            )
        if not 0 <= self.random_bits <= MOST_RANDOM_BITS:
            raise FormatError(
                f"format {self.format.name!r}: stochastic rounding: expected 0 to "
                f"{MOST_RANDOM_BITS} random bits (0: as many as are dropped), got "
                f"{self.random_bits}"
            )
        if self.history < 1:
            raise FormatError(
                f"format {self.format.name!r}: delayed scales: expected at least 1 earlier step, "
                f"got {self.history}"
            )

    @property
    def name(self) -> str:
        """The format's name, marked where a default is left (`int8:static`, `int4_g128:mse`)."""
        parts = [self.format.name]
        if self.statistic == "percentile":
            parts.append(f"percentile{self.percentile!r}")
        elif self.statistic != "auto":
            parts.append(self.statistic)
        if self.timing != "dynamic":
            parts.append(f"{self.timing}{'' if self.history == HISTORY else self.history}")
        if self.rounding != "nearest_even":
            parts.append(f"{self.rounding}{self.random_bits or self.high_bits or ''}")
        if self.correction != "auto":
            parts.append(self.correction)
        return ":".join([*parts, *self.transforms])

    @property
    def is_dynamic(self) -> bool:
        """Whether scales come from the very tensor that is quantized."""
        return self.timing in ("dynamic", "two_stage")

    @property
    def is_learned(self) -> bool:
        """Whether the rounding is chosen with calibration data."""
        return self.rounding in LEARNED_ROUNDINGS

    @property
    def is_random(self) -> bool:
        """Whether the rounding draws random bits."""
        return self.rounding in RANDOM_ROUNDINGS

    @property
    def narrows_codes(self) -> bool:
        """Whether rounding starts from integer codes of `high_bits`."""
        return self.rounding in NARROWING_ROUNDINGS

    @property
    def narrowing_problem(self) -> str:
        """Reason that codes of `high_bits` cannot become the format's; empty where they can."""
        format, element = self.format, self.format.element
        if element.kind != "int" or not element.signed or not format.scale or format.zero_point:
            return f"{self.name}: only scaled signed integers are requantized"
        if not element.bits < self.high_bits <= WIDEST_CODES:
            wanted = f"expected {element.bits + 1} to {WIDEST_CODES}"
            return f"{self.name}: from {self.high_bits} bits, {wanted}"
        return ""

    @property
    def is_fitted(self) -> bool:
        """Whether scales are searched, with their sign and offset."""
        return self.format.scale is not None and self.format.scale.rule == "fitted"

    @property
    def without_data(self) -> Quantizer:
        """The same with rounding to nearest in place of a learned one: for what is no weight."""
        return replace(self, rounding="nearest_even") if self.is_learned else self

    @property
    def plain_statistic(self) -> Statistic:
        """The meaning of `auto` where neither place nor data are known."""
        if self.is_fitted:
            return "mse"
        return "rms" if self.format.element.is_tapered else "absmax"

    def settled(self, *, weight: bool) -> Quantizer:
        """The quantizer with every `auto` replaced by what suits its place.

        Integer weights of at most `COARSE_BITS` take ranges of least output error, of at most
        `CORRECTED_BITS` corrected means. Fitted scales of weights count errors by the inputs that
        they meet, as llama.cpp does with an importance matrix; elsewhere they have the least error
        of values. Tapered elements take the root mean square, everything else the largest
        magnitude.
        """
        scaled = self.format.element.kind == "int" and self.format.scale is not None
        bits = self.format.element.bits if scaled and not self.is_fitted else math.inf
        statistic, correction = self.statistic, self.correction
        if statistic == "auto":
            searched = weight and (self.is_fitted or bits <= COARSE_BITS)
            statistic = "output_mse" if searched else self.plain_statistic
        if correction == "auto":
            corrected = weight and bits <= CORRECTED_BITS
            correction = "bias_corrected" if corrected else "uncorrected"
        if (statistic, correction) == (self.statistic, self.correction):
            return self
        return replace(self, statistic=statistic, correction=correction)

    def replaced(self, **changes: object) -> Quantizer:
        """A copy with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]
