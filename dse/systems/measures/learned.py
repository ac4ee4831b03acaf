"""Roundings that are chosen with data, codes that are narrowed, and bits that are allotted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from dse.explore.solve.solver import Budget, solve
from dse.numerics import DiscQuant, discquant, gptq, neighbours, quantize, requantized
from dse.systems.measures.measure import Rows
from dse.systems.measures.tensors import Positive, Size
from hwmodels.formats.catalog import quantizer
from hwmodels.validation import Entry

HIGH_BITS = 8
STEPS = (0.01, 0.04, 25)
"""Trial steps of 8-bit codes of standard normal weights: first, last, count."""
Bits = Annotated[int, Field(ge=2, le=7)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedRounding(Entry):
    """Held-out error of a linear model's output under roundings, on data of low rank."""

    draws: ClassVar[bool] = True
    formats: Annotated[tuple[str, ...], Field(min_length=1)]
    """Formats of the weights."""
    weights: Size = 1024
    """Weights of the one output."""
    rank: Size = 64
    """Of the data."""
    samples: Size = 64
    """For the choice; as many judge it."""
    steps: Size = 400
    """Of the descent."""
    rho: Positive = 20.0
    """Weight of the data against the pull to the corners."""

    def rows(self, seed: int) -> Rows:
        """`<format> nearest`, `gptq` and `discquant`: mean squared errors."""
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(1, self.weights, generator=generator)
        mixing = torch.randn(self.rank, self.weights, generator=generator) / self.rank**0.5
        seen, held = (
            torch.randn(self.samples, self.rank, generator=generator) @ mixing for _ in range(2)
        )
        found: dict[str, float] = {}
        for name in self.formats:
            values = self._roundings(weight, seen, name)
            found |= {
                f"{name} {rounding}": float(((one - weight) @ held.T).square().mean())
                for rounding, one in values.items()
            }
        return found

    def _roundings(self, weight: Tensor, seen: Tensor, name: str) -> dict[str, Tensor]:
        chosen = quantizer(name)
        target = weight @ seen.T

        def loss(candidate: Tensor) -> Tensor:
            return (candidate @ seen.T - target).square().mean()

        second = seen.T @ seen / len(seen)
        damped = second + 0.01 * second.diagonal().mean() * torch.eye(len(second))
        settings = DiscQuant(steps=self.steps, rho=self.rho)
        near = neighbours(weight, chosen, axes=(1,))
        return {
            "nearest": quantize(weight, chosen, axes=(1,)),
            "gptq": gptq(weight, damped, chosen),
            "discquant": discquant(weight, near, loss, settings=settings),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class NarrowedCodes(Entry):
    """Squared errors of normal weights whose 8-bit codes are taken to fewer bits.

    Each way has the best of 25 shared steps: of the 8-bit codes, for `direct` of the narrow ones.
    """

    draws: ClassVar[bool] = True
    bits: Annotated[tuple[Bits, ...], Field(min_length=1)]
    """Widths."""
    weights: Size = 100_000
    """Weights."""

    def rows(self, seed: int) -> Rows:
        """`<bits> rounded`, `<bits> floored`, `<bits> direct`."""
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(self.weights, generator=generator)
        found = {}
        for bits in self.bits:
            wide = 2.0 ** (HIGH_BITS - bits)
            for down, name in ((False, "rounded"), (True, "floored")):
                found[f"{bits} {name}"] = min(
                    self._error(weight, _narrowed(weight, step, bits, down=down) * step * wide)
                    for step in torch.linspace(*STEPS).tolist()
                )
            half = 1 << (bits - 1)
            found[f"{bits} direct"] = min(
                self._error(
                    weight, step * torch.clamp(torch.round(weight / step), -half, half - 1)
                )
                for step in (wide * torch.linspace(*STEPS)).tolist()
            )
        return found

    @staticmethod
    def _error(weight: Tensor, values: Tensor) -> float:
        return float((values - weight).square().mean())


def _narrowed(weight: Tensor, step: float, bits: int, *, down: bool) -> Tensor:
    codes = torch.clamp(torch.round(weight / step), -128, 127).to(torch.int16)
    return requantized(codes, high_bits=HIGH_BITS, low_bits=bits, down=down)


@dataclass(frozen=True, slots=True, kw_only=True)
class BitAllocation(Entry):
    """Bits of layers by an exact solver, from planted sensitivities and a mean number of bits."""

    draws: ClassVar[bool] = True
    layers: Size = 20
    """Layers, all of one size."""
    bits: Annotated[tuple[int, ...], Field(min_length=2)] = (2, 4, 6, 8)
    """Widths to choose from."""
    mean_bits: Positive = 4.0
    """Most of them on average; one of the widths, which is the uniform choice."""

    def rows(self, seed: int) -> Rows:
        """`sensitive` and `other`: mean bits of both halves; `loss`, and `uniform` loss.

        `printed`: bits of the sensitive half under the sum of sensitivity x bits as the objective.
        """
        rng = np.random.default_rng(seed)
        traces = np.sort(np.exp(2 * rng.standard_normal(self.layers)))[::-1]
        widths = np.array(self.bits, dtype=float)
        costs = tuple(widths for _ in traces)
        budget = [Budget(costs=costs, limit=self.mean_bits * self.layers)]
        errors = 4.0**-widths
        losses = [trace * errors for trace in traces]
        found = solve(losses, budget)
        assert found is not None, "the narrowest width meets the budget"
        chosen = widths[list(found)]
        uniform = traces.sum() * 4.0**-self.mean_bits
        # At exactly the mean: without the lower bound least bits are least product.
        exact = [*budget, Budget(costs=tuple(-one for one in costs),
                                 limit=-self.mean_bits * self.layers)]  # fmt: skip
        printed = solve([trace * widths for trace in traces], exact)
        assert printed is not None, "uniform bits are one solution"
        half = self.layers // 2
        return {
            "sensitive": float(chosen[:half].mean()),
            "other": float(chosen[half:].mean()),
            "loss": float((traces * 4.0**-chosen).sum()),
            "uniform": float(uniform),
            "printed": float(widths[list(printed)][:half].mean()),
        }
