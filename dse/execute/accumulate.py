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

from torch import Tensor

from dse.errors import AssignmentError
from dse.execute.codes import SliceCodes, SliceScales, codes_of, is_integer, slices_of
from dse.execute.emulate import Emulator
from dse.execute.operators.step import Quantize, Step
from dse.execute.summed import SUMMED, attributes_of
from dse.graph.ir.graph import Node
from dse.graph.ir.site import SUM
from dse.graph.patterns.contraction import is_contracting
from dse.numerics import matmul
from dse.numerics.summation import integer_sums
from hwmodels.formats.accumulator import Accumulator


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


def _added(x: Tensor, scale: Tensor | None, made: SliceScales | None) -> Tensor:
    """The numbers of an operand that are added: codes where it has a scale, else the values."""
    if scale is None or made is None:
        return x.float()
    return codes_of(x.float(), scale, made.emulator)


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
        if not isinstance(one, Emulator) or not is_integer(one.quantizer.format.element):
            return "integers are added where both operands are integers"
        if slices_of(node, place, one) is None:
            return "sums under block scales, transforms or a scale a pixel are floats"
    return None


def _is_scaled(one: Quantize | None) -> bool:
    return isinstance(one, Emulator) and one.quantizer.format.scale is not None
