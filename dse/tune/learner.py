"""Callables that stand at sites while a recipe is learned, and what they have learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dse.execute.emulate import Emulator
from dse.numerics import QuantizerState, quantize, quantize_with_gradient
from dse.numerics.learned_scale import moved_scales, quantize_with_scale_gradient
from dse.run.entries import Learn
from dse.tune.operand import Operand


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A tensor that is learned, and how far one step of a learning rate of 1 would move it."""

    tensor: Tensor
    unit: float = 1.0


@dataclass(eq=False, kw_only=True)
class Learner:
    """An operand whose weight or scales are learned; equal only to itself."""

    operand: Operand
    growth: Tensor | None
    """The logarithm of scales over those of the recipe; None where they stay. Operands that
    share one scale share it."""
    addend: tuple[Tensor, ...] = ()
    """Added to the weight: the change itself, or its factors (rows, rank), (rank,
    columns). None of an activation, or where weights stay."""
    start: Tensor | None = None
    """The weight before that; None of an activation."""
    unit: float = 1.0
    """The root mean square of the weight."""
    inputs: Sequence[Tensor] = field(default=(), init=False)

    def __call__(self, x: Tensor) -> Tensor:
        """The value on its grid; gradients pass straight through."""
        operand = self.operand
        value = x if self.start is None else self._latent(self.start)
        if self.growth is None:
            return quantize_with_gradient(
                value, operand.quantizer, axes=operand.emulator.axes, state=self._state,
                gradient="clipped_ste",
            )  # fmt: skip
        return quantize_with_scale_gradient(
            value, self.growth, operand.quantizer, axes=operand.emulator.axes, state=operand.state
        )

    def learned(self) -> Emulator:
        """The emulator with what was learned, for a deployment."""
        operand, emulator = self.operand, self.operand.emulator
        state = operand.state
        if self.growth is not None:
            state = moved_scales(state, self.growth, operand.quantizer)
        if self.start is not None:
            with torch.no_grad():
                latent = self._latent(self.start)
            values = quantize(latent, operand.quantizer, axes=emulator.axes, state=state)
            state = replace(state, values=values)
        return replace(emulator, state=state, statistics=None)

    def parameters(self) -> Iterator[Parameter]:
        """Everything that it learns, shared scales included."""
        if self.growth is not None:
            yield Parameter(tensor=self.growth)
        yield from (Parameter(tensor=one, unit=self.unit) for one in self.addend[:1])
        yield from (Parameter(tensor=one) for one in self.addend[1:])

    @property
    def _state(self) -> QuantizerState | None:
        return self.operand.state if self.operand.state.changes_values else None

    def _latent(self, start: Tensor) -> Tensor:
        match self.addend:
            case ():
                return start
            case (change,):
                return start + change
            case (left, right):
                return start + (left @ right).reshape(start.shape)
        raise AssertionError("a change, or two factors")


def learners_of(
    operands: Sequence[Operand], learn: Learn, *, rank: int, seed: int
) -> tuple[Learner, ...]:
    """The callables of operands; those with nothing to learn are left out.

    Low-rank factors start at no change: (rows, rank) zeros times (rank, columns) normal numbers
    over the root of the rank, inside of the quantizer, so that nothing of them is left at run
    time.

    Args:
        operands: of a recipe.
        learn: weights and scales, low-rank changes of weights and scales, or scales alone.
        rank: of changes, at most a matrix's own.
        seed: of the factors.

    Source: Bondarenko et al., LR-QAT, arXiv 2406.06385, section 3.1 (factors inside of the
    quantizer).
    """
    generator = torch.Generator().manual_seed(seed)
    shared: dict[int, Tensor] = {}
    found = []
    for operand in operands:
        growth = _growth(operand, shared) if operand.has_scales else None
        start = None if operand.weight is None else operand.start
        moves = start is not None and learn != "scales"
        if start is None or not moves:
            addend: tuple[Tensor, ...] = ()
        elif learn == "weights":
            addend = (torch.zeros_like(start),)
        else:
            addend = _factors(start, rank, generator)
        if growth is None and not addend:
            continue
        for one in addend:
            one.requires_grad_()
        unit = 1.0 if start is None else float(start.square().mean().sqrt())
        found.append(
            Learner(operand=operand, growth=growth, addend=addend, start=start, unit=unit)
        )
    return tuple(found)


def _growth(operand: Operand, shared: dict[int, Tensor]) -> Tensor:
    """The logarithm of scales over their start: one tensor where sites share one state.

    Matrices that runtimes load as one have one scale of the tensor.
    """
    scales = operand.state.scales
    assert scales is not None, "the operand has scales"
    state = operand.emulator.state
    fresh = torch.zeros_like(scales).requires_grad_()
    if state is None or state.values is not None:
        return fresh
    return shared.setdefault(id(state), fresh)


def _factors(weight: Tensor, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    rows, columns = len(weight), weight[0].numel()
    kept = min(rank, rows, columns)
    drawn = torch.randn(kept, columns, generator=generator) / kept**0.5
    return weight.new_zeros(rows, kept), drawn.to(weight.device)
