"""Products of narrow operands on tensor cores: factors of 16 bits, sums in float32.

A number of at most eight significant digits is exact in bfloat16, and so is a code of most formats
of 8 bits and less. Such codes are multiplied, and their scales multiply the sum: the order of the
kernels that these formats are made for, and nothing is rounded that the formats do not round.
Weights may have more digits (a 4-bit code times a scale of 16 bits): they are a sum of two
bfloat16, one behind the other along the contraction. What fits neither is a float32 product.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor

from dse.execute.codes import SliceScales, codes_of, is_integer, slices_of
from dse.execute.emulate import Emulator
from dse.execute.operators.step import Quantize, Step
from dse.execute.summed import SUMMED, attributes_of
from dse.graph.ir.graph import Node
from dse.graph.ir.site import SUM, Site
from dse.numerics import QuantizerState
from dse.numerics.grids.grid import is_tabled
from dse.numerics.on_device import tensor_scale
from hwmodels.formats.numbers import sorted_values
from hwmodels.formats.quantizer import Encoding, Format
from hwmodels.work.role import ROLES

DIGITS = 8
"""Significant digits of bfloat16."""
OPERATORS = ("MatMul", "Gemm")
"""Products of an activation and a weight; others stay what they are."""
TOLERANCE = 2.0**-22
"""Relative, of a value beside its code times its scale: two roundings of float32."""
_PROBE = 48
"""Rows, columns and depth of the product that a device must form without an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelScale:
    """The scale of a whole tensor above those of its blocks, which stay in the codes."""

    emulator: Emulator

    def __call__(self, x: Tensor) -> Tensor:
        """The scale of x, with one element and the rank of x."""
        state = self.emulator.state_of(x) or QuantizerState()
        level = tensor_scale(x.reshape(-1).float(), self.emulator.quantizer.format, state)
        return torch.full((1,) * x.dim(), level, device=x.device)


