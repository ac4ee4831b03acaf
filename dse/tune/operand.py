"""Operands of a recipe that can be learned: weights under quantizers, and static scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from dse.execute.emulate import Emulator
from dse.execute.operators.step import Quantize
from dse.execute.program.program import Program
from dse.graph.ir.site import Site
from dse.numerics import QuantizerState
from dse.numerics.calibrate import complete_state
from dse.numerics.grids.layout import layout_of
from dse.numerics.learned_scale import has_learnable_scales
from hwmodels.formats.quantizer import RANDOM_ROUNDINGS, Quantizer

NARROW_BITS = 16
"""Elements of fewer bits are quantized; others are casts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """One quantized value, with all sites that read it alike."""

    sites: tuple[str, ...]
    emulator: Emulator
    """As the recipe has it."""
    state: QuantizerState
    """Every scale that it has, and nothing else."""
    weight: Tensor | None = None
    """The constant, float32; None of an activation."""

    @property
    def quantizer(self) -> Quantizer:
        """The quantizer as it rounds while something is learned: to nearest."""
        found = self.emulator.quantizer
        return found.replaced(rounding="nearest_even") if found.is_learned else found

    @property
    def has_scales(self) -> bool:
        """Whether its scales can be learned."""
        return self.state.scales is not None and has_learnable_scales(self.quantizer)

    @property
    def start(self) -> Tensor:
        """The weight to start from: rounded to nearest it is what the recipe has.

        That is the full-precision weight where rounding to nearest gives the recipe's value, and
        that value where a learned rounding has chosen another.
        """
        assert self.weight is not None, "activations have no start"
        chosen = self.emulator(self.weight)
        nearest = replace(self.emulator, quantizer=self.quantizer, state=self.state)
        return self.weight.where(nearest(self.weight) == chosen, chosen)


def operands_of(
    bound: Mapping[str, Quantize], sites: Mapping[str, Site], program: Program
) -> tuple[Operand, ...]:
    """The operands that can be learned.

    Left as they are: casts to 16 bits and more, values inside transforms, random and two-step
    roundings, dynamic activations, and what only corrects means.
    """
    groups: dict[tuple[object, ...], tuple[Emulator, list[str]]] = {}
    for key, quantize in bound.items():
        if isinstance(quantize, Emulator) and _is_rounded(quantize.quantizer):
            place = _place(quantize, sites[key])
            groups.setdefault(place, (quantize, []))[1].append(key)
    found = []
    for emulator, keys in groups.values():
        constant = program.constant(sites[keys[0]].value)
        if constant is None:
            operand = _activation(emulator, keys)
        else:
            operand = _weight(emulator, keys, constant.detach().float())
        if operand is not None:
            found.append(operand)
    return tuple(found)


def _is_rounded(quantizer: Quantizer) -> bool:
    plain = not quantizer.transforms and quantizer.rounding not in RANDOM_ROUNDINGS
    stepped = quantizer.narrows_codes
    return plain and not stepped and quantizer.format.element.bits < NARROW_BITS


def _place(emulator: Emulator, site: Site) -> tuple[object, ...]:
    """Equal for sites that read one value alike: it is learned about and stored once.

    One constant in several layouts has several names, and one state if its rounding is learned.
    """
    state, statistics = emulator.state, emulator.statistics
    stored = site.value if state is None or state.values is None else None
    seen = "" if statistics is None else statistics.digest
    return stored, emulator.quantizer, emulator.axes, seen, id(state)


def _activation(emulator: Emulator, keys: Sequence[str]) -> Operand | None:
    if emulator.fixed is None:
        return None
    found = Operand(sites=tuple(keys), emulator=emulator, state=emulator.fixed)
    return found if found.has_scales else None


def _weight(emulator: Emulator, keys: Sequence[str], weight: Tensor) -> Operand:
    quantizer, state = emulator.quantizer, emulator.state
    if quantizer.format.scale is None:
        state = QuantizerState()
    elif state is None or state.scales is None:
        layout = layout_of(weight, emulator.axes)
        rows = layout.row_matrix(layout.flat(weight))
        level = None if state is None else state.tensor_scale
        state = complete_state(rows, quantizer, tensor_scale=level)
    scales = replace(state, values=None, output_shift=None)
    return Operand(sites=tuple(keys), emulator=emulator, state=scales, weight=weight)
