"""A narrower accumulator in the products of a network.

Where both operands have scales of whole slices (or none), a circuit adds products of *codes* and
scales the result once: so does this. Otherwise (block scales, transforms) it adds values. An
accumulator of integers takes codes that are integers, after their zero points are subtracted.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor

from dse.errors import AssignmentError
from dse.execute.emulate import Emulator
from dse.execute.operators.step import Quantize, Step
from dse.execute.summed import SUMMED, attributes_of
from dse.graph.ir.graph import Node
from dse.graph.ir.site import SUM
from dse.graph.patterns.contraction import is_contracting
from dse.numerics import calibrated_state, matmul
from dse.numerics.grids.layout import layout_of
from dse.numerics.summation import integer_sums
from hwmodels.formats.accumulator import Accumulator
from hwmodels.formats.quantizer import Encoding

DIGITS = 16
"""More than any element of 16 bits has, and few enough that a rounding of float32 is lost."""
_SLICES = ("tensor", "channel", "token", "head")


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceScales:
    """The scales that an emulator gives the slices of its operand."""

    emulator: Emulator

    def __call__(self, x: Tensor) -> Tensor:
        """The scales of x, in its shape with one element along the contraction, or one for all."""
        emulator = self.emulator
        state = emulator.state_of(x)
        if state is None or state.scales is None:
            static = emulator.quantizer.replaced(timing="static")
            state = calibrated_state(x, static, axes=emulator.axes, state=state)
        assert state.scales is not None
        if state.scales.numel() == 1:
            return state.scales.to(x.device).reshape((1,) * x.dim())
        layout = layout_of(x, emulator.axes)
        axes = {axis % x.dim() for axis in emulator.axes}
        shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
        rows = state.scales.to(x.device).expand(layout.rows, 1)
        kept = rows.reshape(layout.outer, 1, layout.inner)
        order = layout.order
        inverse = sorted(range(len(order)), key=order.__getitem__)
        return kept.reshape([shape[axis] for axis in order]).permute(inverse)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summation:
    """The sum of one product in an accumulator; equal ones compute the same."""

    accumulator: Accumulator
    scales: tuple[SliceScales | None, SliceScales | None]
    """Of operands whose codes are added; None: values are."""
    seed: int

    @property
    def codes(self) -> tuple[Quantize | None, Quantize | None]:
        """The functions that make codes of operands."""
        first, second = (None if one is None else SliceCodes(of=one) for one in self.scales)
        return first, second

    def applied(
        self,
        step: Step,
        scales: tuple[Tensor | None, Tensor | None],
        codes: tuple[Tensor | None, Tensor | None],
    ) -> Step:
        """The step with its sum formed here, given scales of operands and codes of constants."""
        known = attributes_of(step)
        return replace(step, call=partial(self._call, step.what, known, scales, codes))

    def _call(
        self,
        what: str,
        keywords: Mapping[str, object],
        scales: tuple[Tensor | None, Tensor | None],
        known: tuple[Tensor | None, Tensor | None],
        *arguments: Tensor,
    ) -> Tensor:
        operands = [
            made if made is not None else _added(x, scale, one)
            for x, made, scale, one in zip(arguments[:2], known, scales, self.scales, strict=True)
        ]
        function = SUMMED[what]
        y = function(*operands, *arguments[2:], product=self._product, scales=scales, **keywords)
        return y.to(arguments[0].dtype)

    def _product(self, left: Tensor, right: Tensor) -> Tensor:
        if self.accumulator.kind == "integer":
            return integer_sums(left, right, self.accumulator).float()
        return matmul(left, right, self.accumulator, seed=self.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceCodes:
    """The codes that an emulator makes of its operand."""

    of: SliceScales

    def __call__(self, x: Tensor) -> Tensor:
        """The codes of x, float32."""
        quantized = self.of.emulator(x).float()
        return codes_of(quantized, self.of(x), self.of.emulator)


def _added(x: Tensor, scale: Tensor | None, made: SliceScales | None) -> Tensor:
    """The numbers of an operand that are added: codes where it has a scale, else the values."""
    if scale is None or made is None:
        return x.float()
    return codes_of(x.float(), scale, made.emulator)


def codes_of(x: Tensor, scale: Tensor, emulator: Emulator) -> Tensor:
    """The codes of quantized values: integers, or numbers of the element's own grid.

    A quotient is off by a rounding of float32 from the code that the value was made of. Codes of
    at most 16 bits have fewer digits than half a float32 more: the nearest number of `DIGITS` is
    the code (Veltkamp's split: Dekker, Numer. Math. 18, 1971). Of codebooks the quotient stays.
    """
    element = emulator.quantizer.format.element
    divided = torch.where(scale == 0, 0.0, x / scale)
    if _is_integer(element):
        step = 2.0**-element.mantissa_bits
        return (divided / step).round() * step
    if element.kind == "codebook" or element.bits > 16:
        return divided
    wide = divided * (2.0 ** (24 - DIGITS) + 1)
    return wide - (wide - divided)


def summations(
    nodes: Iterable[Node], emulators: Mapping[str, Quantize], accumulator: Accumulator
) -> tuple[dict[str, Quantize], dict[str, str]]:
    """The sums of products under an accumulator, by site, and why other products keep theirs.

    They stand among quantizers, at `<node>/sum`.

    Args:
        nodes: of the graph, those of bodies too.
        emulators: what stands at sites.
        accumulator: of every product that it can be.

    Raises:
        AssignmentError: no product can take it; the message says why not.
    """
    found: dict[str, Quantize] = {}
    left: dict[str, str] = {}
    for node in nodes:
        if not is_contracting(node):
            continue
        total = _summation(node, emulators, accumulator)
        if isinstance(total, str):
            left[node.name] = total
        else:
            found[f"{node.name}/{SUM}"] = cast("Quantize", total)
    if not found:
        reasons = "; ".join(sorted(set(left.values()))) or "the model has no products"
        raise AssignmentError(f"accumulator {accumulator.name}: no product can take it: {reasons}")
    return found, left


def named_sums(
    nodes: Iterable[Node],
    emulators: Mapping[str, Quantize],
    accumulators: Mapping[str, Accumulator],
) -> dict[str, Quantize]:
    """The sums that an assignment names, by site.

    Args:
        nodes: of the graph, those of bodies too.
        emulators: what stands at sites.
        accumulators: by node.

    Raises:
        AssignmentError: products that cannot take theirs, all of them at once.
    """
    found: dict[str, Quantize] = {}
    wrong: list[str] = []
    for node in nodes:
        if node.name not in accumulators:
            continue
        accumulator = accumulators[node.name]
        total = _summation(node, emulators, accumulator)
        if isinstance(total, str):
            wrong.append(f"site '{node.name}/{SUM}': {accumulator.name}: {total}")
        else:
            found[f"{node.name}/{SUM}"] = cast("Quantize", total)
    if wrong:
        raise AssignmentError("; ".join(wrong))
    return found


def _summation(
    node: Node, emulators: Mapping[str, Quantize], accumulator: Accumulator
) -> Summation | str:
    """The sum of a product, or why it cannot be formed so."""
    operands = tuple(emulators.get(f"{node.name}/in{i}") for i in (0, 1))
    reason = _refusal(node, operands, accumulator)
    if reason is not None:
        return reason
    first, second = (slices_of(node, place, one) for place, one in enumerate(operands))
    if (first is None and _is_scaled(operands[0])) or (second is None and _is_scaled(operands[1])):
        first = second = None  # values of one operand meet no codes of the other
    return Summation(
        accumulator=accumulator, scales=(first, second), seed=zlib.crc32(node.name.encode())
    )


def _refusal(
    node: Node, operands: tuple[Quantize | None, ...], accumulator: Accumulator
) -> str | None:
    if node.op_type not in SUMMED or node.domain:
        return f"{node.op_type} forms its sums itself"
    if accumulator.kind == "exact":
        return "a quire is not emulated in networks"
    if accumulator.kind != "integer":
        return None
    for place, one in enumerate(operands):
        if not isinstance(one, Emulator) or not _is_integer(one.quantizer.format.element):
            return "integers are added where both operands are integers"
        if slices_of(node, place, one) is None:
            return "sums under block scales, transforms or a scale a pixel are floats"
    return None


def slices_of(node: Node, place: int, one: Quantize | None) -> SliceScales | None:
    """The scales of an operand that are constant along the contraction; None: it has no such."""
    if not isinstance(one, Emulator) or one.quantizer.format.scale is None:
        return None
    quantizer = one.quantizer
    whole = quantizer.format.granularity in _SLICES and quantizer.format.tensor_scale is None
    if node.op_type == "Conv" and place == 0:
        whole = quantizer.format.granularity == "tensor"
    factors = None if one.state is None else one.state.channel_factors
    plain = not quantizer.transforms and factors is None and not quantizer.is_fitted
    return SliceScales(emulator=one) if whole and plain else None


def _is_scaled(one: Quantize | None) -> bool:
    return isinstance(one, Emulator) and one.quantizer.format.scale is not None


def _is_integer(element: Encoding) -> bool:
    return element.kind in ("int", "fixed")