Scales = SliceScales | LevelScale


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightCodes:
    """The numbers of a weight that are multiplied: codes, or values where no scale is outside."""

    emulator: Emulator
    scales: Scales | None

    def __call__(self, x: Tensor) -> Tensor:
        """Those of x, as `parts` has them.

        Values that are no codes times these scales are divided by them, and stay float32.
        """
        values = self.emulator(x).float()
        if self.scales is None:
            return parts(values, axis=self.emulator.axes[0])
        scale = self.scales(x)
        codes = codes_of(values, scale, self.emulator)
        if torch.allclose(codes * scale, values, rtol=TOLERANCE, atol=0.0):
            return parts(codes, axis=self.emulator.axes[0])
        return torch.where(scale == 0, 0.0, values / scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorCoreProduct:
    """The sum of one product; equal ones compute the same."""

    scales: tuple[Scales | None, Scales | None]
    """Of operands whose codes are multiplied; None: their values are."""
    weight: WeightCodes

    @property
    def codes(self) -> tuple[Quantize | None, Quantize | None]:
        """The function that makes codes of the second operand, the weight."""
        return None, self.weight

    def applied(
        self,
        step: Step,
        scales: tuple[Tensor | None, Tensor | None],
        codes: tuple[Tensor | None, Tensor | None],
    ) -> Step:
        """The step with its sum formed here, given scales of operands and codes of the weight."""
        known = attributes_of(step)
        weight = codes[1]
        assert weight is not None, step.name
        return replace(step, call=partial(self._call, step.what, known, scales, weight))

    def _call(
        self,
        what: str,
        keywords: Mapping[str, object],
        scales: tuple[Tensor | None, Tensor | None],
        weight: Tensor,
        x: Tensor,
        _: Tensor,
        *others: Tensor,
    ) -> Tensor:
        made, scale = self.scales[0], scales[0]
        left = x if made is None or scale is None else codes_of(x.float(), scale, made.emulator)
        y = SUMMED[what](left, weight, *others, product=product, scales=scales, **keywords)
        return y.to(x.dtype)


def product(left: Tensor, right: Tensor) -> Tensor:
    """The float32 product of (m, depth) and (depth or twice the depth, n).

    `right` is bfloat16, one part behind the other, if it has few enough digits, else float32.
    """
    if right.dtype == torch.float32:
        return left.float() @ right
    narrow = left.to(torch.bfloat16)
    if right.shape[0] != left.shape[1]:
        narrow = narrow.repeat(1, right.shape[0] // left.shape[1])
    if narrow.device.type == "cuda":
        return torch.mm(narrow, right, out_dtype=torch.float32)
    return narrow.float() @ right.float()


def parts(values: Tensor, *, axis: int) -> Tensor:
    """Float32 values as bfloat16: as they are, or as two whose sum they are, along the axis.

    Values of more than sixteen digits come back as they are.
    """
    first = values.to(torch.bfloat16)
    rest = values - first.float()
    if not rest.any():
        return first
    second = rest.to(torch.bfloat16)
    exact = torch.equal(second.float(), rest)  # False where there is a NaN
    return torch.cat([first, second], dim=axis) if exact else values


def tensor_core_products(
    nodes: Iterable[Node], at_sites: Mapping[str, Quantize], sites: Mapping[str, Site]
) -> dict[str, Quantize]:
    """Products of an activation and a matrix of weights that tensor cores form exactly, by site.

    Args:
        nodes: of the graph.
        at_sites: what stands at sites; a product with a sum of its own keeps it.
        sites: of the graph, by key.
    """
    found: dict[str, Quantize] = {}
    for node in nodes:
        key = f"{node.name}/{SUM}"
        if node.op_type in OPERATORS and not node.domain and key not in at_sites:
            made = _product_of(node, at_sites, sites)
            if made is not None:
                found[key] = cast("Quantize", made)
    return found


def _product_of(
    node: Node, at_sites: Mapping[str, Quantize], sites: Mapping[str, Site]
) -> TensorCoreProduct | None:
    x, weight = (at_sites.get(f"{node.name}/in{place}") for place in (0, 1))
    site = sites.get(f"{node.name}/in1")
    if not isinstance(x, Emulator) or not isinstance(weight, Emulator) or site is None:
        return None
    if not ROLES[site.role].is_constant or len(site.shape) != 2 or len(weight.axes) != 1:
        return None
    narrow, first = _activation(node, x)
    if not narrow or _moves_values(weight):
        return None
    second = slices_of(node, 1, weight) or _level_of(weight)
    codes = WeightCodes(emulator=weight, scales=second)
    return TensorCoreProduct(scales=(first, second), weight=codes)


def _activation(node: Node, x: Emulator) -> tuple[bool, Scales | None]:
    """Whether an activation's numbers are exact in bfloat16, and the scales that must be off."""
    format = x.quantizer.format
    if _moves_values(x) or x.quantizer.is_fitted or not is_exact(format):
        return False, None
    if format.scale is None or _is_power_of_two(format):
        return True, None
    scales = slices_of(node, 0, x) or _level_of(x)
    return scales is not None, scales


def _level_of(one: Emulator) -> LevelScale | None:
    return None if one.quantizer.format.tensor_scale is None else LevelScale(emulator=one)


def _moves_values(one: Emulator) -> bool:
    """Whether what stands at the site leaves the format's grid: rotations and factors do."""
    factors = None if one.state is None else one.state.channel_factors
    return bool(one.quantizer.transforms) or factors is not None


def _is_power_of_two(format: Format) -> bool:
    scale = format.scale
    powers = scale is not None and scale.encoding.kind in ("exponent", "float")
    return powers and _mantissa(format) == 0 and format.tensor_scale is None


def _mantissa(format: Format) -> int:
    return 0 if format.scale is None else format.scale.encoding.mantissa_bits


def is_exact(format: Format) -> bool:
    """Whether bfloat16 has every code of a format; under a tensor's scale, times a block's."""
    element = format.element
    if format.offset is not None:
        return False
    if is_integer(element):
        digits = element.bits - (element.signed and format.zero_point is None)
    elif format.zero_point is not None:
        return False
    elif is_tabled(element):
        digits = _digits_of_table(element)
    else:
        digits = element.mantissa_bits + 1
    levels = format.tensor_scale is not None
    return digits + ((_mantissa(format) + 1) if levels and _mantissa(format) else 0) <= DIGITS


@functools.cache
def _digits_of_table(element: Encoding) -> int:
    """Significant digits of the values of a tabled element, at most 25."""
    values = torch.tensor([float(v) for v in sorted_values(element) if math.isfinite(v) and v])
    significands = values.double().frexp().mantissa.abs()
    for digits in range(1, 25):
        scaled = significands * 2.0**digits
        if torch.equal(scaled, scaled.round()):
            return digits
    return 25


@functools.cache
def has_tensor_cores(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 into float32 sums, tried on sums that are known.

    Whole numbers of eight digits whose sums have less than 24 come out without an error wherever
    sums are float32: a device, a driver or a version of torch that rounds them is not used.
    """
    if device.type != "cuda":
        return False
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.randint(-255, 256, (_PROBE, _PROBE), generator=generator).float() for _ in range(2)
    )
    try:
        found = product(left.to(device), right.to(device, torch.bfloat16)).cpu()
    except (RuntimeError, TypeError):  # NotImplementedError is one
        return False
    return found.dtype == torch.float32 and torch.equal(found, left @ right)
